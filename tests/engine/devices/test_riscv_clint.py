"""The core-local interruptor, and the timer that it shares with the firmware."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.wires import ManualTime, Wire
from timevm.engine.devices.compare_timer import NEVER
from timevm.engine.devices.riscv_clint import MSIP, MTIME, MTIMECMP, Clint

TICK_NS = 100


class ClintRig:
    def __init__(self) -> None:
        self.log: list[Any] = []
        self.software, self.timer_wire = Wire(self.log), Wire(self.log)
        self.time = ManualTime(self.log)
        self.device = Clint("clint", self.software, self.timer_wire, self.time, TICK_NS)
        self.windows = [self.device]
        self.timer = self.time.timers["clint.timer"]

    def outside(self, number: int) -> None:
        self.time.advance(number)

    def calls(self) -> list[Any]:
        return self.log

    def surroundings(self) -> Any:
        return self.time.now, self.timer.deadline

    def restore_surroundings(self, state: Any) -> None:
        self.time.now, self.timer.deadline = state


OFFSETS = [MSIP, MSIP + 4, MTIMECMP, MTIMECMP, MTIMECMP + 4, MTIMECMP + 8, MTIME, MTIME + 4, 0xFFF8]
STEPS = steps(OFFSETS, st.one_of(st.integers(0, 5000), st.integers(0, NEVER), st.integers(NEVER - 5, NEVER)))


@given(STEPS, STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(ClintRig, before, after)


def test_time_in_ticks() -> None:
    rig = ClintRig()
    rig.time.advance((0x1_2345_6789 * TICK_NS) + TICK_NS - 1)
    assert rig.device.read(MTIME, 8) == 0x1_2345_6789
    assert rig.device.read(MTIME, 4) == 0x2345_6789 and rig.device.read(MTIME + 4, 4) == 1
    rig.device.write(MTIME, 8, 0)
    assert rig.device.read(MTIME, 8) == 0x1_2345_6789


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_line_is_up_from_the_tick_on(now: int, ticks: int) -> None:
    rig = ClintRig()
    rig.time.advance(now)
    rig.device.write(MTIMECMP, 8, ticks)
    assert rig.timer_wire.level == (now // TICK_NS >= ticks)
    if not rig.timer_wire.level:
        assert rig.timer.deadline == ticks * TICK_NS
        rig.time.advance(ticks * TICK_NS - now - 1)
        assert not rig.timer_wire.level
        rig.time.advance(1)
    assert rig.timer_wire.level
    rig.device.write(MTIMECMP, 8, NEVER)
    assert not rig.timer_wire.level and rig.timer.deadline is None


def test_a_32_bit_driver_sets_both_halves() -> None:
    rig = ClintRig()
    rig.device.write(MTIMECMP + 4, 4, 0xFFFF_FFFF)
    rig.device.write(MTIMECMP, 4, 7)
    assert rig.timer.deadline is None, "the end of the sixty-four bits is never"
    rig.device.write(MTIMECMP + 4, 4, 0)
    assert rig.device.read(MTIMECMP, 8) == 7 and rig.timer.deadline == 700


def test_software_interrupt() -> None:
    rig = ClintRig()
    rig.device.write(MSIP, 4, 0xFFFF_FFFF)
    assert rig.software.level and rig.device.read(MSIP, 4) == 1
    rig.device.write(MSIP + 4, 4, 1)
    rig.device.write(MSIP, 4, 2)
    assert not rig.software.level and rig.device.read(MSIP, 4) == 0


def test_other_widths_are_ignored() -> None:
    rig = ClintRig()
    for size in (1, 2):
        rig.device.write(MSIP, size, 1)
        assert rig.device.read(MTIMECMP, size) == 0
    rig.device.write(MTIMECMP + 4, 8, 0)
    assert rig.log == []


def test_a_timer_armed_before_a_reset_does_nothing() -> None:
    rig = ClintRig()
    rig.device.write(MTIMECMP, 8, 5)
    rig.device.reset()
    rig.time.advance(10_000)
    assert not rig.timer_wire.level
