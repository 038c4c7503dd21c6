"""The backends with files, pipes, terminals and the peers of others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.peers import need
from tests.tmux import Tmux
from timevm.chardev.address import SocketAddress
from timevm.chardev.base import Backend
from timevm.chardev.logged import LoggedBackend
from timevm.chardev.plain import FileBackend, NullBackend, PipeBackend, RingbufBackend, StdioBackend
from timevm.chardev.pty import PtyBackend
from timevm.chardev.socket import SocketBackend
from timevm.chardev.telnet import SERVER_OPENING
from timevm.errors import HostError

DEADLINE = 20
BackendType = TypeVar("BackendType", bound=Backend)


@contextlib.asynccontextmanager
async def opened(backend: BackendType) -> AsyncIterator[BackendType]:
    await backend.open()
    try:
        yield backend
    finally:
        await backend.close()


async def received(backend: Backend, size: int) -> bytes:
    """At least ``size`` bytes."""
    data = b""
    async with asyncio.timeout(DEADLINE):
        while len(data) < size:
            piece = await backend.receive()
            assert piece, f"ended after {data!r}"
            data += piece
    return data


async def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.01)


async def test_null_and_ringbuf() -> None:
    async with opened(NullBackend()) as null:
        await null.send(b"gone")
        waiting = asyncio.create_task(null.receive())
    assert await asyncio.wait_for(waiting, DEADLINE) == b""
    async with opened(RingbufBackend(4)) as ring:
        await ring.send(b"abc")
        await ring.send(b"def")
        assert ring.contents == b"cdef"


async def test_file_truncates_or_appends_and_reads_another(tmp_path: Path) -> None:
    out, source = tmp_path / "out", tmp_path / "in"
    source.write_bytes(b"typed")
    for append, expected in ((False, b"x" * 100_000), (True, b"x" * 200_000), (False, b"x" * 100_000)):
        async with opened(FileBackend(out, append=append, input_path=source)) as file:
            assert await received(file, 5) == b"typed"
            assert await file.receive() == b""
            await file.send(b"x" * 100_000)
        assert out.read_bytes() == expected
    with pytest.raises(HostError, match=r"Could not open '.*/no/out': No such file or directory"):
        await FileBackend(tmp_path / "no" / "out").open()


async def test_logfile_has_a_copy_of_the_output(tmp_path: Path) -> None:
    ring = RingbufBackend(64)
    async with opened(LoggedBackend(ring, tmp_path / "log", append=False)) as logged:
        await logged.send(b"hello")
    assert (tmp_path / "log").read_bytes() == b"hello" == ring.contents
    with pytest.raises(HostError, match=r"Unable to open logfile .*: Is a directory"):
        await LoggedBackend(ring, tmp_path, append=True).open()


async def test_named_pipes(tmp_path: Path) -> None:
    for way in ("in", "out"):
        os.mkfifo(tmp_path / f"p.{way}")
    async with opened(PipeBackend(tmp_path / "p")) as pipe:
        source, sink = os.open(tmp_path / "p.in", os.O_WRONLY), os.open(tmp_path / "p.out", os.O_RDONLY)
        os.write(source, b"typed")
        assert await received(pipe, 5) == b"typed"
        await pipe.send(b"shown")
        assert os.read(sink, 5) == b"shown"
        os.close(source)
        os.close(sink)
    with pytest.raises(HostError, match=r"Could not open '.*/none': No such file or directory"):
        await PipeBackend(tmp_path / "none").open()


async def test_stdio_that_is_a_pipe_and_breaks(caplog: pytest.LogCaptureFixture) -> None:
    source, typed = os.pipe()
    shown, sink = os.pipe()
    async with opened(StdioBackend(signals=True, descriptors=(source, sink))) as stdio:
        os.write(typed, b"abc")
        os.close(typed)
        assert await received(stdio, 3) == b"abc"
        assert await stdio.receive() == b""
        await stdio.send(b"out")
        assert os.read(shown, 10) == b"out"
        os.close(shown)
        for _ in range(3):
            await asyncio.wait_for(stdio.send(b"nobody"), DEADLINE)
    (record,) = caplog.records
    assert record.message == "standard output: output is dropped from here on: Broken pipe"


async def test_a_writer_that_waits_for_a_full_pipe_is_let_go_by_close() -> None:
    source, typed = os.pipe()
    shown, sink = os.pipe()
    stdio = StdioBackend(signals=True, descriptors=(source, sink))
    await stdio.open()
    sending = asyncio.create_task(stdio.send(b"x" * (1 << 20)))
    await asyncio.to_thread(os.read, shown, 1)
    await stdio.close()
    await asyncio.wait_for(sending, DEADLINE)
    for descriptor in (source, typed, shown, sink):
        os.close(descriptor)


# -- sockets


async def test_one_peer_at_a_time_and_the_next_one_waits(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with opened(SocketBackend(SocketAddress(path=path), server=True)) as backend:
        assert backend.description == f"disconnected:unix:{path},server=on"
        await backend.send(b"nobody is there")
        _, first = await asyncio.open_unix_connection(path)
        second_reader, second = await asyncio.open_unix_connection(path)
        first.write(b"one")
        second.write(b"two")
        assert await received(backend, 3) == b"one"
        assert backend.description == f"unix:{path},server=on"
        first.close()
        assert await received(backend, 3) == b"two"
        await backend.send(b"answer")
        assert await asyncio.wait_for(second_reader.readexactly(6), DEADLINE) == b"answer"
        second.close()
        waiting = asyncio.create_task(backend.receive())
    assert await asyncio.wait_for(waiting, DEADLINE) == b""
    assert os.listdir(tmp_path) == []


async def test_waiting_for_the_first_peer(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with opened(SocketBackend(SocketAddress(path=path), server=True)) as backend:
        waiting = asyncio.create_task(backend.first_peer())
        _, writer = await asyncio.open_unix_connection(path)
        await asyncio.wait_for(waiting, DEADLINE)
        writer.close()
    nobody = SocketBackend(SocketAddress(path=path), server=True)
    await nobody.open()
    waiting = asyncio.create_task(nobody.first_peer())
    await asyncio.sleep(0)
    await nobody.close()
    await asyncio.wait_for(waiting, DEADLINE)


async def test_a_peer_that_reads_nothing_makes_the_sender_wait_and_goes_away(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with opened(SocketBackend(SocketAddress(path=path), server=True)) as backend:
        _, writer = await asyncio.open_unix_connection(path, limit=1)
        writer.write(b"x")
        await received(backend, 1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while True:
                await asyncio.wait_for(backend.send(b"y" * 65536), 0.2)
                sent += 65536
        assert sent < 4 << 20
        receiving = asyncio.create_task(backend.receive())
        writer.transport.abort()
        await asyncio.wait_for(backend.send(b"z"), DEADLINE)
        receiving.cancel()


async def test_connect_and_reconnect(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with pytest.raises(HostError, match=f"Failed to connect to '{path}': No such file or directory"):
        await SocketBackend(SocketAddress(path=path), server=False).open()
    backend = SocketBackend(SocketAddress(path=path), server=False, reconnect=0.02)
    async with opened(backend):
        for greeting in (b"first", b"again"):

            async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes = greeting) -> None:
                writer.write(text)
                writer.close()

            server = await asyncio.start_unix_server(greet, path)
            assert await received(backend, 5) == greeting
            server.close()
            await server.wait_closed()


async def test_addresses_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"Failed to listen on 'unix:.*/no/s,server=on': No such file or directory"):
        await SocketAddress(path=str(tmp_path / "no" / "s")).listen()
    (tmp_path / "file").write_text("keep me")
    with pytest.raises(HostError, match="Address already in use"):
        await SocketAddress(path=str(tmp_path / "file")).listen()
    with pytest.raises(HostError, match="Failed to listen on 'fd:999,server=on': Bad file descriptor"):
        await SocketAddress(fd=999).listen()
    taken = await SocketAddress(port=0).listen()
    port = taken.getsockname()[1]
    assert taken.getsockname()[0] == "127.0.0.1"
    refusal = f"Failed to listen on 'tcp:127.0.0.1:{port},server=on': Address already in use"
    with pytest.raises(HostError, match=refusal):
        await SocketAddress(port=port).listen()
    taken.close()
    with pytest.raises(HostError, match="Failed to connect to "):
        await SocketAddress(port=port).connect()
    with pytest.raises(HostError, match="no-such-service"):
        await SocketAddress(port="no-such-service").listen()


async def test_an_inherited_listener(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    async with opened(SocketBackend(SocketAddress(fd=listener.detach()), server=True)) as backend:
        _, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(b"hi")
        assert await received(backend, 2) == b"hi"
        writer.close()


# -- peers that nobody here wrote


async def test_netcat_and_socat(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with opened(SocketBackend(SocketAddress(path=path), server=True)) as backend:
        for command in ([need("nc"), "-N", "-U", path], [need("socat"), "-t5", "-", f"UNIX-CONNECT:{path}"]):
            peer = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert peer.stdin is not None and peer.stdout is not None
            peer.stdin.write(b"typed")
            assert await received(backend, 5) == b"typed"
            await backend.send(b"shown")
            assert await asyncio.wait_for(peer.stdout.readexactly(5), DEADLINE) == b"shown"
            peer.stdin.close()
            receiving = asyncio.create_task(backend.receive())
            assert await asyncio.wait_for(peer.wait(), DEADLINE) == 0
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)


async def test_telnet_sends_every_key_at_once() -> None:
    need("telnet")
    backend = SocketBackend(SocketAddress(port=0), server=True, telnet=True)
    async with opened(backend):
        terminal = Tmux(f"telnet 127.0.0.1 {backend.port}")
        try:
            receiving = asyncio.create_task(received(backend, 2))
            await terminal.shows(r"Escape character")
            await eventually(lambda: not backend.description.startswith("disconnected"), "connected")
            await backend.send(b"login: \xff")
            await terminal.shows("login:")
            terminal.type("a", "b")
            assert await receiving == b"ab"
            assert "ab" not in terminal.screen()
        finally:
            terminal.close()


async def test_telnet_opening_is_sent_first() -> None:
    async with opened(SocketBackend(SocketAddress(port=0), server=True, telnet=True)) as backend:
        receiving = asyncio.create_task(backend.receive())
        reader, writer = await asyncio.open_connection("127.0.0.1", backend.port)
        opening = await asyncio.wait_for(reader.readexactly(len(SERVER_OPENING)), DEADLINE)
        assert opening == SERVER_OPENING
        writer.write(b"x")
        assert await asyncio.wait_for(receiving, DEADLINE) == b"x"
        writer.close()


async def test_screen_on_a_pseudo_terminal_comes_and_goes(tmp_path: Path) -> None:
    need("screen")
    async with opened(PtyBackend(tmp_path / "link")) as pty:
        assert pty.description == f"pty:{os.readlink(tmp_path / 'link')}"
        await asyncio.wait_for(pty.send(b"nobody is there" * 10_000), DEADLINE)
        for text in ("first", "again"):
            terminal = Tmux(f"env SCREENDIR={tmp_path}/screens TERM=xterm screen {pty.device}")
            try:
                await eventually(lambda: not pty._deserted(), "screen has opened the terminal")
                await pty.send(f"hello {text}".encode())
                await terminal.shows(f"hello {text}")
                terminal.type("k", "e", "y")
                assert await received(pty, 3) == b"key"
            finally:
                terminal.type("C-a", "k", "y")
                await eventually(pty._deserted, "screen has left")
                terminal.close()
    assert not (tmp_path / "link").exists()
