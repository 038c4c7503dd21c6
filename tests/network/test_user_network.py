"""The user-mode network with the host's real sockets; the guest is one of our own (``guest_box``)."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from tests.network.guest_box import GATEWAY, NAMESERVER, GuestBox
from timevm.errors import HostError
from timevm.network.packets import UNREACHABLE, Fragment, Udp
from timevm.network.reassembly import Reassembly
from timevm.network.resolver import host_nameserver
from timevm.network.settings import Forward, UserSettings
from timevm.network.tcp_segment import Flag
from timevm.network.user_network import UserNetwork

TIMEOUT = 20.0
LOOPBACK = "127.0.0.1"


class World:
    """The guest's frames go to the network as soon as there are some."""

    def __init__(self, settings: UserSettings, nameserver: tuple[str, int] | None = None) -> None:
        self.guest = GuestBox()
        self.loop = asyncio.get_running_loop()
        self.delivered = 0
        self.paused = False
        self.waiting: list[bytes] = []
        self.network = UserNetwork(settings, self.deliver, lambda: bool(self.waiting), nameserver=nameserver)

    def deliver(self, frame: bytes) -> None:
        self.delivered += 1
        if self.paused:
            self.waiting.append(frame)
        else:
            self.guest.take(frame, self.loop.time())
            self.loop.call_soon(self.flush)

    def go_on(self) -> None:
        self.paused = False
        waiting, self.waiting = self.waiting, []
        for frame in waiting:
            self.deliver(frame)

    def flush(self) -> None:
        if not self.paused and (frames := self.guest.flush(self.loop.time())):
            self.network.take(frames)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = self.loop.time() + TIMEOUT
        while not condition():
            assert self.loop.time() < deadline, f"not within {TIMEOUT} s: {what}"
            self.flush()
            await asyncio.sleep(0.005)


@asynccontextmanager
async def world(*rules: str, nameserver: tuple[str, int] | None = None) -> AsyncIterator[World]:
    settings = UserSettings(forwards=tuple(map(Forward.parse, rules)))
    made = World(settings, nameserver)
    await made.network.open()
    try:
        made.guest.ask_for_gateway()
        made.flush()
        yield made
    finally:
        await made.network.close()
        await made.network.close()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[int]:
    """Its port on the host's loopback."""
    serving = await asyncio.start_server(handler, LOOPBACK, 0)
    try:
        yield serving.sockets[0].getsockname()[1]
    finally:
        serving.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(5000):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_a_guest_talks_to_a_server_of_the_host() -> None:
    said = random.Random(1).randbytes(2_000_000)
    async with server(echo) as port, world() as here:
        connection = here.guest.connect(GATEWAY, port, here.loop.time())
        await here.until(lambda: connection.is_open, "connected")
        connection.say(said, here.loop.time())
        connection.end(here.loop.time())
        await here.until(lambda: connection.other_ended, "all came back")
        assert connection.received == said and connection.said_all and not connection.was_reset


async def test_a_port_where_nobody_listens_refuses() -> None:
    with socket.socket() as unused:
        unused.bind((LOOPBACK, 0))
        async with world() as here:
            connection = here.guest.connect(GATEWAY, unused.getsockname()[1], here.loop.time())
            await here.until(lambda: connection.was_reset, "refused")


async def test_a_server_that_breaks_off_breaks_off() -> None:
    async def abort(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(5)
        writer.transport.abort()

    async with server(abort) as port, world() as here:
        connection = here.guest.connect(GATEWAY, port, here.loop.time())
        await here.until(lambda: connection.is_open, "connected")
        connection.say(b"hello, and more", here.loop.time())
        await here.until(lambda: connection.was_reset or connection.other_ended, "broken off")


async def test_a_guest_that_breaks_off_is_noticed() -> None:
    gone = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read()
        gone.set()
        writer.close()

    async with server(wait) as port, world() as here:
        connection = here.guest.connect(GATEWAY, port, here.loop.time())
        await here.until(lambda: connection.is_open, "connected")
        connection.reset()
        here.flush()
        await asyncio.wait_for(gone.wait(), TIMEOUT)


async def test_somebody_on_the_host_connects_to_the_guest() -> None:
    said = random.Random(2).randbytes(300_000)
    async with world("tcp::0-:22") as here:
        [(host, port)] = here.network.listens
        assert host == LOOPBACK
        arrived = here.guest.listen(22)
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(said)
        await here.until(lambda: bool(arrived) and len(arrived[0].received) == len(said), "all came")
        assert arrived[0].received == said
        arrived[0].say(b"answer", here.loop.time())
        arrived[0].end(here.loop.time())
        reading = asyncio.create_task(reader.read())
        await here.until(reading.done, "the answer")
        assert reading.result() == b"answer"
        writer.close()
        await here.until(lambda: arrived[0].other_ended, "the end")


async def test_a_guest_that_is_paused_loses_nothing() -> None:
    """As under a debugger: nothing is taken for lost, nothing is given up, and little is sent twice."""
    said = random.Random(3).randbytes(100_000)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    async with server(speak) as port, world() as here:
        connection = here.guest.connect(GATEWAY, port, here.loop.time())
        await here.until(lambda: len(connection.received) > 10_000, "some came")
        here.paused = True
        before = here.delivered
        await asyncio.sleep(2.5)  # longer than TCP waits for an answer
        assert here.delivered - before < 200
        here.go_on()
        await here.until(lambda: connection.other_ended, "the rest")
        assert connection.received == said


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(b"echo " + data, addr)


@asynccontextmanager
async def datagram_server() -> AsyncIterator[tuple[str, int]]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, (LOOPBACK, 0))
    try:
        yield transport.get_extra_info("sockname")[:2]
    finally:
        transport.close()


async def test_datagrams_and_the_name_server() -> None:
    async with datagram_server() as (host, port), world(nameserver=(host, port)) as here:
        here.guest.send_datagram(GATEWAY, port, b"one")
        here.guest.send_datagram(NAMESERVER, 53, b"two", source_port=6000)
        await here.until(lambda: len(here.guest.packets) == 2, "the answers")
        answers = {(source, each.target_port, each.payload) for source, each in here.guest.datagrams()}
        assert answers == {(GATEWAY, 5000, b"echo one"), (NAMESERVER, 6000, b"echo two")}


async def test_a_large_datagram_goes_there_in_fragments_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    said = random.Random(4).randbytes(5000)
    async with datagram_server() as (_, port), world() as here:
        back: list[Fragment] = []
        take = here.guest.take

        def taken(frame: bytes, now: float) -> None:
            fragment = Fragment.read(frame[14:])
            if fragment is not None:
                back.append(fragment)
            take(frame, now)

        monkeypatch.setattr(here.guest, "take", taken)
        here.guest.send_datagram(GATEWAY, port, said)
        await here.until(lambda: any(not each.more for each in back), "the answer")
        reassembly = Reassembly()
        [packet] = [each for each in (reassembly.take(part, 0.0) for part in back) if each is not None]
        datagram = Udp.read(packet)
        assert datagram is not None and datagram.payload == b"echo " + said


async def test_a_datagram_to_nobody_is_refused() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as unused:
        unused.bind((LOOPBACK, 0))
        port = unused.getsockname()[1]
    async with world() as here:
        here.guest.send_datagram(GATEWAY, port, b"hello")
        await here.until(lambda: bool(here.guest.packets), "the complaint")
        assert here.guest.packets[0].payload[:2] == bytes([UNREACHABLE, 3])


async def test_datagrams_from_the_host_to_the_guest_and_back() -> None:
    async with world("udp::0-:69") as here:
        [(host, port)] = here.network.listens
        with socket.socket(type=socket.SOCK_DGRAM) as first, socket.socket(type=socket.SOCK_DGRAM) as second:
            for sender, text in ((first, b"a"), (second, b"b")):
                sender.setblocking(False)
                sender.sendto(text, (host, port))
            await here.until(lambda: len(here.guest.packets) == 2, "both came")
            for source, datagram in here.guest.datagrams():
                assert source == GATEWAY and datagram.target_port == 69
                here.guest.send_datagram(source, datagram.source_port, datagram.payload * 2, source_port=69)
            here.flush()
            for sender, answer in ((first, b"aa"), (second, b"bb")):
                received = await asyncio.wait_for(here.loop.sock_recv(sender, 100), TIMEOUT)
                assert received == answer


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HostError, match=f"Could not set up host forwarding rule 'tcp::{port}-:22': "):
            async with world("udp::0-:9", f"tcp::{port}-:22"):
                pass


async def test_stray_segments_get_no_further() -> None:
    async with world() as here:
        connection = here.guest.connect(GATEWAY, 9, here.loop.time())
        connection.out[0] = replace(connection.out[0], flags=Flag.ACK)
        await here.until(lambda: connection.was_reset, "reset")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# comment\nsearch x\nnameserver 1.2.3.4\nnameserver 5.6.7.8\n", ("1.2.3.4", 53)),
        ("nameserver fe80::1%eth0 \n", ("fe80::1%eth0", 53)),
        ("nameserver nonsense\nnameserver\nnameserver 9.9.9.9", ("9.9.9.9", 53)),
        ("", None),
    ],
)
def test_the_hosts_name_server(tmp_path: Path, text: str, found: tuple[str, int] | None) -> None:
    path = tmp_path / "resolv.conf"
    assert host_nameserver(path) is None
    path.write_text(text)
    assert host_nameserver(path) == found
