"""The host's end of one TCP flow: what the guest says is written, what the other side says is brought."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from timevm.network.actions import Flow

_PIECE = 1 << 16


class Core(Protocol):
    """What the stack wants to hear; the shell carries out what comes of it."""

    def room(self, flow: Flow) -> int: ...

    def bring(self, flow: Flow, data: bytes) -> None: ...

    def ended(self, flow: Flow) -> None: ...

    def lost(self, flow: Flow) -> None: ...

    def written(self, flow: Flow, count: int) -> None: ...


class Stream:
    """``spawn`` begins a task.  Everything happens on the event loop, in the order of the calls."""

    def __init__(
        self,
        flow: Flow,
        core: Core,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        spawn: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self._flow, self._core = flow, core
        self._reader, self._writer = reader, writer
        self._spawn = spawn
        self._waiting: deque[bytes | None] = deque()  # None: no more after it
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._closing = False
        self._tasks = [asyncio.create_task(self._write_all(), name="network flow out")]
        spawn(self._tasks[0])

    def listen(self) -> None:
        """Let come what the other side says."""
        if len(self._tasks) == 1:
            self._tasks.append(asyncio.create_task(self._read_all(), name="network flow in"))
            self._spawn(self._tasks[1])

    def write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._news.set()

    def finish_writing(self) -> None:
        self._waiting.append(None)
        self._news.set()

    def room_changed(self) -> None:
        self._room.set()

    def close(self) -> None:
        """What was given is still written."""
        self._closing = True
        self._news.set()

    def abort(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._writer.transport.abort()

    async def _write_all(self) -> None:
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                while self._waiting:
                    data = self._waiting.popleft()
                    if data is None:
                        with suppress(OSError):  # the other side may have closed already
                            self._writer.write_eof()
                        continue
                    self._writer.write(data)
                    await self._writer.drain()
                    self._core.written(self._flow, len(data))
                if self._closing:
                    break
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()
        except OSError:
            self._core.lost(self._flow)

    async def _read_all(self) -> None:
        try:
            while True:
                room = self._core.room(self._flow)
                if not room:
                    self._room.clear()
                    await self._room.wait()
                    continue
                data = await self._reader.read(min(room, _PIECE))
                if not data:
                    break
                self._core.bring(self._flow, data)
            self._core.ended(self._flow)
        except OSError:
            self._core.lost(self._flow)
