"""GICv2 distributor registers, GICD_* (Arm IHI 0048B.b, 4.3), for one CPU and without the Security Extensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from timevm.engine.devices.gicv2_interrupts import SGIS, Interrupts

CTLR, TYPER, IIDR = 0x000, 0x004, 0x008
# first offsets of the arrays: one bit an interrupt
IGROUPR, ISENABLER, ICENABLER, ISPENDR, ICPENDR, ISACTIVER, ICACTIVER = 0x080, 0x100, 0x180, 0x200, 0x280, 0x300, 0x380
# ... one byte an interrupt, and two bits
IPRIORITYR, ITARGETSR, ICFGR = 0x400, 0x800, 0xC00
SGIR, CPENDSGIR, SPENDSGIR = 0xF00, 0xF10, 0xF20
#: peripheral and component identification from 0xFD0 (4.3.17: architecture version 2; Arm's numbers, as in QEMU)
IDENTIFICATION: Final = dict(
    zip(range(0xFD0, 0x1000, 4), (4, 0, 0, 0, 0x90, 0xB4, 0x2B, 0, 0x0D, 0xF0, 0x05, 0xB1), strict=True)
)
#: GICD_IIDR: implementer Arm
IMPLEMENTER: Final = 0x43B
#: GICD_CTLR: EnableGrp0 and EnableGrp1
CTLR_WRITABLE: Final = 0x3
#: a bitmap array spans this many bytes
BITMAP_SPAN: Final = 0x80


class Distributor:
    """A Device.  ``update`` is called after a write that may change what is signalled to the CPU.

    GICD_ITARGETSR are RAZ/WI as 4.3.12 demands of a uniprocessor; reserved offsets are RAZ/WI too, so that the window
    may be larger than the 4 KiB of the specification.
    """

    window = 0x1000

    def __init__(self, name: str, interrupts: Interrupts, update: Callable[[], None]) -> None:
        self.name = name
        self.control = 0
        self._interrupts = interrupts
        self._update = update

    def reset(self) -> None:
        self.control = 0

    def state(self) -> dict[str, Any]:
        return {"control": self.control}

    def restore(self, state: dict[str, Any]) -> None:
        self.control = state["control"]

    def read(self, offset: int, size: int) -> int:
        """Any width and alignment: the bytes of the register file from ``offset`` on."""
        if size == 4 and not offset & 3:
            return self._read_word(offset)
        first = offset & ~3
        value = shift = 0
        for word in range(first, offset + size, 4):
            value |= self._read_word(word) << shift
            shift += 32
        return value >> 8 * (offset - first) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        first = offset & ~3
        value = (value & (1 << 8 * size) - 1) << 8 * (offset - first)
        written = ((1 << 8 * size) - 1) << 8 * (offset - first)
        for word in range(first, offset + size, 4):
            self._write_word(word, value & 0xFFFFFFFF, written & 0xFFFFFFFF)
            value >>= 32
            written >>= 32
        self._update()

    def _read_word(self, offset: int) -> int:
        interrupts = self._interrupts
        if IGROUPR <= offset < IPRIORITYR:
            return self._bitmap(offset & -BITMAP_SPAN) >> 8 * (offset & BITMAP_SPAN - 1) & 0xFFFFFFFF
        if IPRIORITYR <= offset < IPRIORITYR + interrupts.count:
            start = offset - IPRIORITYR
            return int.from_bytes(interrupts.priority[start : start + 4], "little")
        if ICFGR <= offset < ICFGR + 0x100:
            return _spread(interrupts.edge >> 4 * (offset - ICFGR) & 0xFFFF)
        if offset == CTLR:
            return self.control
        if offset == TYPER:
            return (interrupts.count + 31) // 32 - 1
        if offset == IIDR:
            return IMPLEMENTER
        if CPENDSGIR <= offset < SPENDSGIR + 0x10:
            # A byte for each SGI, a bit for each CPU that may have sent it: there is only CPU 0.
            sgis = interrupts.latched >> (offset & 0xC) & 0xF
            return sum((sgis >> index & 1) << 8 * index for index in range(4))
        return IDENTIFICATION.get(offset, 0)

    def _bitmap(self, array: int) -> int:
        interrupts = self._interrupts
        if array == IGROUPR:
            return interrupts.group1
        if array in (ISENABLER, ICENABLER):
            return interrupts.enabled
        if array in (ISPENDR, ICPENDR):
            return interrupts.pending()
        return interrupts.active

    def _write_word(self, offset: int, value: int, written: int) -> None:
        """``written`` masks the bits of the word that the access covers; ``value`` has no others."""
        interrupts = self._interrupts
        if IGROUPR <= offset < IPRIORITYR:
            shift = 8 * (offset & BITMAP_SPAN - 1)
            self._write_bitmap(offset & -BITMAP_SPAN, value << shift & interrupts.everyone, written << shift)
        elif IPRIORITYR <= offset < IPRIORITYR + interrupts.count:
            for index in range(4):
                if written >> 8 * index & 1 and offset - IPRIORITYR + index < interrupts.count:
                    interrupts.priority[offset - IPRIORITYR + index] = value >> 8 * index & 0xFF
        elif ICFGR <= offset < ICFGR + 0x100:
            shift = 4 * (offset - ICFGR)
            covered = _gather(written) << shift & interrupts.everyone & ~SGIS
            interrupts.edge = interrupts.edge & ~covered | _gather(value) << shift & covered
        elif offset == CTLR:
            self.control = (self.control & ~written | value) & CTLR_WRITABLE
        elif offset == SGIR:
            self._send_sgi(value)
        elif CPENDSGIR <= offset < SPENDSGIR:
            interrupts.latched &= ~self._sgis(offset, value)
        elif SPENDSGIR <= offset < SPENDSGIR + 0x10:
            interrupts.latched |= self._sgis(offset, value)

    def _write_bitmap(self, array: int, bits: int, written: int) -> None:
        interrupts = self._interrupts
        if array == IGROUPR:
            interrupts.group1 = interrupts.group1 & ~written | bits
        elif array == ISENABLER:
            interrupts.enabled |= bits
        elif array == ICENABLER:
            interrupts.enabled &= ~bits | SGIS
        elif array == ISPENDR:  # SGIs have GICD_SPENDSGIR instead (4.3.7)
            interrupts.latched |= bits & ~SGIS
        elif array == ICPENDR:
            interrupts.latched &= ~bits | SGIS
        elif array == ISACTIVER:
            interrupts.active |= bits
        elif array == ICACTIVER:
            interrupts.active &= ~bits

    def _send_sgi(self, value: int) -> None:
        """GICD_SGIR (4.3.15): to the CPUs of the list, to all others, or to the sender; we are CPU 0 and alone."""
        target_filter, targets = value >> 24 & 3, value >> 16 & 0xFF
        if target_filter == 2 or (target_filter == 0 and targets & 1):
            self._interrupts.latched |= 1 << (value & 0xF)

    @staticmethod
    def _sgis(offset: int, value: int) -> int:
        """The SGIs that a word of GICD_CPENDSGIR or GICD_SPENDSGIR names, from CPU 0."""
        return sum((value >> 8 * index & 1) << (offset & 0xC) + index for index in range(4))


def _spread(bits: int) -> int:
    """16 bits to the odd bits of a word: GICD_ICFGR has two bits an interrupt, of which the upper says "edge"."""
    return sum((bits >> index & 1) << 2 * index + 1 for index in range(16))


def _gather(word: int) -> int:
    """The opposite of ``_spread``."""
    return sum((word >> 2 * index + 1 & 1) << index for index in range(16))
