"""A shared device: focus, visits, and streams over it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from timevm.chardev.base import Backend
from timevm.chardev.mux import Mux
from timevm.chardev.plain import NullBackend
from timevm.chardev.streams import serve_device

DEADLINE = 20


class Keyboard(NullBackend):
    """Types what the test puts in (b'': the end); keeps what is shown.  ``slow``: takes nothing until it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.typed: asyncio.Queue[bytes] = asyncio.Queue()
        self.shown = bytearray()
        self.takes = asyncio.Event()
        self.takes.set()

    async def receive(self) -> bytes:
        return await self.typed.get()

    async def send(self, data: bytes) -> None:
        await self.takes.wait()
        self.shown += data


@contextlib.asynccontextmanager
async def running(mux: Mux) -> AsyncIterator[None]:
    task = asyncio.create_task(mux.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def soon(backend: Backend) -> bytes:
    return await asyncio.wait_for(backend.receive(), DEADLINE)


async def test_the_focus_goes_round_and_typing_follows_it() -> None:
    keyboard = Keyboard()
    left: list[str] = []
    mux = Mux(keyboard, leave=lambda: left.append("x"), farewell="QEMU: Terminated")
    serial, monitor, third = mux.front_end(), mux.front_end(), mux.front_end()
    async with running(mux):
        await keyboard.typed.put(b"a\x01cb\x01cc\x01cd\x01h\x01x")
        assert await soon(serial) == b"a"
        assert await soon(monitor) == b"b"
        assert await soon(third) == b"c"
        assert await soon(serial) == b"d"
        await keyboard.typed.put(b"\x01\x01")
        assert await soon(serial) == b"\x01"
        assert left == ["x"]
        assert keyboard.shown.startswith(b"\r\nCtrl-A h        this help\r\n")
        assert b"\r\nCtrl-A Ctrl-A   Ctrl-A itself\r\n" in keyboard.shown
        assert keyboard.shown.endswith(b"QEMU: Terminated\r\n")
        await keyboard.typed.put(b"")
        assert await soon(monitor) == b"" == await soon(serial)
        assert await third.next_visit() is None


async def test_a_visit_ends_when_the_focus_goes() -> None:
    keyboard = Keyboard()
    mux = Mux(keyboard)
    serial, monitor = mux.front_end(), mux.front_end()
    async with running(mux):
        await keyboard.typed.put(b"\x01cone\x01c_\x01ctwo")
        first = await asyncio.wait_for(monitor.next_visit(), DEADLINE)
        assert first is not None
        assert (await soon(first), await soon(first)) == (b"one", b"")
        second = await asyncio.wait_for(monitor.next_visit(), DEADLINE)
        assert second is not None
        assert await soon(second) == b"two"
        await keyboard.typed.put(b"\x01c")
        assert await soon(second) == b""
        assert await soon(serial) == b"_"
        await keyboard.typed.put(b"")
        assert await asyncio.wait_for(monitor.next_visit(), DEADLINE) is None


async def test_who_draws_prints_what_the_others_say() -> None:
    keyboard = Keyboard()
    mux = Mux(keyboard, clock_ns=lambda: 0)
    serial, monitor = mux.front_end(), mux.front_end()
    said: list[bytes] = []

    async def above(data: bytes) -> None:
        said.append(data)
        await monitor.send(b"<" + data + b">")

    async with running(mux):
        await keyboard.typed.put(b"\x01t\x01c")
        assert await asyncio.wait_for(monitor.next_visit(), DEADLINE) is not None
        monitor.let_draw(above)
        await serial.send(b"\nline\n")
        await monitor.send(b"prompt\n")
        monitor.let_draw(None)
        await serial.send(b"more\n")
    assert said == [b"\n[00:00:00.000] line\n"]
    assert keyboard.shown == b"<\n[00:00:00.000] line\n>prompt\n[00:00:00.000] more\n"


async def test_who_takes_nothing_holds_up_the_device_and_not_for_ever() -> None:
    keyboard = Keyboard()
    mux = Mux(keyboard)
    serial = mux.front_end()
    async with running(mux):
        for _ in range(40):
            await keyboard.typed.put(b"x" * 4096)
        taken = 0
        while taken < 40 * 4096:
            taken += len(await soon(serial))


async def test_streams_over_a_device_wait_for_it() -> None:
    keyboard = Keyboard()
    keyboard.takes.clear()
    waited = asyncio.Event()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"hello\n"
        writer.write(b"y" * (1 << 17))
        waited.set()
        await writer.drain()
        assert await reader.read() == b"rest"
        writer.write(b"bye")

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        group.create_task(serve_device(keyboard, session))
        await keyboard.typed.put(b"hello\nre")
        await waited.wait()
        assert not keyboard.shown
        keyboard.takes.set()
        await keyboard.typed.put(b"st")
        await keyboard.typed.put(b"")
    assert keyboard.shown == b"y" * (1 << 17) + b"bye"


async def test_much_typing_is_not_read_ahead_without_end() -> None:
    keyboard = Keyboard()
    for _ in range(100):
        keyboard.typed.put_nowait(b"z" * 4096)
    read = asyncio.Event()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read.wait()
        assert len(await reader.readexactly(100 * 4096)) == 100 * 4096

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        group.create_task(serve_device(keyboard, session))
        before = -1
        while (waiting := keyboard.typed.qsize()) != before:
            before = waiting
            await asyncio.sleep(0)
        assert waiting > 90
        read.set()
