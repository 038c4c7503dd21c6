"""Bytes from another thread to the event loop, in batches, none lost and none in the way of the sender."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

#: bytes at which the sender is asked to pause, and at which it may go on
HIGH, LOW = 1 << 18, 1 << 15


class Outlet:
    """``put`` on any thread, the rest on the event loop.  About 1 us a ``put``.

    ``put`` never waits, as it is called in the middle of an instruction: it calls ``full`` once when there is too much,
    and whoever runs the machine looks at ``congested`` between two instructions.
    """

    def __init__(self, full: Callable[[], None]) -> None:
        self._full = full
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._there = asyncio.Event()
        self.congested = False

    def put(self, data: bytes) -> None:
        with self._lock:
            first = not self._waiting
            self._waiting += data
            full = len(self._waiting) >= HIGH and not self.congested
            self.congested = self.congested or full
        if first:
            self._wake()
        if full:
            self._full()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._there.set)
        except RuntimeError:
            return  # the event loop is gone: there is no other side any more

    def __bool__(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._waiting)

    async def wait(self) -> None:
        """Until there is something to take."""
        while not self._waiting:
            self._there.clear()
            if not self._waiting:  # the other thread may have come between
                await self._there.wait()

    def take(self, most: int) -> bytes:
        """Up to ``most`` bytes of what there is."""
        with self._lock:
            data = bytes(self._waiting[:most])
            del self._waiting[: len(data)]
            if len(self._waiting) <= LOW:
                self.congested = False
        return data
