"""The PIIX4's power management against ACPI 1.0 and Intel 290562."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.wires import ManualTime, Wire
from timevm.engine.devices.acpi_pm import (
    CONTROL,
    ENABLE,
    FREQUENCY,
    MISCELLANEOUS,
    SECOND_NS,
    STATUS,
    TIMER,
    AcpiPm,
    PmRegisters,
)
from timevm.engine.devices.pci_function import PciWindow


class PmRig:
    def __init__(self) -> None:
        self.log: list[Any] = []
        self.wire = Wire(self.log)
        self.time = ManualTime(self.log)
        self.device = AcpiPm("pm", self.wire, self.time, lambda: self.log.append("off"))
        self.registers = PmRegisters("registers", self.device)
        self.windows = [self.registers]
        self.timer = self.time.timers["pm.carry"]

    def outside(self, number: int) -> None:
        if number & 7:
            self.time.advance(number * 50_000)
        else:
            self.device.press_power_button()

    def calls(self) -> list[Any]:
        return self.log

    def surroundings(self) -> Any:
        return self.time.now, self.timer.deadline

    def restore_surroundings(self, state: Any) -> None:
        self.time.now, self.timer.deadline = state

    def read(self, offset: int, size: int = 2) -> int:
        return self.registers.read(offset, size)

    def write(self, offset: int, value: int, size: int = 2) -> None:
        self.registers.write(offset, size, value)


PM_STEPS = steps(
    [STATUS, ENABLE, CONTROL, TIMER], st.one_of(st.integers(0, 0xFFFF), st.sampled_from([1, 0x101, 0x2001]))
)


@settings(deadline=None)
@given(PM_STEPS, PM_STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(PmRig, before, after)


def test_timer_counts_virtual_time() -> None:
    rig = PmRig()
    rig.time.advance(SECOND_NS)
    assert rig.read(TIMER, 4) == FREQUENCY
    rig.time.advance(10 * SECOND_NS)
    assert rig.read(TIMER, 4) == 11 * FREQUENCY % (1 << 24)


def test_carry_interrupt() -> None:
    rig = PmRig()
    rig.write(ENABLE, 1)
    half = -(-(1 << 23) * SECOND_NS // FREQUENCY)
    assert rig.timer.deadline == half
    rig.time.advance(half - 1)
    assert not rig.wire.level and not rig.read(STATUS)
    rig.time.advance(1)
    assert rig.wire.level and rig.read(STATUS) == 1
    rig.write(STATUS, 1)
    assert not rig.wire.level and rig.timer.deadline is not None


def test_power_button() -> None:
    rig = PmRig()
    rig.device.press_power_button()
    assert not rig.wire.level and rig.read(STATUS) == 0x100
    rig.write(ENABLE, 0x100)
    assert rig.wire.level
    rig.write(STATUS, 0x100)
    assert not rig.wire.level


def test_switching_off() -> None:
    rig = PmRig()
    assert rig.read(CONTROL) == 1, "the machine is in ACPI mode"
    rig.write(CONTROL, 0x1400 | 0x2000)
    assert "off" not in rig.log, "another sleep type"
    rig.write(CONTROL, 0x2000)
    assert rig.log.count("off") == 1 and rig.read(CONTROL) == 1


def test_ports_follow_the_base_register() -> None:
    rig = PmRig()
    assert rig.device.windows() == []
    rig.device.config_write(0x40, 4, 0x601)
    assert rig.device.windows() == []
    rig.device.config_write(MISCELLANEOUS, 1, 1)
    (window,) = rig.device.windows()
    assert isinstance(window, PciWindow) and (window.base, window.size, window.is_io) == (0x600, 64, True)
    window.handler.write(CONTROL, 2, 0x2000)
    assert "off" in rig.log
