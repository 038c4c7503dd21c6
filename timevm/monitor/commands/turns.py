"""Clients who ask ahead take turns, so that a flood of requests slows down whoever sends it and not the guest.

A client that waits for each answer is served at once.  One that has sent more than was answered (a script that pours
in commands, garbage, a line of megabytes) waits for its turn before each piece of work; while the guest runs, all turns
together get a part of the event loop's time.  The event loop and the guest's devices share the interpreter, and most
machines have fewer cores than there may be clients.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

#: of the event loop's time, for one eager client alone, and for a crowd of them together
ALONE, CROWD = 0.25, 0.02
#: seconds of work that may be done without waiting after a time of quiet
BURST = 0.02
#: seconds that are paid for a turn beside its work: taking turns costs something too, and a command may interrupt
#: the guest
_TURN, _COMMAND = 0.0001, 0.0003
#: seconds after which a waiting client looks again whether the guest still runs
_LOOK_AGAIN = 0.05
#: seconds of debt that are not worth a wait, and the most that are remembered: one long command is not held against
#: its client for minutes
_LEAST, _MOST = 1e-6, 0.1


class Turns:
    """One for all monitors of a process; used on the event loop only.  About 3 us for a turn that need not wait."""

    def __init__(
        self,
        guest_runs: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._guest_runs = guest_runs
        self._clock, self._sleep = clock, sleep
        self._credit = BURST
        self._counted = clock()
        self._waiting = 0
        #: fair: who waits longest is next
        self._next = asyncio.Lock()

    @property
    def share(self) -> float:
        """Of the event loop's time that is given to those who wait now, all together."""
        return max(ALONE / max(self._waiting, 1), CROWD)

    async def wait(self) -> None:
        """Until it is this client's turn."""
        self._waiting += 1
        try:
            async with self._next:
                while self._guest_runs() and (due := self._seconds_to_wait()) > 0:
                    await self._sleep(min(due, _LOOK_AGAIN))
        finally:
            self._waiting -= 1
        await asyncio.sleep(0)  # whoever waits for an answer comes between

    @contextmanager
    def work(self) -> Iterator[None]:
        """What is done here without waiting is paid for."""
        begin = time.thread_time()
        try:
            yield
        finally:
            self._pay(time.thread_time() - begin + _TURN)

    async def command(self, command: Coroutine[Any, Any, Result]) -> Result:
        """The command's result; what it takes of the event loop is paid for."""
        metered = Metered(command)
        try:
            return await metered
        finally:
            self._pay(metered.seconds + _COMMAND)

    def _pay(self, seconds: float) -> None:
        """What is done while the guest stands costs it nothing."""
        if self._guest_runs():
            self._credit = max(self._credit - seconds, -_MOST)

    def _seconds_to_wait(self) -> float:
        now = self._clock()
        self._credit = min(self._credit + (now - self._counted) * self.share, BURST)
        self._counted = now
        return -self._credit / self.share if self._credit < -_LEAST else 0.0


class Metered(Generic[Result]):
    """``await Metered(coroutine)`` is the coroutine's result; ``seconds`` is then what it took of this thread's time.

    Only while it runs: what it waits for is not counted.
    """

    def __init__(self, work: Coroutine[Any, Any, Result]) -> None:
        self._work = work
        self.seconds = 0.0

    def __await__(self) -> Generator[Any, Any, Result]:
        step: Callable[[], Any] = lambda: self._work.send(None)  # noqa: E731
        while True:
            begin = time.thread_time()
            try:
                awaited = step()
            except StopIteration as end:
                result: Result = end.value
                return result
            finally:
                self.seconds += time.thread_time() - begin
            step = yield from self._passed_on(awaited)

    def _passed_on(self, awaited: Any) -> Generator[Any, Any, Callable[[], Any]]:
        """Wait for what the work waits for; the next step is to tell it what came of it."""
        try:
            value = yield awaited
        except BaseException as thrown:  # noqa: BLE001 - a cancellation, most of all
            failure = thrown
            return lambda: self._work.throw(failure)
        return lambda: self._work.send(value)
