"""The PL031 against DDI 0224."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.wires import ManualTime, Wire
from timevm.engine.devices.pl031 import CR, DR, ICR, IMSC, LR, MIS, MR, RIS, SECOND_NS, Pl031

BASE = 1_700_000_000


class ClockRig:
    def __init__(self, base: int = BASE) -> None:
        self.wire = Wire()
        self.time = ManualTime()
        self.device = Pl031("rtc", self.wire, self.time, base)
        self.windows = [self.device]
        self.timer = self.time.timers["rtc.alarm"]

    def outside(self, number: int) -> None:
        self.time.advance(number * 100_000_000)

    def calls(self) -> list[Any]:
        return [*self.wire.calls, *[None] * self.timer.calls]

    def surroundings(self) -> Any:
        return self.time.now, self.timer.deadline

    def restore_surroundings(self, state: Any) -> None:
        self.time.now, self.timer.deadline = state

    def read(self, offset: int) -> int:
        return self.device.read(offset, 4)

    def write(self, offset: int, value: int) -> None:
        self.device.write(offset, 4, value)


CLOCK_STEPS = steps(
    [DR, MR, LR, CR, IMSC, RIS, MIS, ICR], st.one_of(st.integers(0, 1), st.integers(BASE - 2, BASE + 100))
)


@given(CLOCK_STEPS, CLOCK_STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(ClockRig, before, after)


def test_counts_seconds_of_virtual_time() -> None:
    rig = ClockRig()
    assert rig.read(DR) == BASE and rig.read(CR) == 1
    rig.time.advance(SECOND_NS - 1)
    assert rig.read(DR) == BASE
    rig.time.advance(1)
    assert rig.read(DR) == BASE + 1
    rig.write(LR, 5)
    assert (rig.read(DR), rig.read(LR)) == (5, 5)


@given(st.integers(0, 5 * SECOND_NS), st.integers(0, 100), st.integers(0, 0xFFFFFFFF))
def test_alarm_rings_when_the_counter_takes_the_match_value(start: int, seconds: int, base: int) -> None:
    rig = ClockRig(base)
    rig.time.advance(start)
    rig.write(IMSC, 1)
    rig.write(MR, (rig.read(DR) + seconds) & 0xFFFFFFFF)
    if seconds:
        assert rig.timer.deadline is not None and not rig.wire.level
        rig.time.advance(rig.timer.deadline - rig.time.now - 1)
        assert rig.read(DR) != rig.read(MR) and not rig.wire.level
        rig.time.advance(1)
    assert rig.read(DR) == rig.read(MR) and rig.wire.level and rig.read(MIS) == 1
    rig.write(ICR, 1)
    assert not rig.wire.level and rig.read(RIS) == 0


def test_masked_alarm_shows_in_the_raw_status_only() -> None:
    rig = ClockRig()
    rig.write(MR, BASE + 1)
    rig.time.advance(SECOND_NS)
    assert (rig.read(RIS), rig.read(MIS), rig.wire.level) == (1, 0, False)
    rig.write(IMSC, 1)
    assert rig.wire.level


def test_loading_the_counter_moves_the_alarm() -> None:
    rig = ClockRig()
    rig.write(IMSC, 1)
    rig.write(MR, BASE + 100)
    rig.write(LR, BASE + 99)
    rig.time.advance(SECOND_NS)
    assert rig.wire.level


def test_a_timer_armed_before_a_reset_does_not_ring() -> None:
    rig = ClockRig()
    rig.write(IMSC, 1)
    rig.write(MR, BASE + 1)
    rig.device.reset()
    rig.time.advance(SECOND_NS)
    assert rig.read(RIS) == 0 and not rig.wire.level
