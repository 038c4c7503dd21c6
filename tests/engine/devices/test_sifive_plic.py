"""The PLIC against its specification: a slow model that keeps each source as an object, and single rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.wires import Wire
from timevm.engine.devices.sifive_plic import CLAIM, CONTEXT, CONTEXT_STRIDE, ENABLE, ENABLE_STRIDE, PENDING, SifivePlic
from timevm.errors import InternalError

COUNT = 41


class PlicRig:
    def __init__(self, count: int = COUNT) -> None:
        self.machine, self.supervisor = Wire(), Wire()
        self.wires = [self.machine, self.supervisor]
        self.device = SifivePlic("plic", count, self.wires)
        self.windows = [self.device]

    def outside(self, number: int) -> None:
        self.device.set_line(1 + number % (COUNT - 1), bool(number >> 8 & 1))

    def calls(self) -> list[Any]:
        return [*self.machine.calls, *self.supervisor.calls]

    def surroundings(self) -> None: ...

    def restore_surroundings(self, state: Any) -> None: ...

    def priority(self, source: int, priority: int) -> None:
        self.device.write(4 * source, 4, priority)

    def enable(self, context: int, *sources: int) -> None:
        for word in range(2):
            bits = sum(1 << source % 32 for source in sources if source // 32 == word)
            self.device.write(ENABLE + ENABLE_STRIDE * context + 4 * word, 4, bits)

    def threshold(self, context: int, priority: int) -> None:
        self.device.write(CONTEXT + CONTEXT_STRIDE * context, 4, priority)

    def claim(self, context: int) -> int:
        return self.device.read(CONTEXT + CONTEXT_STRIDE * context + CLAIM, 4)

    def complete(self, context: int, source: int) -> None:
        self.device.write(CONTEXT + CONTEXT_STRIDE * context + CLAIM, 4, source)

    def pending(self) -> set[int]:
        words = [self.device.read(PENDING + 4 * word, 4) for word in range(2)]
        return {source for source in range(64) if words[source // 32] >> source % 32 & 1}


OFFSETS = [
    *(4 * source for source in (0, 1, 2, 31, 32, 40, 41)),
    *(PENDING, PENDING + 4, ENABLE, ENABLE + 4, ENABLE + 8, ENABLE + 0x80, ENABLE + 0x84, ENABLE + 0x100),
    *(CONTEXT + CONTEXT_STRIDE * context + register for context in range(3) for register in (0, 4, 4, 8)),
]
STEPS = steps(OFFSETS, st.one_of(st.integers(0, 42), st.integers(0, 0xFFFF_FFFF)))


@given(STEPS, STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(PlicRig, before, after)


def test_every_address_of_the_window_can_be_touched() -> None:
    rig = PlicRig()
    for offset in range(0, SifivePlic.window, 0x1000 - 4):
        for size in (1, 2, 4):
            at = offset // size * size
            rig.device.write(at, size, (1 << 8 * size) - 1)
            assert 0 <= rig.device.read(at, size) < 1 << 8 * size


@dataclass
class Slow:
    """One source of the model."""

    priority: int = 0
    line: bool = False
    served: bool = False
    enabled: set[int] = field(default_factory=set)

    @property
    def pending(self) -> bool:
        return self.line and not self.served


ACTIONS = st.one_of(
    st.tuples(st.just("line"), st.integers(1, COUNT - 1), st.booleans()),
    st.tuples(st.just("priority"), st.integers(1, COUNT - 1), st.integers(0, 7)),
    st.tuples(st.just("enable"), st.integers(0, 1), st.sets(st.integers(1, COUNT - 1))),
    st.tuples(st.just("threshold"), st.integers(0, 1), st.integers(0, 7)),
    st.tuples(st.just("claim"), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("complete"), st.integers(0, 1), st.integers(0, COUNT)),
)


@settings(max_examples=200)
@given(st.lists(ACTIONS, max_size=60))
def test_like_a_slow_model(actions: list[tuple[str, int, Any]]) -> None:
    rig = PlicRig()
    sources = [Slow() for _ in range(COUNT)]
    thresholds = [0, 0]

    def best(context: int) -> int:
        ready = [n for n, s in enumerate(sources) if n and s.pending and context in s.enabled and s.priority]
        return min(ready, key=lambda n: (-sources[n].priority, n), default=0)

    for action, number, value in actions:
        match action:
            case "line":
                rig.device.line(number).set(value)
                sources[number].line = value
            case "priority":
                rig.priority(number, value)
                sources[number].priority = value
            case "enable":
                rig.enable(number, *value)
                for n, source in enumerate(sources):
                    (source.enabled.add if n in value else source.enabled.discard)(number)
            case "threshold":
                rig.threshold(number, value)
                thresholds[number] = value
            case "claim":
                expected = best(number)
                assert rig.claim(number) == expected
                sources[expected].served = bool(expected)
            case "complete":
                rig.complete(number, value)
                if value < COUNT and number in sources[value].enabled:
                    sources[value].served = False
        assert rig.pending() == {n for n, source in enumerate(sources) if source.pending}
        for context, wire in enumerate(rig.wires):
            assert wire.level == (sources[best(context)].priority > thresholds[context])


def test_a_wire_that_stays_up_interrupts_again_after_completion() -> None:
    rig = PlicRig()
    rig.priority(10, 1)
    rig.enable(1, 10)
    wire = rig.device.line(10)
    wire.set(True)
    assert rig.supervisor.level and not rig.machine.level
    assert rig.claim(1) == 10 and not rig.supervisor.level and rig.claim(1) == 0
    rig.complete(1, 10)
    assert rig.supervisor.level
    wire.set(False)
    assert not rig.supervisor.level and rig.claim(1) == 0


def test_a_claim_does_not_mind_the_threshold() -> None:
    rig = PlicRig()
    rig.priority(3, 2)
    rig.enable(0, 3)
    rig.threshold(0, 2)
    rig.device.set_line(3, True)
    assert not rig.machine.level and rig.claim(0) == 3


def test_what_no_plic_has() -> None:
    rig = PlicRig()
    for source in (0, COUNT):
        with pytest.raises(InternalError, match="correct the board"):
            rig.device.line(source)
    for count in (0, 1025):
        with pytest.raises(InternalError, match="correct the board"):
            PlicRig(count)
    rig.priority(0, 7)
    rig.enable(0, 0)
    assert rig.device.read(0, 4) == 0 and rig.device.read(ENABLE, 4) == 0
    rig.priority(40, 0xFFFF_FFFF)
    assert rig.device.read(160, 4) == 7
