"""Every motion of the timeline on a toy, against a single forward pass as the model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.engine.timeline.toy_track import (
    CELLS,
    PLACES,
    VECTOR,
    Program,
    State,
    ToyTrack,
    device_stop,
    stops_of,
    watch,
)
from timevm.engine.cpu.base import WatchKind
from timevm.engine.machine.outcome import DebugStop, RunEnd, RunResult, Stops
from timevm.engine.snapshot.position import Position
from timevm.engine.timeline import timeline as module
from timevm.engine.timeline.pace import Pace
from timevm.engine.timeline.timeline import Timeline
from timevm.errors import UserError

LENGTH = 400


class Waiter:
    """A journey; cancelled at the ``patience``-th question (never if it is None)."""

    def __init__(self, patience: int | None = None) -> None:
        self.patience = patience
        self.steps: list[tuple[int, int]] = []

    def cancelled(self) -> bool:
        if self.patience is None:
            return False
        self.patience -= 1
        return self.patience < 0

    def progress(self, done: int, total: int) -> None:
        self.steps.append((done, total))


class Model:
    """All states of one forward pass: ``before[n]`` at n, ``after[n]`` with what is stamped n done."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.before: list[State] = []
        self.after: list[State] = []
        state = State()
        for _ in range(program.end + 1):
            self.before.append(state)
            self.after.append(program.attend(state))
            state = program.execute(self.after[-1])

    def stops(self, stops: Stops) -> Iterator[tuple[Position, list[DebugStop]]]:
        """Where one stands before them, and those of this moment: a device comes before the instruction."""
        for icount in range(self.program.end + 1):
            if (written := device_stop(self.program, self.before[icount], stops)) is not None:
                yield Position(icount), [written]
            if icount < self.program.end and (found := stops_of(self.program, self.after[icount], stops)):
                yield Position(icount, settled=True), found

    def last_before(self, place: Position, stops: Stops) -> tuple[Position, DebugStop] | None:
        found = [(at, here[-1]) for at, here in self.stops(stops) if at < place]
        return found[-1] if found else None


class Ticks:
    """A host's clock that goes on by itself."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        self.time += 0.004
        return self.time


class ShortPace(Pace):
    """Slices of a few instructions."""

    def __init__(self, length: int) -> None:
        super().__init__(Ticks())
        self._length = length

    @property
    def slice(self) -> int:
        return self._length


programs = st.builds(
    Program, st.integers(0, 1 << 32), st.just(LENGTH), st.frozensets(st.integers(0, LENGTH - 1), max_size=30)
)
breakpoints = st.frozensets(st.one_of(st.integers(0, PLACES - 1), st.integers(VECTOR, VECTOR + 2)), max_size=3)
watchpoints = st.frozensets(
    st.builds(watch, st.integers(0, CELLS - 1), st.integers(1, 3), st.sampled_from(list(WatchKind))), max_size=2
)
some_stops = st.builds(Stops, breakpoints, watchpoints)


@pytest.fixture(autouse=True)
def nothing_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHORT", 3)
    monkeypatch.setattr(module, "BRIEF", 3)
    monkeypatch.setattr(module, "NEAR", 60)
    monkeypatch.setattr(module, "FAR", 20)
    monkeypatch.setattr("timevm.engine.timeline.ladder.RUNGS", (1000, 300, 100, 30, 10, 3))


class Travels(RuleBasedStateMachine):
    """Any motions in any order; where the toy stands is always what one forward pass says."""

    @initialize(program=programs, length=st.integers(1, 60), stops=some_stops)
    def begin(self, program: Program, length: int, stops: Stops) -> None:
        self.model = Model(program)
        self.track = ToyTrack(program)
        self.timeline = Timeline(self.track, ShortPace(length))
        self.stops = stops
        self.track.use_stops(stops)

    @rule(icount=st.integers(0, LENGTH))
    def seek(self, icount: int) -> None:
        assert self.timeline.seek(icount, Waiter()) == RunResult(RunEnd.LIMIT, icount)
        assert self.track.place == Position(icount)

    @rule(count=st.integers(1, 50))
    def reverse_step(self, count: int) -> None:
        target = max(0, self.track.state.icount - count)
        assert self.timeline.reverse_step(count, Waiter()) == RunResult(RunEnd.LIMIT, target)
        assert self.track.place == Position(target)

    @rule()
    def reverse_continue(self) -> None:
        expected = self.model.last_before(self.track.place, self.stops)
        result = self.timeline.reverse_continue(self.stops, Waiter())
        if expected is None:
            assert result == RunResult(RunEnd.LIMIT, 0) and self.track.place == Position(0)
        else:
            assert result == RunResult(RunEnd.DEBUG, expected[0].icount, stop=expected[1])
            assert self.track.place == expected[0]

    @rule(stops=some_stops)
    def find_last(self, stops: Stops) -> None:
        here = self.track.state
        expected = self.model.last_before(here.place, stops)
        result = self.timeline.find_last(stops, Waiter())
        assert (Position(result.icount), result.stop) == (
            (Position(expected[0].icount), expected[1]) if expected else (Position(0), None)
        )
        assert self.track.state == here

    @rule(count=st.integers(1, 40))
    def review(self, count: int) -> None:
        """Each instruction is looked at where it is about to be executed, interrupts taken."""
        here = self.track.state
        seen: list[tuple[int, int]] = []
        result = self.timeline.review(count, lambda pc: seen.append((self.track.state.icount, pc)), Waiter())
        first = max(0, here.icount - count)
        assert seen == [(icount, self.model.after[icount].pc) for icount in range(first, here.icount)]
        assert result == RunResult(RunEnd.LIMIT, here.icount) and self.track.state == here

    @rule(count=st.integers(1, 100))
    def run(self, count: int) -> None:
        """Forward: to the next stop, the limit, or the end; the stop where it stands is passed by."""
        self.track.pass_breakpoint()
        here = self.track.state
        limit = min(here.icount + count, LENGTH)
        result = self.timeline.run(here.icount + count)
        first = next(
            (
                (at.icount, found[0])
                for at, found in self.model.stops(self.stops)
                if here.place <= at
                and at.icount < limit
                and (at.icount > here.icount or not at.settled or self.model.after[at.icount].pc != here.pc)
            ),
            None,
        )
        if first is not None:
            assert result == RunResult(RunEnd.DEBUG, first[0], stop=first[1])
        elif here.icount + count > LENGTH:
            assert (result.end, result.icount) == (RunEnd.RECORDING_ENDED, LENGTH)
        else:
            assert result == RunResult(RunEnd.LIMIT, limit)

    @rule(stops=some_stops)
    def other_stops(self, stops: Stops) -> None:
        self.stops = stops
        self.track.use_stops(stops)

    @rule(modulus=st.integers(1, 7))
    def thinning(self, modulus: int) -> None:
        self.track.forget(lambda position: position.icount % modulus == 0)

    @rule(patience=st.integers(0, 2))
    def review_cancelled(self, patience: int) -> None:
        here = self.track.state
        result = self.timeline.review(200, lambda pc: None, Waiter(patience))
        assert result.icount == here.icount and self.track.state == here

    @rule(icount=st.integers(0, LENGTH), patience=st.integers(0, 3), back=st.booleans())
    def cancelled(self, icount: int, patience: int, back: bool) -> None:
        here = self.track.state
        waiter = Waiter(patience)
        result = self.timeline.reverse_continue(self.stops, waiter) if back else self.timeline.seek(icount, waiter)
        if result.end is RunEnd.KICKED:
            assert self.track.state == here and result.icount == here.icount

    @invariant()
    def it_is_as_in_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        state = self.track.state
        model = self.model.after if state.attended else self.model.before
        assert state == model[state.icount]
        assert self.track.stops == self.stops and not self.track.pins


TestTravels = Travels.TestCase
TestTravels.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


@given(program=programs, stops=some_stops, kicks=st.lists(st.booleans(), max_size=50), length=st.integers(1, 60))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_stop_is_met_backwards_once(program: Program, stops: Stops, kicks: list[bool], length: int) -> None:
    """All the way back, and then all the way forward, whoever kicks the machine meanwhile."""
    track = ToyTrack(program, lambda: bool(kicks) and kicks.pop())
    timeline = Timeline(track, ShortPace(length))
    track.use_stops(stops)
    timeline.seek(LENGTH, Waiter())
    met = []
    while (result := timeline.reverse_continue(stops, Waiter())).end is RunEnd.DEBUG:
        met.append((result.icount, result.stop))
    model = Model(program)
    everything = [*model.stops(stops)]
    assert met[::-1] == [(at.icount, found[-1]) for at, found in everything if at <= Position(LENGTH - 1, True)]
    met.clear()
    while (result := timeline.run(LENGTH)).end in (RunEnd.DEBUG, RunEnd.KICKED):
        if result.end is RunEnd.DEBUG:
            met.append((result.icount, result.stop))
    assert met == [(at.icount, found[0]) for at, found in everything if at <= Position(LENGTH - 1, True)]


def many_steps_back(count: int) -> int:
    """Instructions executed for ``count`` steps back from the end, after the first."""
    program = Program(1, count * 4, frozenset(range(5, count * 4, 7)))
    track = ToyTrack(program)
    timeline = Timeline(track, ShortPace(1 << 40))
    timeline.seek(program.end, Waiter())
    timeline.reverse_step(1, Waiter())
    before = track.executed
    for _ in range(count):
        timeline.reverse_step(1, Waiter())
    assert track.place == Position(program.end - 1 - count)
    return track.executed - before


@pytest.mark.parametrize("limit", [LENGTH // 2, 1 << 62])
def test_a_way_to_a_known_end_leaves_a_ladder_before_it(limit: int) -> None:
    track = ToyTrack(Program(1, LENGTH, frozenset()))
    timeline = Timeline(track, ShortPace(1 << 30))
    end = timeline.run(limit).icount
    executed = track.executed
    timeline.reverse_step(1, Waiter())
    assert track.place == Position(end - 1)
    assert track.executed - executed <= 3


def test_a_step_back_costs_the_same_however_long_the_recording() -> None:
    assert many_steps_back(50) / 50 < 15 and many_steps_back(1000) / 1000 < 15


def test_stops_that_were_found_are_looked_up() -> None:
    program = Program(3, 4000, frozenset())
    track = ToyTrack(program)
    timeline = Timeline(track, ShortPace(1 << 40))
    timeline.seek(4000, Waiter())
    track.forget(lambda position: False)
    stops = Stops(frozenset({5}))
    timeline.reverse_continue(stops, Waiter())
    before = track.executed
    met = [timeline.reverse_continue(stops, Waiter()).icount for _ in range(4)]
    assert met == sorted(met, reverse=True)
    assert track.executed - before < 1000


def test_a_search_ends_at_the_start_and_is_remembered() -> None:
    track = ToyTrack(Program(3, 4000, frozenset()))
    timeline = Timeline(track, ShortPace(100))
    nowhere = Stops(frozenset({1 << 40}))
    timeline.seek(4000, Waiter())
    assert timeline.find_last(nowhere, Waiter()) == RunResult(RunEnd.LIMIT, 0)
    before = track.executed
    assert timeline.find_last(nowhere, Waiter()) == RunResult(RunEnd.LIMIT, 0)
    assert track.executed == before and track.place == Position(4000)


def test_without_stops_a_reverse_run_goes_to_the_start_at_once() -> None:
    track = ToyTrack(Program(3, 4000, frozenset()))
    timeline = Timeline(track, ShortPace(100))
    timeline.seek(4000, Waiter())
    before = track.executed
    assert timeline.reverse_continue(Stops(), Waiter()) == RunResult(RunEnd.LIMIT, 0)
    assert track.executed == before


@pytest.mark.parametrize("icount", [-1, LENGTH + 1])
def test_outside_of_the_recording_is_refused(icount: int) -> None:
    track = ToyTrack(Program(3, LENGTH, frozenset()))
    timeline = Timeline(track, ShortPace(100))
    timeline.run(7)
    with pytest.raises(UserError, match="cannot seek to the specified instruction count"):
        timeline.seek(icount, Waiter())
    assert track.place == Position(7)


def test_a_recording_that_is_shorter_than_it_said() -> None:
    track = ToyTrack(Program(3, LENGTH, frozenset()))
    track.end = LENGTH + 100
    timeline = Timeline(track, ShortPace(100))
    result = timeline.seek(LENGTH + 50, Waiter())
    assert (result.end, result.icount, result.detail) == (RunEnd.RECORDING_ENDED, LENGTH, "it ends here")
    assert timeline.reverse_step(1, Waiter()) == RunResult(RunEnd.LIMIT, LENGTH - 1)


def test_from_the_end_of_the_recording_one_can_go_back() -> None:
    track = ToyTrack(Program(3, LENGTH, frozenset()))
    timeline = Timeline(track, ShortPace(100))
    for _ in range(2):
        assert timeline.run(LENGTH + 1).end is RunEnd.RECORDING_ENDED
        assert timeline.reverse_step(1, Waiter()) == RunResult(RunEnd.LIMIT, LENGTH - 1)


def test_no_run_goes_from_what_was_seen_into_what_was_not() -> None:
    """Output is shown once, and is known by the run in which it came."""
    track = ToyTrack(Program(3, LENGTH, frozenset()))
    timeline = Timeline(track, ShortPace(37))
    timeline.seek(200, Waiter())
    timeline.seek(100, Waiter())
    timeline.reverse_continue(Stops(frozenset({1, 2})), Waiter())
    timeline.run(250)
    timeline.seek(10, Waiter())
    timeline.seek(LENGTH, Waiter())
    furthest = 0
    for begin, end in track.runs:
        assert end <= furthest or begin >= furthest
        furthest = max(furthest, end)


def test_progress_is_told() -> None:
    track = ToyTrack(Program(3, LENGTH, frozenset()))
    timeline = Timeline(track, ShortPace(100))
    waiter = Waiter()
    timeline.seek(LENGTH, waiter)
    assert [done for done, _ in waiter.steps] == sorted(done for done, _ in waiter.steps)
    assert {total for _, total in waiter.steps} == {LENGTH}


def test_a_search_tells_how_much_of_history_it_has_looked_at() -> None:
    program = Program(3, 4000, frozenset())
    track = ToyTrack(program)
    timeline = Timeline(track, ShortPace(50))
    timeline.seek(4000, Waiter())
    timeline.seek(3000, Waiter())
    waiter = Waiter()
    timeline.find_last(Stops(frozenset({1 << 40})), waiter)
    done = [done for done, _ in waiter.steps]
    assert len(done) > 10 and done == sorted(done) and done[0] > 0 and done[-1] <= 3000
    assert {total for _, total in waiter.steps} == {3000}
