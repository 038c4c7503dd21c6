"""The Goldfish clock."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.wires import ManualTime, Wire
from timevm.engine.devices import goldfish_rtc as rtc
from timevm.engine.devices.goldfish_rtc import SECOND_NS, GoldfishRtc

BASE = 1_700_000_000


class ClockRig:
    def __init__(self, base: int = BASE) -> None:
        self.log: list[Any] = []
        self.wire = Wire(self.log)
        self.time = ManualTime(self.log)
        self.device = GoldfishRtc("rtc", self.wire, self.time, base)
        self.windows = [self.device]
        self.timer = self.time.timers["rtc.alarm"]

    def outside(self, number: int) -> None:
        self.time.advance(number * 1_000)

    def calls(self) -> list[Any]:
        return self.log

    def surroundings(self) -> Any:
        return self.time.now, self.timer.deadline

    def restore_surroundings(self, state: Any) -> None:
        self.time.now, self.timer.deadline = state

    def now(self) -> int:
        low = self.device.read(rtc.TIME_LOW, 4)
        return low | self.device.read(rtc.TIME_HIGH, 4) << 32

    def set_alarm(self, ns: int) -> None:
        self.device.write(rtc.ALARM_HIGH, 4, ns >> 32)
        self.device.write(rtc.ALARM_LOW, 4, ns & 0xFFFF_FFFF)


HIGH = BASE * SECOND_NS >> 32
VALUES = st.one_of(st.integers(0, 1), st.integers(HIGH - 1, HIGH + 1), st.integers(0, 0xFFFF_FFFF))
STEPS = steps([*range(0, 0x24, 4)], VALUES)


@given(STEPS, STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(ClockRig, before, after)


def test_nanoseconds_in_two_halves() -> None:
    rig = ClockRig()
    assert rig.now() == BASE * SECOND_NS
    rig.time.advance(12345)
    assert rig.now() == BASE * SECOND_NS + 12345
    high = rig.device.read(rtc.TIME_HIGH, 4)
    rig.time.advance(5 * SECOND_NS)
    assert rig.device.read(rtc.TIME_HIGH, 4) == high, "kept from the read of the low half"


def test_the_time_can_be_set() -> None:
    rig = ClockRig()
    rig.device.write(rtc.TIME_HIGH, 4, 3)
    rig.device.write(rtc.TIME_LOW, 4, 7)
    assert rig.now() == 3 << 32 | 7
    rig.time.advance(5)
    assert rig.now() == 3 << 32 | 12


@given(st.integers(0, 1 << 40))
def test_alarm(ahead: int) -> None:
    rig = ClockRig()
    rig.device.write(rtc.INTERRUPT_ENABLE, 4, 1)
    rig.set_alarm(BASE * SECOND_NS + ahead)
    if ahead:
        assert rig.device.read(rtc.ALARM_STATUS, 4) == 1 and rig.timer.deadline == ahead
        rig.time.advance(ahead - 1)
        assert not rig.wire.level
        rig.time.advance(1)
    assert rig.wire.level and rig.device.read(rtc.ALARM_STATUS, 4) == 0
    rig.device.write(rtc.CLEAR_INTERRUPT, 4, 1)
    assert not rig.wire.level


def test_an_alarm_is_kept_until_it_may_interrupt_and_can_be_taken_back() -> None:
    rig = ClockRig()
    rig.set_alarm(BASE * SECOND_NS + 10)
    rig.time.advance(10)
    assert not rig.wire.level
    rig.device.write(rtc.INTERRUPT_ENABLE, 4, 1)
    assert rig.wire.level
    rig.device.write(rtc.CLEAR_INTERRUPT, 4, 0)
    rig.set_alarm(BASE * SECOND_NS + 20)
    rig.device.write(rtc.CLEAR_ALARM, 4, 1)
    rig.time.advance(100)
    assert not rig.wire.level


def test_a_clock_that_is_set_takes_its_alarm_along() -> None:
    rig = ClockRig()
    rig.device.write(rtc.INTERRUPT_ENABLE, 4, 1)
    rig.set_alarm(BASE * SECOND_NS + 5 * SECOND_NS)
    rig.device.write(rtc.TIME_HIGH, 4, (BASE + 100) * SECOND_NS >> 32)
    assert rig.wire.level


def test_an_alarm_from_before_a_reset_does_not_ring() -> None:
    rig = ClockRig()
    rig.set_alarm(BASE * SECOND_NS + 5)
    rig.device.reset()
    rig.device.write(rtc.INTERRUPT_ENABLE, 4, 1)
    rig.time.advance(10)
    assert not rig.wire.level
