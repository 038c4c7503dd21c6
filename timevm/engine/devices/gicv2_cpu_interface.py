"""GICv2 CPU interface, GICC_* (Arm IHI 0048B.b, 4.4): prioritisation, preemption, acknowledge and end of interrupt.

One CPU, no Security Extensions, both interrupt groups, 256 priorities (so 128 preemption levels).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from timevm.engine.devices.gicv2_interrupts import Interrupts

CTLR, PMR, BPR, IAR, EOIR, RPR, HPPIR = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18
ABPR, AIAR, AEOIR, AHPPIR, APR, NSAPR, IIDR, DIR = 0x1C, 0x20, 0x24, 0x28, 0xD0, 0xE0, 0xFC, 0x1000

# GICC_CTLR; the interrupt bypass bits read as zero: there is nothing to bypass to
ENABLE_GROUP0, ENABLE_GROUP1, ACKNOWLEDGE_CONTROL, FIQ_ENABLE, COMMON_BINARY_POINT, EOI_MODE = 1, 2, 4, 8, 16, 1 << 9
CTLR_WRITABLE: Final = 0x21F

#: what an acknowledge finds: nothing to signal; something of group 1 that this register does not hand out (3.4.2)
SPURIOUS, OTHER_GROUP = 1023, 1022
#: GICC_RPR when no interrupt is active (4.4.6)
IDLE_PRIORITY: Final = 0xFF
#: lowest binary points: seven group priority bits for either group (4.4.3, 4.4.7)
MINIMUM_BINARY_POINT, MINIMUM_ALIASED_BINARY_POINT = 0, 1
#: GICC_IIDR: GICv2 by Arm
IDENTIFICATION: Final = 0x0002043B
LEVELS: Final = 128


class CpuInterface:
    """A Device.  ``enabled_groups`` gives GICD_CTLR; ``update`` is called when what is signalled may have changed.

    ``active_levels`` are the active priorities registers of group 0 and 1 as one number of 128 bits each.
    """

    window = 0x2000

    def __init__(
        self, name: str, interrupts: Interrupts, enabled_groups: Callable[[], int], update: Callable[[], None]
    ) -> None:
        self.name = name
        self._interrupts = interrupts
        self._enabled_groups = enabled_groups
        self._update = update
        self.reset()

    def reset(self) -> None:
        self.control = 0
        self._priority_mask = 0
        self._binary_point = MINIMUM_BINARY_POINT
        self._aliased_binary_point = MINIMUM_ALIASED_BINARY_POINT
        self._active_levels = [0, 0]

    def state(self) -> dict[str, Any]:
        return {
            "control": self.control,
            "priority_mask": self._priority_mask,
            "binary_point": self._binary_point,
            "aliased_binary_point": self._aliased_binary_point,
            "active_levels": [levels.to_bytes(LEVELS // 8, "little") for levels in self._active_levels],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.control = state["control"]
        self._priority_mask = state["priority_mask"]
        self._binary_point = state["binary_point"]
        self._aliased_binary_point = state["aliased_binary_point"]
        self._active_levels = [int.from_bytes(levels, "little") for levels in state["active_levels"]]

    # prioritisation

    def highest_pending(self) -> int:
        """The pending interrupt of the highest priority that is enabled all the way to here, or SPURIOUS.

        GICC_PMR and running interrupts do not count yet.  An active and pending interrupt waits for its deactivation.
        """
        interrupts = self._interrupts
        candidates = interrupts.pending() & interrupts.enabled & ~interrupts.active
        if not candidates:
            return SPURIOUS
        groups = self.control & self._enabled_groups()
        if groups & 3 != 3:
            if groups & ENABLE_GROUP0:
                candidates &= ~interrupts.group1
            elif groups & ENABLE_GROUP1:
                candidates &= interrupts.group1
            else:
                return SPURIOUS
            if not candidates:
                return SPURIOUS
        return interrupts.highest(candidates)

    def signalled(self) -> int:
        """The interrupt that the CPU is to take now: high enough for GICC_PMR and to preempt; or SPURIOUS."""
        interrupt_id = self.highest_pending()
        if interrupt_id == SPURIOUS:
            return SPURIOUS
        priority = self._interrupts.priority[interrupt_id]
        if priority >= self._priority_mask:
            return SPURIOUS
        group = self._interrupts.group1 >> interrupt_id & 1
        if priority & self._group_priority_bits(group) >= self._running_priority():
            return SPURIOUS
        return interrupt_id

    def is_fiq(self, interrupt_id: int) -> bool:
        """Group 0 is signalled as FIQ if the guest wants that."""
        return bool(self.control & FIQ_ENABLE) and not self._interrupts.group1 >> interrupt_id & 1

    def _group_priority_bits(self, group: int) -> int:
        """The bits of a priority that decide about preemption (3.3.3, table 3-2)."""
        if group and not self.control & COMMON_BINARY_POINT:
            return 0xFF << self._aliased_binary_point & 0xFF
        return 0xFE << self._binary_point & 0xFF

    def _running_priority(self) -> int:
        """The highest active group priority; above every other one if nothing is active."""
        levels = self._active_levels[0] | self._active_levels[1]
        return ((levels & -levels).bit_length() - 1) * 2 if levels else 0x100

    # registers

    def read(self, offset: int, size: int) -> int:
        if offset == IAR and size <= 4:
            return self._acknowledge(aliased=False) & (1 << 8 * size) - 1
        if size == 4 and not offset & 3:
            return self._read_word(offset)
        if size == 8:
            first = self.read(offset & ~3, 4)
            return first | self.read((offset & ~3) + 4, 4) << 32
        return self.read(offset & ~3, 4) >> 8 * (offset & 3) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == EOIR:
            self._end(value & 0x3FF)
        elif size == 8:
            self.write(offset & ~3, 4, value & 0xFFFFFFFF)
            self.write((offset & ~3) + 4, 4, value >> 32)
        else:
            self._write_word(offset & ~3, (value & (1 << 8 * size) - 1) << 8 * (offset & 3) & 0xFFFFFFFF)
            self._update()

    def _read_word(self, offset: int) -> int:
        if offset == CTLR:
            return self.control
        if offset == PMR:
            return self._priority_mask
        if offset == BPR:
            return self._binary_point
        if offset == ABPR:
            return self._aliased_binary_point
        if offset == RPR:
            return min(self._running_priority(), IDLE_PRIORITY)
        if offset in (HPPIR, AHPPIR):
            return self._visible(self.highest_pending(), aliased=offset == AHPPIR)
        if offset == AIAR:
            return self._acknowledge(aliased=True)
        if APR <= offset < NSAPR + 0x10:
            return self._active_levels[offset >= NSAPR] >> 8 * (offset & 0xC) & 0xFFFFFFFF
        return IDENTIFICATION if offset == IIDR else 0

    def _write_word(self, offset: int, value: int) -> None:
        if offset == CTLR:
            self.control = value & CTLR_WRITABLE
        elif offset == PMR:
            self._priority_mask = value & 0xFF
        elif offset == BPR:
            self._binary_point = max(value & 7, MINIMUM_BINARY_POINT)
        elif offset == ABPR:
            self._aliased_binary_point = max(value & 7, MINIMUM_ALIASED_BINARY_POINT)
        elif offset == AEOIR:
            self._end(value & 0x3FF)
        elif offset == DIR:
            # With EOImode 0 a write is unpredictable (4.4.15); ignored as in QEMU.
            if self.control & EOI_MODE and value & 0x3FF < self._interrupts.count:
                self._interrupts.deactivate(value & 0x3FF)
        elif APR <= offset < NSAPR + 0x10:
            shift = 8 * (offset & 0xC)
            levels = self._active_levels[offset >= NSAPR]
            self._active_levels[offset >= NSAPR] = levels & ~(0xFFFFFFFF << shift) | value << shift

    def _visible(self, interrupt_id: int, *, aliased: bool) -> int:
        """What GICC_IAR and GICC_HPPIR (or their aliases for group 1) call this interrupt (3.4.2, 4.4.4, 4.4.11)."""
        if interrupt_id == SPURIOUS:
            return SPURIOUS
        group1 = self._interrupts.group1 >> interrupt_id & 1
        if aliased:
            return interrupt_id if group1 else SPURIOUS
        return OTHER_GROUP if group1 and not self.control & ACKNOWLEDGE_CONTROL else interrupt_id

    def _acknowledge(self, *, aliased: bool) -> int:
        interrupt_id = self._visible(self.signalled(), aliased=aliased)
        if interrupt_id >= OTHER_GROUP:
            return interrupt_id
        interrupts = self._interrupts
        group = interrupts.group1 >> interrupt_id & 1
        level = (interrupts.priority[interrupt_id] & self._group_priority_bits(group)) >> 1
        self._active_levels[group] |= 1 << level
        interrupts.acknowledge(interrupt_id)
        self._update()
        return interrupt_id

    def _end(self, interrupt_id: int) -> None:
        """Priority drop and, unless EOImode separates them, deactivation (3.2.1)."""
        interrupts = self._interrupts
        if interrupt_id >= interrupts.count or not (self._active_levels[0] or self._active_levels[1]):
            return
        group = interrupts.group1 >> interrupt_id & 1
        levels = self._active_levels[group]
        self._active_levels[group] = levels & levels - 1 if levels else 0
        if not self.control & EOI_MODE:
            interrupts.deactivate(interrupt_id)
        self._update()
