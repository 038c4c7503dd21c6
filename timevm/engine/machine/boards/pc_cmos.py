"""What firmware finds in a PC's CMOS memory (IBM AT; the bytes from 34h on are QEMU's, read by SeaBIOS)."""

from __future__ import annotations

from timevm.engine.machine.spec import KIB, MIB

#: boot order by nibble: 1 floppy, 2 hard disk, 3 CD-ROM; QEMU's "cad", and no check of floppies for a boot record
BOOT_ORDER = {0x3D: 0x12, 0x38: 0x30}
#: coprocessor, no floppy, no display
EQUIPMENT = 0x02
LEAST_ABOVE_16M = 16 * MIB


def contents(ram_bytes: int) -> dict[int, int]:
    """Bytes by index, for RAM that ends below 4 GiB."""
    extended = min((ram_bytes - MIB) // KIB, 0xFFFF)
    above = min(max(ram_bytes - LEAST_ABOVE_16M, 0) // (64 * KIB), 0xFFFF)
    return {
        0x14: EQUIPMENT,
        0x15: 640 & 0xFF,
        0x16: 640 >> 8,
        0x17: extended & 0xFF,
        0x18: extended >> 8,
        0x30: extended & 0xFF,
        0x31: extended >> 8,
        0x34: above & 0xFF,
        0x35: above >> 8,
        **BOOT_ORDER,
    }
