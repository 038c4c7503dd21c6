"""Seek, reverse-step, reverse-continue: backward is back to a remembered place, and forward from there (rule 3).

Pure algorithms over ``Seekable``; all of them run on the CPU thread.  A journey that is cancelled ends where it began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from timevm.engine.machine.outcome import RunEnd, RunResult, Stops
from timevm.engine.snapshot.position import Position
from timevm.engine.timeline.found_stops import MANY, FoundStops
from timevm.engine.timeline.ladder import rungs
from timevm.engine.timeline.pace import Pace
from timevm.engine.timeline.seekable import Journey, Passed, Run, Seekable, moment, place_of
from timevm.errors import InternalError, UserError

#: instructions: for a way that is so short it is not worth changing the stops in force
SHORT = 2_000_000
#: one that is over before anybody could cancel it: 20 ms
BRIEF = 20_000_000
#: and one on which the ladder before its end is enough
NEAR = 100_000_000
#: and one behind which a ladder costs nothing that could be felt
FAR = 50_000_000
#: instructions that are looked at between two questions whether somebody has lost patience
REVIEWED = 64
#: nobody has said where a way ends
UNKNOWN = 1 << 60


class _Cancelled(Exception):
    """Somebody wants the journey to end."""


class _Ended(Exception):
    """The machine came to an end before it was where it should go: the recording is shorter than it said."""

    def __init__(self, result: RunResult) -> None:
        self.result = result


@dataclass(slots=True)
class _Way:
    """For who waits (None: it is short): at icount ``base`` nothing of ``total`` instructions is done.

    ``passed`` collects the stops on the way, and ``whole_from`` is a moment, as in ``Run``.
    """

    journey: Journey | None
    base: int
    total: int
    whole_from: int
    passed: list[Passed] = field(default_factory=list)

    def take(self, run: Run, begin: int) -> None:
        if run.whole_from > begin:
            self.passed, self.whole_from = [], run.whole_from
        self.passed += run.passed
        if len(self.passed) > MANY:
            self.passed = self.passed[-MANY // 2 :]
            self.whole_from = self.passed[0].moment


class Timeline:
    """``control.TimeTravel`` for anything that is ``Seekable``."""

    def __init__(self, track: Seekable, pace: Pace | None = None) -> None:
        self._track = track
        self.pace = pace or Pace()
        self._found = FoundStops()
        #: a run ends here on its way: what the guest prints before has been seen, what it prints behind has not
        self._furthest = track.place.icount

    # ---- forward

    def run(self, limit: int) -> RunResult:
        """As ``MachinePort.run``; checkpoints are left behind by the host's clock, and before an end that is known."""
        track = self._track
        before_end = self._before_end(limit)
        while True:
            icount = track.place.icount
            stop = min((rung for rung in before_end if rung > icount), default=limit)
            with self._timed():
                result = track.run(self._stretch_end(icount, stop))
            self._furthest = max(self._furthest, result.icount)
            if result.end is not RunEnd.LIMIT:
                return result
            if result.icount in before_end:
                self._remember()
            else:
                self._remember_if_due()
            if result.icount >= limit:
                return result

    def _before_end(self, limit: int) -> list[int]:
        """Where a long way to ``limit``, or to the end of the recording, leaves a ladder for the first step back."""
        begin, end = self._track.place.icount, self._track.end
        arrival = limit if end is None else min(limit, end)
        return rungs(begin, arrival) if FAR <= arrival - begin < UNKNOWN else []

    def _stretch_end(self, icount: int, limit: int) -> int:
        limit = min(limit, icount + self.pace.next_stretch)
        return min(limit, self._furthest) if icount < self._furthest else limit

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begin, icount = self.pace.now(), self._track.place.icount
        yield
        self.pace.ran(self._track.place.icount - icount, self.pace.now() - begin)

    def _remember_if_due(self) -> None:
        place = self._track.place
        if not self.pace.due() or not (self._track.is_calm or self.pace.overdue()):
            return
        if place.icount - self._track.nearest(place).icount >= self.pace.slice // 2:
            self._remember()

    def _remember(self) -> None:
        begin = self.pace.now()
        self._track.remember()
        self.pace.took(self.pace.now() - begin)

    # ---- journeys

    def seek(self, icount: int, journey: Journey) -> RunResult:
        """Raises UserError outside of the recording."""
        end = self._track.end
        if icount < self._track.start.icount or (end is not None and icount > end):
            raise UserError("cannot seek to the specified instruction count")
        return self._go_to(icount, journey)

    def reverse_step(self, count: int, journey: Journey) -> RunResult:
        return self._go_to(max(self._track.start.icount, self._track.place.icount - count), journey)

    def _go_to(self, icount: int, journey: Journey) -> RunResult:
        if self._is_brief(icount):
            return self._travel(lambda: self._arrive(icount, None), home=None)
        return self._travel(lambda: self._arrive(icount, journey), home=self._home())

    def _is_brief(self, icount: int) -> bool:
        track, target = self._track, Position(icount)
        origin = track.nearest(target)
        if origin <= track.place <= target:
            origin = track.place
        return icount - origin.icount <= BRIEF

    def _home(self) -> Position:
        """Remember this place, to come back if the journey is cancelled."""
        self._track.remember()
        self._track.pin(self._track.place)
        return self._track.place

    def reverse_continue(self, stops: Stops, journey: Journey) -> RunResult:
        """Of several stops at one instruction the one that comes last in forward motion is met first."""
        return self._travel(lambda: self._arrive_at_last(stops, journey), home=self._home())

    def find_last(self, stops: Stops, journey: Journey) -> RunResult:
        """What ``reverse_continue`` would answer; the machine stays where it is."""
        home = self._home()

        def look() -> RunResult:
            found = self._search(stops, journey)
            self._track.go_back(home)
            if found is None:
                return RunResult(RunEnd.LIMIT, self._track.start.icount)
            return RunResult(RunEnd.DEBUG, found.icount, stop=found.stop)

        return self._travel(look, home)

    def review(self, count: int, look: Callable[[int], None], journey: Journey) -> RunResult:
        """``look`` at each of the last ``count`` instructions before it is executed; the machine stays where it is.

        ``look`` gets its address.  30 us for an instruction besides what ``look`` takes.
        """
        home = self._home()
        first = max(self._track.start.icount, home.icount - count)

        def work() -> RunResult:
            self._go(first, journey)
            with self._stops_in_force(Stops()):
                for icount in range(first, home.icount):
                    look(self._track.settle())
                    while self._track.place.icount <= icount:  # a kick ends a run before it has begun
                        result = self._track.pass_by(icount + 1).result
                        if result.icount <= icount and result.end is not RunEnd.KICKED:
                            raise _Ended(result)
                    if not icount % REVIEWED:
                        if journey.cancelled():
                            raise _Cancelled
                        journey.progress(icount - first, home.icount - first)
            self._track.go_back(home)
            return RunResult(RunEnd.LIMIT, home.icount)

        return self._travel(work, home)

    def _travel(self, work: Callable[[], RunResult], home: Position | None) -> RunResult:
        """Do ``work``; if it is cancelled, or cannot be done, everything is as it was at ``home``."""
        track = self._track
        try:
            return work()
        except _Cancelled:
            if home is None:
                raise InternalError("a journey was cancelled that did not say so before") from None
            track.go_back(home)
            return RunResult(RunEnd.KICKED, home.icount)
        except _Ended as ended:
            return ended.result
        except UserError:
            if home is not None:
                track.go_back(home)
            raise
        finally:
            if home is not None:
                track.unpin(home)

    def _arrive(self, icount: int, journey: Journey | None) -> RunResult:
        self._go(icount, journey)
        return RunResult(RunEnd.LIMIT, icount)

    def _arrive_at_last(self, stops: Stops, journey: Journey) -> RunResult:
        found = self._search(stops, journey)
        if found is None:
            return self._arrive(self._track.start.icount, journey)
        self._go(found.icount, journey)
        if found.early:
            return RunResult(RunEnd.DEBUG, found.icount, stop=found.stop)
        pc = self._track.settle()
        if pc != found.stop.pc:
            raise InternalError(
                f"a stop at {found.stop.pc:#x} after {found.icount} instructions was not found again: "
                f"the machine is at {pc:#x}. This is a bug in timevm: please report it together with the recording"
            )
        return RunResult(RunEnd.DEBUG, found.icount, stop=found.stop)

    def _search(self, stops: Stops, journey: Journey) -> Passed | None:
        """The last stop before this instruction.  Leaves the machine anywhere."""
        if not stops.breakpoints and not stops.watchpoints:
            return None
        track, known = self._track, self._found.of(stops)
        here = upper = moment(track.place)
        start = moment(track.start)
        with self._stops_in_force(stops):
            while True:
                found, upper = known.last_before(upper)
                if found is not None or upper <= start:
                    return found
                if (quiet := track.quiet_since(upper, stops)) < upper:
                    known.add(quiet, upper, [])
                    continue
                track.go_back(track.nearest(place_of(upper - 1)))
                base = track.place.icount - (here - upper) // 2
                way = _Way(journey, base, (here - start) // 2, moment(track.place))
                self._forward(upper // 2, way)
                if moment(track.place) < upper:
                    way.passed += track.deliver()
                known.add(way.whole_from, upper, way.passed)

    # ---- moving

    def _go(self, icount: int, journey: Journey | None) -> None:
        """Stand at ``icount``; nothing that is stamped with it has happened."""
        track, target = self._track, Position(icount)
        origin = track.nearest(target)
        if not origin <= track.place <= target:
            track.go_back(origin)
        begin = track.place.icount
        way = _Way(journey, begin, icount - begin, moment(track.place))
        with self._stops_in_force(track.stops if icount - begin <= SHORT else Stops()):
            ladder = rungs(begin, icount)
            for rung in ladder:
                self._forward(rung, way, leaves=icount - begin > NEAR)
                self._remember()
            self._forward(icount, way, leaves=not ladder)

    @contextmanager
    def _stops_in_force(self, stops: Stops) -> Iterator[None]:
        before = self._track.stops
        self._track.use_stops(stops)
        try:
            yield
        finally:
            self._track.use_stops(before)

    def _forward(self, target: int, way: _Way, leaves: bool = True) -> None:
        """To ``target``, past all stops; ``leaves`` checkpoints behind by the host's clock."""
        track = self._track
        while (icount := track.place.icount) < target:
            with self._timed():
                before = moment(track.place)
                run = track.pass_by(self._stretch_end(icount, target))
            way.take(run, before)
            result = run.result
            self._furthest = max(self._furthest, result.icount)
            if result.icount >= target:
                return
            if result.end not in (RunEnd.LIMIT, RunEnd.KICKED):
                raise _Ended(result)
            if way.journey is not None:
                if way.journey.cancelled():
                    raise _Cancelled
                way.journey.progress(result.icount - way.base, way.total)
            if leaves and result.end is RunEnd.LIMIT:
                self._remember_if_due()
