"""One device shared by up to four users (``mux=on``, ``mon:``): what is typed goes to one of them, the focus."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from timevm.chardev.base import Backend
from timevm.chardev.mux_keys import Key, LineStamps, MuxKeys, help_text

#: bytes typed to a user that does not take them before the device is read no further
_UNREAD = 1 << 16


class FrontEnd:
    """One user of a mux, itself a ``Backend``; it is open when the mux is."""

    description = "mux"

    def __init__(self, mux: Mux) -> None:
        self._mux = mux
        #: (number of the visit in which it was typed, bytes)
        self._unread: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._changed = asyncio.Condition()
        self._ended = False
        #: counts up when the focus goes away
        self._visit = 0

    async def open(self) -> None:
        """With the mux."""

    async def close(self) -> None:
        """With the mux."""

    async def receive(self) -> bytes:
        """In whatever visit it was typed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._unread or self._ended)
            return self._take()

    async def send(self, data: bytes) -> None:
        await self._mux.write(data, self)

    def let_draw(self, above: Callable[[bytes], Awaitable[None]] | None) -> None:
        """While this one draws on the terminal (``above`` is there) it prints what the others say."""
        self._mux.drawing = None if above is None else (self, above)

    async def next_visit(self) -> Visit | None:
        """Waits for the focus; None when it will not come any more.  The last visit must have been read to its end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._mux.focus is self or self._unread or self._ended)
            if self._unread:
                return Visit(self, self._unread[0][0])
            return None if self._ended else Visit(self, self._visit)

    async def receive_in(self, visit: int) -> bytes:
        """What was typed in ``visit``; b'' when that is over."""

        def there() -> bool:
            return bool(self._unread) or self._ended or self._visit != visit

        async with self._changed:
            await self._changed.wait_for(there)
            return self._take() if self._unread and self._unread[0][0] == visit else b""

    def is_over(self, visit: int) -> bool:
        left = any(number == visit for number, _ in self._unread)
        return not left and (self._ended or self._visit != visit)

    def _take(self) -> bytes:
        if not self._unread:
            return b""
        _, data = self._unread.popleft()
        self._size -= len(data)
        self._changed.notify_all()
        return data

    # -- the mux's side

    async def put(self, data: bytes) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._size < _UNREAD or self._ended)
            self._unread.append((self._visit, data))
            self._size += len(data)
            self._changed.notify_all()

    async def focus_changed(self, *, left: bool = False, ended: bool = False) -> None:
        async with self._changed:
            self._visit += left
            self._ended = self._ended or ended
            self._changed.notify_all()


class Visit:
    """The time from a focus to the next switch, as a ``Backend`` that ends with it."""

    description = "mux"

    def __init__(self, front_end: FrontEnd, number: int) -> None:
        self._front_end, self._number = front_end, number

    async def open(self) -> None:
        """Is so already."""

    async def close(self) -> None:
        """Ends by itself."""

    async def receive(self) -> bytes:
        return await self._front_end.receive_in(self._number)

    @property
    def over(self) -> bool:
        """Whether the focus has gone on, and everything is read."""
        return self._front_end.is_over(self._number)

    async def send(self, data: bytes) -> None:
        await self._front_end.send(data)


class Mux:
    """``run`` carries what is typed; ``leave`` is called for Ctrl-A x; ``farewell`` is printed then."""

    def __init__(
        self,
        backend: Backend,
        *,
        escape: int = 1,
        leave: Callable[[], None] = lambda: None,
        farewell: str = "timevm: Terminated",
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.backend = backend
        self.focus: FrontEnd | None = None
        self._front_ends: list[FrontEnd] = []
        self._keys = MuxKeys(escape)
        self._stamps = LineStamps()
        self._leave, self._farewell = leave, farewell
        self._clock_ns = clock_ns
        #: who draws on the terminal now, and prints what the others say
        self.drawing: tuple[FrontEnd, Callable[[bytes], Awaitable[None]]] | None = None
        self._writing = asyncio.Lock()

    def front_end(self) -> FrontEnd:
        """One more user; the first has the focus at the start, Ctrl-A c goes round in this order."""
        front_end = FrontEnd(self)
        self._front_ends.append(front_end)
        self.focus = self._front_ends[0]
        return front_end

    async def run(self) -> None:
        """Until the device will give nothing any more."""
        while data := await self.backend.receive():
            for item in self._keys.feed(data):
                if isinstance(item, Key):
                    await self._press(item)
                elif self.focus is not None:
                    await self.focus.put(item)
        for front_end in self._front_ends:
            await front_end.focus_changed(ended=True)

    async def write(self, data: bytes, origin: FrontEnd | None = None) -> None:
        """``origin`` None: the terminal itself speaks."""
        if self.drawing is None or self.drawing[0] is not origin:
            data = self._stamps.apply(data, self._clock_ns())
            if self.drawing is not None:
                await self.drawing[1](data)
                return
        async with self._writing:
            await self.backend.send(data)

    async def _press(self, key: Key) -> None:
        match key:
            case Key.HELP:
                await self.write(help_text(self._keys.escape).encode())
            case Key.EXIT:
                await self.write(f"{self._farewell}\r\n".encode())
                self._leave()
            case Key.SWITCH:
                await self._switch()
            case Key.TIMESTAMPS:
                self._stamps.switch(self._clock_ns())
            case Key.BREAK | Key.COMMIT:
                pass  # the help says so

    async def _switch(self) -> None:
        before = self.focus
        if before is None or len(self._front_ends) == 1:
            return
        position = self._front_ends.index(before)
        after = self._front_ends[(position + 1) % len(self._front_ends)]
        self.focus = after
        await before.focus_changed(left=True)
        await after.focus_changed()
