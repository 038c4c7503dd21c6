"""The PC's two interrupt controllers: the slave on input 2 of the master, and their edge/level registers."""

from __future__ import annotations

from typing import Any, Final

from timevm.engine.devices.base import InterruptLine
from timevm.engine.devices.byte_access import ByteRegisters
from timevm.engine.devices.i8259 import I8259
from timevm.errors import InternalError

INPUTS: Final = 16
CASCADE_INPUT: Final = 2
#: inputs that may be level-triggered, by controller (PIIX3, ELCR1 and ELCR2): not timer, keyboard, cascade, RTC, FPU
MAY_BE_LEVEL: Final = (0xF8, 0xDE)


class I8259Pair:
    """Stateful; its windows are ``master``, ``slave`` and ``edge_level`` (Devices); ``interrupt`` is the CPU's INTR."""

    def __init__(self, name: str, interrupt: InterruptLine) -> None:
        self.name = name
        self.master = I8259(f"{name}-master", interrupt.set, CASCADE_INPUT)
        self.slave = I8259(f"{name}-slave", lambda level: self.master.set_input(CASCADE_INPUT, level))
        self.edge_level = EdgeLevelRegisters(f"{name}-elcr", (self.master, self.slave))

    def reset(self) -> None:
        self.master.reset()
        self.slave.reset()

    def state(self) -> dict[str, Any]:
        return {"master": self.master.state(), "slave": self.slave.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.master.restore(state["master"])
        self.slave.restore(state["slave"])

    def set_input(self, number: int, level: bool) -> None:
        """IRQ ``number``, 0 to 15 without 2, has this level."""
        (self.slave if number > 7 else self.master).set_input(number & 7, level)

    def line(self, number: int) -> InterruptLine:
        """The wire of IRQ ``number``, for a device's constructor."""
        if not 0 <= number < INPUTS or number == CASCADE_INPUT:
            raise InternalError(f"IRQ {number} of the interrupt controllers has no wire: correct the board")
        return _Wire(self, number)

    def acknowledge(self) -> int:
        """The CPU's INTA cycles: the vector of the interrupt that it takes."""
        number = self.master.acknowledge()
        if number != CASCADE_INPUT:
            return self.master.vector_base + number
        return self.slave.vector_base + self.slave.acknowledge()


class EdgeLevelRegisters(ByteRegisters):
    """ELCR1 and ELCR2: a set bit makes its input level-triggered.  Kept by the controllers themselves."""

    window = 2

    def __init__(self, name: str, controllers: tuple[I8259, I8259]) -> None:
        self.name = name
        self._controllers = controllers

    def read_byte(self, offset: int) -> int:
        return self._controllers[offset].level_triggered

    def write_byte(self, offset: int, value: int) -> None:
        self._controllers[offset].set_level_triggered(value & MAY_BE_LEVEL[offset])


class _Wire:
    """One input of the pair."""

    __slots__ = ("_number", "_pair")

    def __init__(self, pair: I8259Pair, number: int) -> None:
        self._pair = pair
        self._number = number

    def set(self, level: bool) -> None:
        self._pair.set_input(self._number, level)
