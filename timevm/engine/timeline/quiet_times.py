"""Stretches of history that were run already, what code ran in them and what memory was written: where a breakpoint or
a write need not be looked for."""

from __future__ import annotations

import bisect
from collections.abc import Collection
from dataclasses import dataclass

from timevm.engine.cpu.code_trace import CodeThatRan, CodeTrace
from timevm.engine.timeline.written_pages import WrittenPages, may_be_written

#: moments (two an instruction): shorter stretches are not worth remembering
WORTH = 2_000_000
#: stretches kept; beyond, every second one is forgotten (its time has to be run again then)
MANY = 2_000


@dataclass(frozen=True, slots=True)
class Stretch:
    """From ``begin`` up to before ``end`` no other code ran than ``code`` says, and no other pages were written than
    ``pages`` does.  None: that is not known."""

    begin: int
    end: int
    code: CodeThatRan | None
    pages: bytes | None

    def is_without(self, breakpoints: Collection[int], pages: Collection[int]) -> bool:
        if breakpoints and (self.code is None or any(self.code.holds(address) for address in breakpoints)):
            return False
        return not pages or (self.pages is not None and not may_be_written(self.pages, pages))


class QuietTimes:
    """``begin`` where a run begins, ``end`` where it is looked at or left; both are moments."""

    def __init__(self, trace: CodeTrace | None, moment: int, written: WrittenPages | None = None) -> None:
        self.trace = trace
        self._written = written
        self._begin = moment
        self._stretches: list[Stretch] = []

    def begin_trace(self, trace: CodeTrace, moment: int) -> None:
        """From here on it is also known what code runs."""
        self.reached(moment)
        self.trace = trace
        self.moved(moment)

    def reached(self, moment: int) -> None:
        """The machine ran on to here."""
        if moment - self._begin >= WORTH:
            code = None if self.trace is None else self.trace.take()
            pages = None if self._written is None else self._written.take()
            self._add(Stretch(self._begin, moment, code, pages))
            self._begin = moment

    def moved(self, moment: int) -> None:
        """The machine is here now, and did not run to here."""
        if self.trace is not None:
            self.trace.clear()
        if self._written is not None:
            self._written.clear()
        self._begin = moment

    def _add(self, stretch: Stretch) -> None:
        at = bisect.bisect_right(self._stretches, stretch.begin, key=_begin)
        before = self._stretches[at - 1] if at else None
        if before is not None and before.end >= stretch.end and (before.code is not None or stretch.code is None):
            return
        self._stretches.insert(at, stretch)
        if len(self._stretches) > MANY:
            del self._stretches[1::2]

    def quiet_since(self, moment: int, breakpoints: Collection[int], pages: Collection[int] = ()) -> int:
        """No instruction at one of these addresses ran between the answer and ``moment``, and none of these pages was
        written, as far as is known."""
        while True:
            at = bisect.bisect_left(self._stretches, moment, key=_begin)
            if not at or self._stretches[at - 1].end < moment:
                return moment
            stretch = self._stretches[at - 1]
            if not stretch.is_without(breakpoints, pages):
                return moment
            moment = stretch.begin


def _begin(stretch: Stretch) -> int:
    return stretch.begin
