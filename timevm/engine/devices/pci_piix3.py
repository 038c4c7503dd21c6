"""The ISA bridge of the PIIX3 (Intel 290550): which interrupt input each of the four PCI interrupt wires is led to."""

from __future__ import annotations

from typing import Any, Final

from timevm.engine.devices.base import InterruptLine
from timevm.engine.devices.pci_function import Identity, PciFunction
from timevm.engine.devices.pci_i440fx import SUBSYSTEM, SUBSYSTEM_VENDOR
from timevm.engine.devices.shared_lines import SharedLines

ROUTES: Final = 0x60  # PIRQRCA to PIRQRCD
WIRES: Final = 4
ROUTE_OFF: Final = 0x80
#: inputs that a PCI interrupt may be led to
POSSIBLE: Final = (3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15)


class Piix3Isa(PciFunction):
    """``lines`` are the ISA interrupts; ``interrupt(slot, pin)`` is the wire of a function's INTA to INTD (1 to 4)."""

    def __init__(self, name: str, lines: SharedLines) -> None:
        super().__init__(
            name,
            Identity(0x8086, 0x7000, 0x060100, 0, SUBSYSTEM_VENDOR, SUBSYSTEM, multifunction=True),
        )
        self.set_initial(0x04, 2, 0x0007)
        self.set_initial(0x06, 2, 0x0200)
        self.set_initial(ROUTES, WIRES, int.from_bytes(bytes([ROUTE_OFF] * WIRES), "little"))
        self.allow(0x04, 2, 0)
        self.allow(0x4C, 1, 0xFF)  # recovery times
        self.allow(0x4E, 2, 0xFFFF)  # chip selects
        self.allow(ROUTES, WIRES, 0x8F8F8F8F)
        self.allow(0x69, 2, 0xFFFF)
        self.allow(0x70, 2, 0xFFFF)
        self.allow(0x82, 1, 0xFF)
        # Each wire has its own way to each input: two wires may be led to the same one.
        self._ways = [{number: lines.source(number) for number in POSSIBLE} for _ in range(WIRES)]
        self._wires = SharedLines(f"{name}-wires", WIRES, self._wire_changed)
        self._levels = [False] * WIRES
        self._routed: list[int | None] = [None] * WIRES
        self.reset()

    def interrupt(self, slot: int, pin: int) -> InterruptLine:
        """The four pins of neighbouring slots are rotated against each other (as in QEMU's board)."""
        return self._wires.source((slot - 1 + pin - 1) % WIRES)

    def reset(self) -> None:
        super().reset()
        self._wires.reset()
        self._levels = [False] * WIRES
        self._routed = [None] * WIRES

    def state(self) -> dict[str, Any]:
        return {**super().state(), "wires": self._wires.state(), "levels": list(self._levels),
                "routed": list(self._routed)}  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._wires.restore(state["wires"])
        self._levels = list(state["levels"])
        self._routed = list(state["routed"])

    def config_written(self, offset: int, size: int) -> None:
        if offset < ROUTES + WIRES and offset + size > ROUTES:
            for wire in range(WIRES):
                route = self.config[ROUTES + wire]
                self._lead(wire, None if route & ROUTE_OFF or route & 0xF not in POSSIBLE else route & 0xF)

    def _lead(self, wire: int, number: int | None) -> None:
        before = self._routed[wire]
        if number != before:
            self._routed[wire] = number
            if self._levels[wire]:
                if before is not None:
                    self._ways[wire][before].set(False)
                if number is not None:
                    self._ways[wire][number].set(True)

    def _wire_changed(self, wire: int, level: bool) -> None:
        self._levels[wire] = level
        number = self._routed[wire]
        if number is not None:
            self._ways[wire][number].set(level)
