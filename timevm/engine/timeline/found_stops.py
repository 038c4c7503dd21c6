"""Stops that a search came by, remembered: the next search in the same window only looks them up."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from dataclasses import dataclass

from timevm.engine.machine.outcome import Stops
from timevm.engine.timeline.seekable import Passed

#: stops remembered for one set of break- and watchpoints, and sets that are remembered
MANY, SETS = 20_000, 8


@dataclass(slots=True)
class Window:
    """Everything from the moment ``begin`` up to before ``end`` was looked at; ``passed`` ascends."""

    begin: int
    end: int
    passed: list[Passed]


class Windows:
    """Of one set of stops: disjoint windows in order.  Where a replay stops never changes, so nothing gets stale."""

    def __init__(self) -> None:
        self._windows: list[Window] = []
        self._count = 0

    def add(self, begin: int, end: int, passed: list[Passed]) -> None:
        """What is known already is not added again; windows that touch become one."""
        if begin >= end:
            return
        first = bisect.bisect_left(self._windows, begin, key=_end)
        last = bisect.bisect_right(self._windows, end, key=_begin)
        joined = Window(begin, end, passed)
        for old in self._windows[first:last]:
            before = [stop for stop in old.passed if stop.moment < begin]
            behind = [stop for stop in old.passed if stop.moment >= end]
            joined = Window(min(joined.begin, old.begin), max(joined.end, old.end), before + joined.passed + behind)
        self._windows[first:last] = [joined]
        self._count = sum(len(window.passed) for window in self._windows)
        if self._count > MANY:
            self._forget(keep=joined)

    def _forget(self, keep: Window) -> None:
        """All but the window just found, and of that the earlier half if it is too large by itself."""
        self._windows = [keep]
        extra = len(keep.passed) - MANY // 2
        if extra > 0:
            keep.passed = keep.passed[extra:]
            keep.begin = keep.passed[0].moment
        self._count = len(keep.passed)

    def last_before(self, moment: int) -> tuple[Passed | None, int]:
        """The last stop before ``moment``, if known; otherwise down to where it is known that there is none."""
        at = bisect.bisect_left(self._windows, moment, key=_end)
        if at == len(self._windows) or self._windows[at].begin >= moment:
            return None, moment
        window = self._windows[at]
        found = bisect.bisect_left(window.passed, moment, key=_moment)
        return (window.passed[found - 1], moment) if found else (None, window.begin)


def _begin(window: Window) -> int:
    return window.begin


def _end(window: Window) -> int:
    return window.end


def _moment(passed: Passed) -> int:
    return passed.moment


class FoundStops:
    """By set of stops; the sets used last are kept."""

    def __init__(self) -> None:
        self._known: OrderedDict[Stops, Windows] = OrderedDict()

    def of(self, stops: Stops) -> Windows:
        windows = self._known.setdefault(stops, Windows())
        self._known.move_to_end(stops)
        while len(self._known) > SETS:
            self._known.popitem(last=False)
        return windows
