"""A monitor command that takes its time while gdb waits (decision 0065).

gdb takes silence for a failure, so it is told each second how far the command is.  Ctrl-C does not reach us then: gdb
gives the command up by itself, when the next line comes, and asks for nothing until somebody types something.  What it
was sent meanwhile it would take for the answer to that.  So we look whether it reads, and are silent if it does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from timevm.engine.control.port import VmEvent, VmPort

Answer = TypeVar("Answer")

#: seconds between two lines, and before the first one; gdb's ``remotetimeout`` is two, and one at least
EVERY = 1.0
#: seconds that gdb has at first to read a nudge
_MOMENT = 0.01


class Listener(Protocol):
    """The client's end."""

    def tell(self, text: str) -> None: ...

    def nudge(self) -> None:
        """Send something that means nothing."""

    def reads(self) -> bool:
        """False: it has not read all that it was sent.  True also where that cannot be known."""


class _Progress:
    """Of a command, as far as the machine tells of it (``TIMEVM_PROGRESS``: motion in time does, the rest does not)."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._known: tuple[int, int] | None = None

    async def follow(self, events: AsyncIterator[VmEvent]) -> None:
        async for event in events:
            if event.name == "TIMEVM_PROGRESS":
                self._known = event.data["done"], event.data["total"]

    def line(self, seconds: float) -> str:
        if self._known is None:
            return f"{self._command}: {seconds:.0f} s\n"
        done, total = self._known
        return f"{self._command}: {done * 100 // max(1, total)} %, {done:,} of {total:,} instructions\n"


class Patience:
    """For one command, called ``command``.  ``cancel`` may be called more than once."""

    def __init__(self, command: str, listener: Listener, cancel: Callable[[], None]) -> None:
        self._progress = _Progress(command)
        self._listener = listener
        self._cancel = cancel
        self._given_up = asyncio.Event()
        self._took_long = False
        self._unheard = 0

    def give_up(self) -> None:
        """The client waits for something else now, or is gone."""
        self._given_up.set()
        self._cancel()

    async def wait_for(self, vm: VmPort, work: Coroutine[Any, Any, Answer]) -> Answer:
        """What ``work`` returns or raises."""
        clock = asyncio.get_running_loop().time
        begin = clock()
        with vm.subscribe() as events:
            task = asyncio.ensure_future(work)
            listening = asyncio.ensure_future(self._progress.follow(events))
            try:
                while not (await asyncio.wait({task}, timeout=EVERY))[0]:
                    self._took_long = True
                    self._say(clock() - begin)
                return await task
            finally:
                listening.cancel()
                task.cancel()

    def _say(self, seconds: float) -> None:
        """One who does not read may have much to do; one who never does is not there any more."""
        if self._listener.reads():
            self._unheard = 0
            self._listener.tell(self._progress.line(seconds))
            return
        self._unheard += 1
        if self._unheard > 1:
            self._cancel()

    async def is_awaited(self) -> bool:
        """Whether the client still waits for the answer, once it is there."""
        if not self._took_long:
            return True
        self._listener.nudge()
        pause = _MOMENT
        while True:
            reads = self._listener.reads()
            if await self._is_given_up_within(pause):
                return False
            if reads:
                return True
            pause = min(2 * pause, EVERY)

    async def _is_given_up_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._given_up.wait()
        except TimeoutError:
            return False
        return True
