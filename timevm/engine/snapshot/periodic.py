"""``rrinterval``: named snapshots every so many instructions or seconds while recording.  The guest never knows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from timevm.engine.machine.outcome import RunEnd, RunResult
from timevm.engine.machine.spec import SnapshotInterval

#: instructions between two looks at the clock
LOOK = 50_000_000


class Recorded(Protocol):
    """The machine."""

    @property
    def icount(self) -> int: ...

    def run(self, limit: int) -> RunResult: ...


class PeriodicSnapshots:
    """``run`` is the machine's; on the way ``save(tag)`` is called when it is time: ``auto-`` and the icount."""

    def __init__(
        self,
        machine: Recorded,
        interval: SnapshotInterval,
        save: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
        run: Callable[[int], RunResult] | None = None,
    ) -> None:
        """``run``: the machine's, or one around it."""
        self._run = run or machine.run
        self._machine = machine
        self._interval = interval
        self._save = save
        self._clock = clock
        self._last_seconds = clock()
        self._last_icount = machine.icount

    def run(self, limit: int) -> RunResult:
        """Raises what ``save`` does (HostError for a full disk): the machine stands then."""
        while True:
            if self._due():
                self._last_icount, self._last_seconds = self._machine.icount, self._clock()
                self._save(f"auto-{self._machine.icount}")
            result = self._run(min(limit, self._next()))
            if result.end is not RunEnd.LIMIT or result.icount >= limit:
                return result

    def _due(self) -> bool:
        every = self._interval
        if every.instructions is not None:
            return self._machine.icount - self._last_icount >= every.instructions
        return every.seconds is not None and self._clock() - self._last_seconds >= every.seconds

    def _next(self) -> int:
        every = self._interval
        return self._machine.icount + LOOK if every.instructions is None else self._last_icount + every.instructions
