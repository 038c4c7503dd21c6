"""What of a PC's physical addresses is RAM, as firmware tells it to the operating system (INT 15h, AX=E820h)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

USABLE, RESERVED = 1, 2

#: the last KiB of conventional memory belongs to the BIOS (its extended data area)
BIOS_DATA = 0x9_FC00
#: from here to 1 MiB: video memory, adapter ROMs, the BIOS
HOLE = 0xA_0000
#: our own loader keeps its tables from here to 1 MiB
TABLES = 0xE_0000
#: and what points to them here, where the operating system looks for it
ROOT_POINTER = 0xF_0000
HIGH = 0x10_0000
#: the BIOS ROM's place below 4 GiB
ROM = 0xFFFC_0000


@dataclass(frozen=True, slots=True)
class Range:
    """``size`` bytes at ``base``; ``kind`` is USABLE or RESERVED."""

    base: int
    size: int
    kind: int

    def packed(self) -> bytes:
        """20 bytes, as in INT 15h and in Linux' boot_params."""
        return struct.pack("<QQI", self.base, self.size, self.kind)


def ranges(ram_bytes: int) -> list[Range]:
    """For a machine without firmware that has loaded tables of its own at TABLES."""
    return [
        Range(0, BIOS_DATA, USABLE),
        Range(BIOS_DATA, HOLE - BIOS_DATA, RESERVED),
        Range(TABLES, HIGH - TABLES, RESERVED),
        Range(HIGH, ram_bytes - HIGH, USABLE),
        Range(ROM, (1 << 32) - ROM, RESERVED),
    ]
