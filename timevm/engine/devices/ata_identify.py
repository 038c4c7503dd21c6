"""What a hard disk says of itself (IDENTIFY DEVICE, ATA/ATAPI-7, 6.16), with the names and figures of QEMU's ide-hd."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

SECTOR: Final = 512
#: sectors of a DRQ block at most (READ MULTIPLE)
MOST_MULTIPLE: Final = 16
HEADS, TRACK, MOST_CYLINDERS = 16, 63, 16_383
LBA28_SECTORS: Final = 0x0FFF_FFFF
FIRMWARE: Final = "2.5+"


@dataclass(frozen=True, slots=True)
class DiskNames:
    serial: str = "QM00001"
    model: str = "QEMU HARDDISK"


@dataclass(frozen=True, slots=True)
class DiskSettings:
    """What the driver chose, as far as IDENTIFY shows it."""

    multiple: int
    write_cache: bool
    multiword_mode: int | None
    ultra_mode: int | None


def cylinders(sectors: int) -> int:
    return max(1, min(sectors // (HEADS * TRACK), MOST_CYLINDERS))


def text(value: str, size: int) -> bytes:
    """ASCII with the bytes of each word swapped, as identification strings are."""
    raw = value.encode("ascii", "replace")[:size].ljust(size)
    return b"".join(raw[index + 1 : index + 2] + raw[index : index + 1] for index in range(0, size, 2))


def identify(sectors: int, names: DiskNames, settings: DiskSettings) -> bytes:
    """512 bytes."""
    tracks = cylinders(sectors)
    chs = min(tracks * HEADS * TRACK, sectors)
    short = min(sectors, LBA28_SECTORS)
    supported = 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10  # FLUSH CACHE EXT, FLUSH CACHE, 48-bit addresses
    words: dict[int, int] = {
        0: 0x0040,  # not removable
        1: tracks,
        3: HEADS,
        4: SECTOR * TRACK,
        5: SECTOR,
        6: TRACK,
        20: 3,
        21: 512,
        22: 4,
        47: 0x8000 | MOST_MULTIPLE,
        48: 1,  # 32-bit accesses of the data port
        49: 1 << 11 | 1 << 9 | 1 << 8,  # IORDY, LBA, DMA
        51: 0x200,
        52: 0x200,
        53: 7,  # words 54-58, 64-70 and 88 are valid
        54: tracks,
        55: HEADS,
        56: TRACK,
        57: chs & 0xFFFF,
        58: chs >> 16,
        59: 0x100 | settings.multiple if settings.multiple else 0,
        60: short & 0xFFFF,
        61: short >> 16,
        62: 0x07,
        63: 0x07 | (0 if settings.multiword_mode is None else 0x100 << settings.multiword_mode),
        64: 0x03,  # PIO modes 3 and 4
        65: 120,
        66: 120,
        67: 120,
        68: 120,
        80: 0xF0,  # ATA-4 to ATA-7
        81: 0x16,
        82: 1 << 14 | 1 << 5,  # NOP, write cache
        83: supported,
        84: 1 << 14,
        85: 1 << 14 | settings.write_cache << 5,
        86: supported & ~(1 << 14),
        87: 1 << 14,
        88: 0x3F | (0 if settings.ultra_mode is None else 0x100 << settings.ultra_mode),
        93: 1 << 14 | 1 << 13 | 1,  # an 80-conductor cable
        100: sectors & 0xFFFF,
        101: sectors >> 16 & 0xFFFF,
        102: sectors >> 32 & 0xFFFF,
        103: sectors >> 48,
    }
    data = bytearray(struct.pack("<256H", *(words.get(index, 0) for index in range(256))))
    data[20:40] = text(names.serial, 20)
    data[46:54] = text(FIRMWARE, 8)
    data[54:94] = text(names.model, 40)
    return bytes(data)
