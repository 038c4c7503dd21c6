"""Power management of the PIIX4 (Intel 290562): the ACPI timer, the power button, and switching the machine off.

There is no system management mode: the ACPI enable bit is set from the start, as on a machine whose firmware has
already handed over, and no write raises an SMI.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from timevm.engine.devices.base import InterruptLine, VirtualTime
from timevm.engine.devices.byte_access import ByteRegisters
from timevm.engine.devices.pci_function import Identity, PciFunction, PciWindow
from timevm.engine.devices.pci_i440fx import SUBSYSTEM, SUBSYSTEM_VENDOR

#: Hz of the timer, and its width
FREQUENCY: Final = 3_579_545
TIMER_MASK: Final = 0xFF_FFFF
TIMER_HALF: Final = 1 << 23
SECOND_NS: Final = 1_000_000_000

# offsets of the I/O window (ACPI 1.0, 4.7.3)
STATUS, ENABLE, CONTROL, TIMER = 0x00, 0x02, 0x04, 0x08
WINDOW: Final = 64
TIMER_CARRY, POWER_BUTTON, WAKE = 0x0001, 0x0100, 0x8000
EVENTS: Final = TIMER_CARRY | POWER_BUTTON | 0x0020 | 0x0200 | 0x0400
CONTROL_ENABLED, SLEEP_TYPE_SHIFT, SLEEP_ENABLE = 0x0001, 10, 0x2000
#: SLP_TYP values of this board's DSDT (the ones of QEMU's PIIX4): off, suspend to RAM
SOFT_OFF: Final = 0

# configuration registers
BASE, MISCELLANEOUS = 0x40, 0x80
SMBUS_BASE, SMBUS_CONFIG = 0x90, 0xD2
DEVICE_ACTIVITY, SMI_AT_COMMAND = 0x58, 1 << 25


class AcpiPm(PciFunction):
    """The function 1.3 of the board.  ``interrupt`` is the SCI; ``power_off`` is called when the guest asks for it."""

    def __init__(self, name: str, interrupt: InterruptLine, time: VirtualTime, power_off: Callable[[], None]) -> None:
        super().__init__(name, Identity(0x8086, 0x7113, 0x068000, 3, SUBSYSTEM_VENDOR, SUBSYSTEM), pin=1)
        self._interrupt = interrupt
        self._time = time
        self._power_off = power_off
        self._carry = time.timer(f"{name}.carry", self._carried)
        self._registers = PmRegisters(f"{name}-registers", self)
        self.set_initial(0x06, 2, 0x0280)
        self.set_initial(BASE, 4, 1)
        self.set_initial(SMBUS_BASE, 4, 1)
        self.set_initial(0x3C, 1, 9)  # the SCI
        self.allow(BASE, 4, 0xFFC0)
        self.allow(MISCELLANEOUS, 1, 0x01)
        self.allow(SMBUS_BASE, 4, 0xFFC0)
        self.allow(SMBUS_CONFIG, 1, 0x0F)
        # Firmware takes this bit (an SMI for each write of port B2h) for "SMM is set up already" and leaves it alone.
        self.set_initial(DEVICE_ACTIVITY, 4, SMI_AT_COMMAND)
        self.allow(DEVICE_ACTIVITY, 4, 0xFFFFFFFF)
        self.reset()

    def reset(self) -> None:
        super().reset()
        self._status = 0  # but for the carry, which is a function of time
        self._enable = 0
        self._control = CONTROL_ENABLED
        self._carry_from = 0  # tick at which the carry was last cleared
        self._level = False

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "status": self._status,
            "enable": self._enable,
            "control": self._control,
            "carry_from": self._carry_from,
            "level": self._level,
        }

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._status = state["status"]
        self._enable = state["enable"]
        self._control = state["control"]
        self._carry_from = state["carry_from"]
        self._level = state["level"]

    def press_power_button(self) -> None:
        self._status |= POWER_BUTTON
        self._follow()

    def windows(self) -> list[PciWindow]:
        base = self.config_read(BASE, 4) & 0xFFC0
        if not self.config[MISCELLANEOUS] & 1 or not base:
            return []
        return [PciWindow(base, WINDOW, True, self._registers)]

    # ---- the guest

    def timer(self) -> int:
        return self._ticks() & TIMER_MASK

    def read_register(self, offset: int) -> int:
        """A byte of the window."""
        if TIMER <= offset < TIMER + 4:
            return (self._ticks() & TIMER_MASK) >> 8 * (offset - TIMER) & 0xFF
        words = {STATUS: self._shown_status(), ENABLE: self._enable, CONTROL: self._control}
        return words.get(offset & ~1, 0) >> 8 * (offset & 1) & 0xFF

    def write_register(self, offset: int, value: int) -> None:
        shift = 8 * (offset & 1)
        match offset & ~1:
            case 0:
                cleared = value << shift
                self._status &= ~cleared
                if cleared & TIMER_CARRY:
                    self._carry_from = self._ticks()
            case 2:
                self._enable = (self._enable & ~(0xFF << shift) | value << shift) & EVENTS
            case 4:
                control = self._control & ~(0xFF << shift) | value << shift
                self._control = (control & ~SLEEP_ENABLE) | CONTROL_ENABLED
                if control & SLEEP_ENABLE and control >> SLEEP_TYPE_SHIFT & 7 == SOFT_OFF:
                    self._power_off()
            case _:
                return
        self._follow()

    def _ticks(self) -> int:
        return self._time.now_ns() * FREQUENCY // SECOND_NS

    def _shown_status(self) -> int:
        """The carry is set when the timer's highest bit has changed since it was cleared."""
        carry = self._ticks() // TIMER_HALF != self._carry_from // TIMER_HALF
        return self._status | TIMER_CARRY * carry

    def _follow(self) -> None:
        level = bool(self._shown_status() & self._enable)
        if level != self._level:
            self._level = level
            self._interrupt.set(level)
        if self._enable & TIMER_CARRY and not level:
            tick = (self._ticks() // TIMER_HALF + 1) * TIMER_HALF
            self._carry.arm(-(-tick * SECOND_NS // FREQUENCY))
        else:
            self._carry.cancel()

    def _carried(self) -> None:
        self._follow()


class PmRegisters(ByteRegisters):
    """The I/O window: bytes of its registers."""

    window = WINDOW

    def __init__(self, name: str, owner: AcpiPm) -> None:
        self.name = name
        self._owner = owner

    def read_byte(self, offset: int) -> int:
        return self._owner.read_register(offset)

    def write_byte(self, offset: int, value: int) -> None:
        self._owner.write_register(offset, value)

    def read(self, offset: int, size: int) -> int:
        """The timer is read as a whole: its bytes belong to one moment."""
        if offset == TIMER and size == 4:
            return self._owner.timer()
        return super().read(offset, size)
