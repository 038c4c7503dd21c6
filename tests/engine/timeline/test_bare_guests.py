"""Time travel on the real machine, against a single forward pass over the same recording as the model."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.engine.timeline.guests import Replay, record_typing, replay
from tests.engine.timeline.test_timeline import ShortPace, Waiter
from tests.linux.harness import Outcome
from timevm.engine.cpu.base import WatchKind, Watchpoint
from timevm.engine.machine.outcome import DebugStop, RunEnd, RunResult, Stops
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.replay.events import Digest
from timevm.engine.snapshot.position import Position

RECORDING: dict[str, tuple[MachineSpec, Outcome]] = {}


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """What code ran is remembered of short stretches too, and reverse runs skip what they may."""
    monkeypatch.setattr("timevm.engine.timeline.quiet_times.WORTH", 100)


@pytest.fixture(scope="module", autouse=True)
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MachineSpec, Outcome]]:
    RECORDING["irq"] = record_typing(tmp_path_factory.mktemp("irq") / "irq.rr")
    yield RECORDING["irq"]
    RECORDING.clear()


class Pass:
    """A replay of its own that only goes forward and knows what every moment it was asked for looks like."""

    def __init__(self, spec: MachineSpec) -> None:
        self._spec = spec
        self._replay = replay(spec)
        self._known: dict[tuple[Position, int | None], tuple[Digest, int, int]] = {}

    def at(self, icount: int) -> tuple[Digest, int, int]:
        """Digest, virtual time and pc "at N"."""
        key = (Position(icount), None)
        if key not in self._known:
            if self._replay.machine.icount > icount:
                self._replay.machine.close()
                self._replay = replay(self._spec)
            self._replay.machine.run(icount)
            self._known[key] = _look(self._replay)
        return self._known[key]

    def settled(self, icount: int, pc: int) -> tuple[Digest, int, int]:
        """As a breakpoint at ``pc`` finds it."""
        key = (Position(icount, settled=True), pc)
        if key not in self._known:
            self._replay.machine.close()
            self._replay = replay(self._spec)
            machine = self._replay.machine
            machine.run(icount)
            machine.set_stops(Stops(frozenset({pc})))
            result = machine.run(icount + 1)
            assert (result.end, result.icount) == (RunEnd.DEBUG, icount), f"{result}, not a stop at {icount}"
            machine.set_stops(Stops())
            self._known[key] = _look(self._replay)
        return self._known[key]


def _look(replay: Replay) -> tuple[Digest, int, int]:
    return replay.machine.digest(), replay.machine.now_ns(), replay.machine.read_register("pc")


def all_stops(spec: MachineSpec, stops: Stops) -> list[tuple[int, DebugStop]]:
    """Every stop from the start to the end, by running forward; the first of each instruction."""
    forward = replay(spec)
    forward.machine.set_stops(stops)
    found: list[tuple[int, DebugStop]] = []
    while (result := forward.machine.run(1 << 60)).end is RunEnd.DEBUG:
        assert result.stop is not None
        if not found or found[-1][0] != result.icount:
            found.append((result.icount, result.stop))
    return found


def places(spec: MachineSpec, count: int, seed: int = 5) -> list[int]:
    """Program counters that the guest comes by."""
    generator, forward = random.Random(seed), replay(spec)
    end = forward.machine.end
    assert end is not None
    found = []
    for icount in sorted(generator.sample(range(end), count)):
        forward.machine.run(icount)
        found.append(int(forward.machine.read_register("pc")))
    return found


class Travels(RuleBasedStateMachine):
    @initialize(length=st.sampled_from([50, 1_000, 30_000]), budget=st.sampled_from([0, 200_000, 64 << 20]))
    def begin(self, length: int, budget: int) -> None:
        spec, self.outcome = RECORDING["irq"]
        self.end = self.outcome.icount
        self.model = MODEL.setdefault(str(spec.rrfile), Pass(spec))
        self.stops = Stops()
        self.replay = replay(spec, budget=budget, pace=ShortPace(length))
        self.machine, self.timeline = self.replay.machine, self.replay.timeline

    @rule(part=st.floats(0, 1))
    def seek(self, part: float) -> None:
        target = int(part * self.end)
        assert self.timeline.seek(target, Waiter()) == RunResult(RunEnd.LIMIT, target)

    @rule(count=st.sampled_from([1, 1, 1, 2, 17, 1000]))
    def reverse_step(self, count: int) -> None:
        target = max(0, self.machine.icount - count)
        assert self.timeline.reverse_step(count, Waiter()) == RunResult(RunEnd.LIMIT, target)

    @rule(count=st.sampled_from([1, 1, 3, 500, 20_000]))
    def forward(self, count: int) -> None:
        self.machine.pass_breakpoint()
        here = self.machine.icount
        result = self.timeline.run(here + count)
        assert here <= result.icount <= here + count
        if result.end is RunEnd.DEBUG:
            assert result.stop is not None and result.stop.pc == self.machine.read_register("pc")

    @rule(which=st.integers(0, 5), watch=st.integers(0, 2))
    def set_stops(self, which: int, watch: int) -> None:
        self.stops = some_stops(which, watch)
        self.machine.set_stops(self.stops)

    @rule()
    def reverse_continue(self) -> None:
        here = self.machine.icount
        expected = [found for found in forward_stops(self.stops) if found[0] < here]
        result = self.timeline.reverse_continue(self.stops, Waiter())
        if not expected:
            assert result == RunResult(RunEnd.LIMIT, 0)
            return
        assert (result.end, result.icount) == (RunEnd.DEBUG, expected[-1][0])
        assert result.stop is not None and result.stop.pc == expected[-1][1].pc
        assert self.machine.read_register("pc") == result.stop.pc
        if not self.stops.watchpoints:
            state = (self.machine.digest(), self.machine.now_ns(), result.stop.pc)
            assert state == self.model.settled(result.icount, result.stop.pc)

    @rule(patience=st.integers(0, 2))
    def cancelled(self, patience: int) -> None:
        before = self.replay.look
        result = self.timeline.reverse_continue(Stops(frozenset({4})), Waiter(patience))
        if result.end is RunEnd.KICKED:
            assert self.replay.look == before

    @rule()
    def thinning(self) -> None:
        self.replay.checkpoints.forget_all_but_start()

    @invariant()
    def it_is_as_in_one_pass(self) -> None:
        if hasattr(self, "machine") and not self.machine.settled:
            assert _look(self.replay) == self.model.at(self.machine.icount), f"at {self.machine.icount}"

    def teardown(self) -> None:
        if hasattr(self, "machine"):
            self.timeline.seek(self.end, Waiter())
            assert self.machine.digest() == self.outcome.digest
            self.machine.close()


MODEL: dict[str, Pass] = {}
STOPS: dict[Stops, list[tuple[int, DebugStop]]] = {}
PLACES: list[int] = []


def some_stops(which: int, watch: int) -> Stops:
    if not PLACES:
        PLACES.extend(places(RECORDING["irq"][0], 6))
    breakpoints = frozenset(PLACES[which : which + 2]) if which < 5 else frozenset[int]()
    # the guest's stack and data
    watchpoints = frozenset({Watchpoint(WATCHED[watch - 1], 8, WatchKind.ACCESS)}) if watch else frozenset[Watchpoint]()
    return Stops(breakpoints, watchpoints)


#: addresses that the interrupt guest writes: found by its symbols below
WATCHED: list[int] = []


def forward_stops(stops: Stops) -> list[tuple[int, DebugStop]]:
    if stops not in STOPS:
        STOPS[stops] = all_stops(RECORDING["irq"][0], stops)
    return STOPS[stops]


@pytest.fixture(scope="module", autouse=True)
def watched(recording: tuple[MachineSpec, Outcome]) -> None:
    """Two addresses that are written now and then: where the registers that stores use point to."""
    spec, outcome = recording
    forward = replay(spec)
    machine = forward.machine
    found: dict[int, int] = {}
    before = machine.ram.bytes.copy()
    for icount in range(1000, outcome.icount, outcome.icount // 20):
        machine.run(icount)
        for offset in (machine.ram.bytes != before).nonzero()[0][:2000].tolist():
            found[offset & ~7] = found.get(offset & ~7, 0) + 1
        before = machine.ram.bytes.copy()
    often = sorted(found, key=lambda offset: (-found[offset], offset))
    WATCHED[:] = [machine.ram.base + often[0], machine.ram.base + often[-1]]


TestTravels = Travels.TestCase
# no shrinking: a divergence found by steps of milliseconds would be shrunk for minutes; its steps are printed
TestTravels.settings = settings(
    max_examples=15,
    stateful_step_count=15,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_every_instruction_backwards_around_device_accesses(recording: tuple[MachineSpec, Outcome]) -> None:
    """Dense steps back over interrupts, events and device writes: the same states as in a single pass forward."""
    spec, outcome = recording
    model = replay(spec)
    begin, end = outcome.icount // 3, outcome.icount // 3 + 3000
    states: dict[int, Any] = {}
    for icount in range(begin, end):
        model.machine.run(icount)
        if icount % 7 == 0:
            states[icount] = _look(model)
        else:
            states[icount] = (model.machine.now_ns(), model.machine.read_register("pc"))
    travel = replay(spec)
    travel.timeline.seek(end, Waiter())
    for icount in reversed(range(begin, end)):
        assert travel.timeline.reverse_step(1, Waiter()) == RunResult(RunEnd.LIMIT, icount)
        if icount % 7 == 0:
            assert _look(travel) == states[icount], f"at {icount}"
        else:
            assert (travel.machine.now_ns(), travel.machine.read_register("pc")) == states[icount], f"at {icount}"
