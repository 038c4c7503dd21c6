"""The real-time clock against the MC146818A's data sheet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.wires import ManualTime, Wire
from timevm.engine.devices.mc146818 import CENTURY_PS2, SECOND_NS, A, B, C, D, Mc146818
from timevm.engine.devices.mc146818_calendar import (
    CENTURY,
    DAY_OF_MONTH,
    DAY_OF_WEEK,
    HOURS,
    HOURS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    MONTH,
    SECONDS,
    SECONDS_ALARM,
    YEAR,
    Format,
    next_alarm,
    seconds_of,
    time_bytes,
)

BASE = 1_700_000_000  # 2023-11-14 22:13:20, a Tuesday


class ClockRig:
    def __init__(self, base: int = BASE) -> None:
        self.log: list[Any] = []
        self.wire = Wire(self.log)
        self.time = ManualTime(self.log)
        self.device = Mc146818("rtc", self.wire, self.time, base, {0x15: 0x80, 0x16: 0x02})
        self.windows = [self.device]
        self.timer = self.time.timers["rtc.event"]

    def outside(self, number: int) -> None:
        self.time.advance(number * 61_035)

    def calls(self) -> list[Any]:
        return self.log

    def surroundings(self) -> Any:
        return self.time.now, self.timer.deadline

    def restore_surroundings(self, state: Any) -> None:
        self.time.now, self.timer.deadline = state

    def read(self, index: int) -> int:
        self.device.write(0, 1, index)
        return self.device.read(1, 1)

    def write(self, index: int, value: int) -> None:
        self.device.write(0, 1, index)
        self.device.write(1, 1, value)

    def shown(self) -> list[int]:
        return [self.read(index) for index in (CENTURY, YEAR, MONTH, DAY_OF_MONTH, HOURS, MINUTES, SECONDS)]


CLOCK_STEPS = steps(
    [0, 1],
    st.one_of(st.integers(0, 0xFFFF), st.sampled_from([A, B, C, D]).flatmap(
        lambda index: st.integers(0, 255).map(lambda value: value << 8 | index))),
)  # fmt: skip


@settings(deadline=None)
@given(CLOCK_STEPS, CLOCK_STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(ClockRig, before, after)


FORMATS = st.builds(Format, st.booleans(), st.booleans())
TIMES = st.integers(-60_000_000_000, 250_000_000_000)


@settings(deadline=None)
@given(TIMES, FORMATS)
def test_calendar_agrees_with_datetime(seconds: int, form: Format) -> None:
    shown = time_bytes(seconds, form)
    assert seconds_of(shown, form) == seconds
    assert all(0 <= byte <= 255 for byte in shown.values())
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    assert shown[DAY_OF_WEEK] == when.isoweekday() % 7 + 1
    if not form.binary and form.hours24:
        digits = f"{shown[CENTURY]:02x}{shown[YEAR]:02x}-{shown[MONTH]:02x}-{shown[DAY_OF_MONTH]:02x} "
        digits += f"{shown[HOURS]:02x}:{shown[MINUTES]:02x}:{shown[SECONDS]:02x}"
        assert digits == f"{when.year:04}-{when:%m-%d %H:%M:%S}"


@settings(deadline=None)
@given(FORMATS, st.integers(0, 23))
def test_hours(form: Format, hour: int) -> None:
    assert form.decode_hour(form.encode_hour(hour)) == hour
    if not form.hours24:
        twelve = form.encode(12)
        assert form.encode_hour(0) == twelve and form.encode_hour(12) == twelve | 0x80


@settings(deadline=None)
@given(st.binary(min_size=128, max_size=128), FORMATS)
def test_any_bytes_are_some_time(stored: bytes, form: Format) -> None:
    time_bytes(seconds_of(stored, form), form)
    next_alarm(seconds_of(stored, form), stored, form)


@settings(deadline=None)
@given(
    st.integers(BASE, BASE + 200_000),
    st.one_of(st.integers(0, 23), st.just(0xC0)),
    st.one_of(st.integers(0, 59), st.just(0xFF)),
    st.one_of(st.integers(0, 59), st.just(0xC0)),
)
def test_next_alarm_agrees_with_looking_at_every_second(after: int, hour: int, minute: int, second: int) -> None:
    form = Format(binary=True, hours24=True)
    stored = {HOURS_ALARM: hour, MINUTES_ALARM: minute, SECONDS_ALARM: second}
    found = next_alarm(after, stored, form)

    def rings(at: int) -> bool:
        shown = (at // 3600 % 24, at // 60 % 60, at % 60)
        return all(byte >= 0xC0 or byte == value for byte, value in zip((hour, minute, second), shown, strict=True))

    assert found is not None and rings(found)
    step = 1 if second >= 0xC0 else 60
    first = after + 1 if step == 1 else after + 1 + (second - after - 1) % 60
    assert found == next(at for at in range(first, after + 90_000, step) if rings(at))


def test_date_and_memory_at_power_on() -> None:
    rig = ClockRig()
    assert rig.shown() == [0x20, 0x23, 0x11, 0x14, 0x22, 0x13, 0x20]
    assert rig.read(CENTURY_PS2) == 0x20 and rig.read(DAY_OF_WEEK) == 3
    assert (rig.read(A), rig.read(B), rig.read(C), rig.read(D)) == (0x26, 0x02, 0, 0x80)
    assert (rig.read(0x15), rig.read(0x16)) == (0x80, 0x02)
    rig.write(0x40, 0x5A)
    assert rig.read(0x40) == 0x5A and rig.read(0xC0) == 0x5A, "bit 7 of the index is the NMI mask"


def test_counts_virtual_time() -> None:
    rig = ClockRig()
    rig.time.advance(SECOND_NS - 244_001)
    assert not rig.read(A) & 0x80 and rig.read(SECONDS) == 0x20
    rig.time.advance(1)
    assert rig.read(A) & 0x80 and rig.read(SECONDS) == 0x20
    rig.time.advance(244_000)
    assert not rig.read(A) & 0x80 and rig.read(SECONDS) == 0x21


def test_setting_the_time_with_the_clock_stopped() -> None:
    rig = ClockRig()
    rig.time.advance(300_000_000)
    rig.write(B, 0x82)
    rig.time.advance(5 * SECOND_NS)
    assert rig.shown() == [0x20, 0x23, 0x11, 0x14, 0x22, 0x13, 0x20], "stopped"
    for index, value in ((YEAR, 0x99), (CENTURY, 0x19), (MONTH, 0x12), (DAY_OF_MONTH, 0x31), (HOURS, 0x23)):
        rig.write(index, value)
    rig.write(MINUTES, 0x59)
    rig.write(SECONDS, 0x59)
    rig.write(B, 0x02)
    rig.time.advance(700_000_000)
    assert rig.shown() == [0x20, 0x00, 0x01, 0x01, 0, 0, 0]


def test_the_first_update_is_half_a_second_after_the_divider_starts() -> None:
    rig = ClockRig()
    rig.time.advance(123_456_789)
    rig.write(A, 0x76)
    rig.time.advance(10 * SECOND_NS)
    rig.write(A, 0x26)
    rig.time.advance(499_999_999)
    assert rig.read(SECONDS) == 0x20
    rig.time.advance(1)
    assert rig.read(SECONDS) == 0x21


def test_setting_a_byte_of_the_running_clock() -> None:
    rig = ClockRig()
    rig.time.advance(999_000_000)
    rig.write(MINUTES, 0x30)
    assert rig.shown()[-3:] == [0x22, 0x30, 0x20]
    rig.time.advance(1_000_000)
    assert rig.shown()[-3:] == [0x22, 0x30, 0x21]


def test_update_interrupt() -> None:
    rig = ClockRig()
    rig.write(B, 0x12)
    rig.time.advance(SECOND_NS - 1)
    assert not rig.wire.level
    rig.time.advance(1)
    assert rig.wire.level and rig.timer.deadline is None, "no timer while the line is up"
    assert rig.read(C) == 0xD0 and not rig.wire.level and rig.read(C) == 0
    rig.write(B, 0x92)
    assert rig.read(B) == 0x82, "SET clears UIE"


def test_flags_come_without_interrupts_enabled() -> None:
    rig = ClockRig()
    assert rig.timer.deadline is None
    rig.time.advance(SECOND_NS)
    assert rig.read(C) == 0x50
    assert not rig.wire.calls


@settings(deadline=None)
@given(st.integers(1, 15))
def test_periodic_interrupt_rates(rate: int) -> None:
    rig = ClockRig()
    rig.write(A, 0x20 | rate)
    rig.write(B, 0x42)
    hertz = {1: 256, 2: 128}.get(rate, 32_768 >> rate - 1)
    for number in range(1, 6):
        assert rig.timer.deadline is not None
        assert abs(rig.timer.deadline - number * SECOND_NS / hertz) <= 1
        rig.time.advance(rig.timer.deadline - rig.time.now)
        assert rig.wire.level and rig.read(C) & 0xC0 == 0xC0
    rig.write(A, 0x20)
    assert rig.timer.deadline is None


def test_alarm_interrupt() -> None:
    rig = ClockRig()
    for index, value in ((HOURS_ALARM, 0x22), (MINUTES_ALARM, 0x14), (SECONDS_ALARM, 0xFF)):
        rig.write(index, value)
    rig.write(B, 0x22)
    rig.time.advance(40 * SECOND_NS - 1)
    assert not rig.wire.level
    rig.time.advance(1)
    assert rig.wire.level and rig.read(C) == 0xF0
    rig.time.advance(SECOND_NS)
    assert rig.wire.level, "every second of that minute"


def test_an_event_armed_before_a_reset_does_not_ring() -> None:
    rig = ClockRig()
    rig.write(B, 0x12)
    rig.device.reset()
    rig.time.advance(2 * SECOND_NS)
    assert not rig.wire.calls
