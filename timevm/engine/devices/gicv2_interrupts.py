"""What the GICv2 knows of each interrupt: one integer per property, bit N for interrupt N (Arm IHI 0048B.b, 3.2).

Bitmaps keep the question "what is to be signalled?" at a few integer operations whatever the number of interrupts.
"""

from __future__ import annotations

from typing import Any, Final

SGI_COUNT: Final = 16
SGIS: Final = (1 << SGI_COUNT) - 1
#: interrupts below this one are banked for each CPU: SGIs and PPIs
FIRST_SPI: Final = 32
#: interrupt numbers from here on have special meanings (IHI 0048B.b, 2.2.1)
MAXIMUM_INTERRUPTS: Final = 1020

_BITMAPS: Final = ("enabled", "latched", "lines", "active", "edge", "group1")


class Interrupts:
    """The table of all interrupts of one GIC.

    ``latched`` is the pending state that is remembered (an edge that came in, a write of GICD_ISPENDR, an SGI);
    ``lines`` the level of the input wires.  A level-sensitive interrupt is pending through either (figure 4-10).
    """

    def __init__(self, spi_count: int) -> None:
        self.count = FIRST_SPI + spi_count
        self.everyone = (1 << self.count) - 1
        self.reset()

    def reset(self) -> None:
        self.enabled = SGIS  # SGIs cannot be disabled here: RAO/WI, one of the choices of 4.3.5
        self.latched = 0
        self.lines = 0
        self.active = 0
        self.edge = SGIS
        self.group1 = 0
        self.priority = bytearray(self.count)

    def state(self) -> dict[str, Any]:
        size = (self.count + 7) // 8
        record: dict[str, Any] = {name: getattr(self, name).to_bytes(size, "little") for name in _BITMAPS}
        return {**record, "priority": bytes(self.priority)}

    def restore(self, state: dict[str, Any]) -> None:
        for name in _BITMAPS:
            setattr(self, name, int.from_bytes(state[name], "little"))
        self.priority = bytearray(state["priority"])

    def pending(self) -> int:
        return self.latched | self.lines & ~self.edge

    def set_line(self, interrupt_id: int, level: bool) -> bool:
        """The wire of a PPI or SPI has this level now; False if it had it already."""
        bit = 1 << interrupt_id
        if bool(self.lines & bit) == level:
            return False
        self.lines ^= bit
        if level and self.edge & bit:
            self.latched |= bit
        return True

    def acknowledge(self, interrupt_id: int) -> None:
        """Pending becomes active; a level-sensitive interrupt whose wire is still up becomes active and pending."""
        bit = 1 << interrupt_id
        self.latched &= ~bit
        self.active |= bit

    def deactivate(self, interrupt_id: int) -> None:
        self.active &= ~(1 << interrupt_id)

    def highest(self, candidates: int) -> int:
        """The one of ``candidates`` (a bitmap, not 0) with the lowest priority value, then the lowest number."""
        best = (candidates & -candidates).bit_length() - 1
        candidates &= candidates - 1
        priority = self.priority
        while candidates:
            interrupt_id = (candidates & -candidates).bit_length() - 1
            candidates &= candidates - 1
            if priority[interrupt_id] < priority[best]:
                best = interrupt_id
        return best
