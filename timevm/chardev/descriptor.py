"""Blocking file descriptors for the event loop: a thread each for the way in and the way out.

Terminals, pipes and files that we inherit must not be made non-blocking, as others share them; epoll refuses some of
them.  So a thread polls the descriptor together with a pipe of its own by which it is told to leave.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import threading
from collections.abc import Callable
from queue import SimpleQueue

from timevm.chardev.base import CHUNK

_log = logging.getLogger(__name__)

#: milliseconds between two looks at a pseudo-terminal that nobody has open
_HANGUP_PAUSE = 100


class _Leave:
    """A pipe that becomes readable once, for ever."""

    def __init__(self) -> None:
        self.readable, self._writable = os.pipe()
        self._lock = threading.Lock()
        self._told = False

    def tell(self) -> None:
        with self._lock:
            if not self._told:
                self._told = True
                os.close(self._writable)

    def close(self) -> None:
        os.close(self.readable)


class DescriptorReader:
    """Reads ``descriptor``, one chunk ahead.  ``hangup_ends`` False: a pseudo-terminal whose peers come and go.

    ``owned``: the descriptor is closed when the thread has left it.
    """

    def __init__(self, descriptor: int, name: str, *, hangup_ends: bool = True, owned: bool = False) -> None:
        self._descriptor = descriptor
        self._hangup_ends = hangup_ends
        self._owned = owned
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = threading.Semaphore(1)
        self._leave = _Leave()
        self._leaving = False
        self._ended = False
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    async def read(self) -> bytes:
        """b'' at the end of the input, or after ``close``."""
        if self._ended:
            return b""
        data = await self._chunks.get()
        self._room.release()
        self._ended = not data
        return data

    def close(self) -> None:
        self._leaving = True
        self._leave.tell()
        self._room.release()
        self._chunks.put_nowait(b"")

    def _main(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.register(self._leave.readable, select.POLLIN)
        while True:
            self._room.acquire()
            data = b"" if self._leaving else self._next(poll)
            if not self._leaving:
                self._tell(data)
            if self._leaving or not data:
                break
        self._leave.close()
        if self._owned:
            os.close(self._descriptor)

    def _next(self, poll: select.poll) -> bytes:
        while not self._leaving:
            ready = dict(poll.poll())
            if self._leave.readable in ready:
                break
            try:
                data = os.read(self._descriptor, CHUNK)
            except OSError:
                data = b""
            if data or self._hangup_ends:
                return data
            select.select([self._leave.readable], [], [], _HANGUP_PAUSE / 1000)
        return b""

    def _tell(self, data: bytes) -> None:
        try:
            self._loop.call_soon_threadsafe(self._chunks.put_nowait, data)
        except RuntimeError:
            _log.debug("input after the end: %d bytes", len(data))


class DescriptorWriter:
    """Writes to ``descriptor`` in order; after an error (a closed pipe) the rest is dropped, and that is said once.

    ``hangup_ends`` False: only what was being written is dropped.  ``owned``: as of ``DescriptorReader``.
    """

    def __init__(self, descriptor: int, name: str, *, hangup_ends: bool = True, owned: bool = False) -> None:
        self._descriptor = descriptor
        self._name = name
        self._hangup_ends = hangup_ends
        self._owned = owned
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[tuple[bytes, asyncio.Future[None]] | None] = SimpleQueue()
        self._leave = _Leave()
        self._leaving = self._broken = False
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    async def write(self, data: bytes) -> None:
        """Returns when the descriptor has taken it all, or never will."""
        if self._broken or self._leaving or not data:
            return
        done: asyncio.Future[None] = self._loop.create_future()
        self._work.put((data, done))
        await done

    def close(self) -> None:
        self._leaving = True
        self._leave.tell()
        self._work.put(None)

    def _main(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.register(self._leave.readable, select.POLLIN)
        while (work := self._work.get()) is not None:
            data, done = work
            try:
                self._write_all(poll, data)
            except OSError as error:
                if self._hangup_ends:
                    self._broken = True
                    _log.warning("%s: output is dropped from here on: %s", self._name, os.strerror(error.errno or 0))
            self._settle(done)
        self._leave.close()
        if self._owned:
            os.close(self._descriptor)

    def _write_all(self, poll: select.poll, data: bytes) -> None:
        view = memoryview(data)
        while view and not self._leaving and not self._broken:
            if self._leave.readable in dict(poll.poll()):
                return
            view = view[os.write(self._descriptor, view[:CHUNK]) :]

    def _settle(self, done: asyncio.Future[None]) -> None:
        def settle() -> None:
            if not done.done():
                done.set_result(None)

        self._call(settle)

    def _call(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            _log.debug("%s: the event loop is gone", self._name)
