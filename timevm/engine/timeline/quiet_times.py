"""Stretches of history that were run already, and what code ran in them: where a breakpoint need not be looked for."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass

from timevm.engine.cpu.code_trace import CodeTrace, may_have_run

#: moments (two an instruction): shorter stretches are not worth remembering
WORTH = 2_000_000
#: stretches kept; beyond, every second one is forgotten (its time has to be run again then)
MANY = 2_000


@dataclass(frozen=True, slots=True)
class Stretch:
    """From ``begin`` up to before ``end`` no other code ran than ``taken`` says."""

    begin: int
    end: int
    taken: bytes


class QuietTimes:
    """``begin`` where a run begins, ``end`` where it is looked at or left; both are moments."""

    def __init__(self, trace: CodeTrace, moment: int) -> None:
        self._trace = trace
        self._begin = moment
        self._stretches: list[Stretch] = []

    def reached(self, moment: int) -> None:
        """The machine ran on to here."""
        if moment - self._begin >= WORTH:
            self._add(Stretch(self._begin, moment, self._trace.take()))
            self._begin = moment

    def moved(self, moment: int) -> None:
        """The machine is here now, and did not run to here."""
        self._trace.clear()
        self._begin = moment

    def _add(self, stretch: Stretch) -> None:
        at = bisect.bisect_right(self._stretches, stretch.begin, key=_begin)
        if at and self._stretches[at - 1].end >= stretch.end:
            return
        self._stretches.insert(at, stretch)
        if len(self._stretches) > MANY:
            del self._stretches[1::2]

    def quiet_since(self, moment: int, breakpoints: Iterable[int]) -> int:
        """No instruction at one of these addresses ran between the answer and ``moment``, as far as is known."""
        while True:
            at = bisect.bisect_left(self._stretches, moment, key=_begin)
            if not at or self._stretches[at - 1].end < moment:
                return moment
            stretch = self._stretches[at - 1]
            if any(may_have_run(stretch.taken, address) for address in breakpoints):
                return moment
            moment = stretch.begin


def _begin(stretch: Stretch) -> int:
    return stretch.begin
