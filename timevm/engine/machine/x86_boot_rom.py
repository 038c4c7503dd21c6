"""The ROM of a PC that starts a kernel without firmware: from the reset vector to its entry.

An x86 processor always starts in real mode at FFFFFFF0h.  What Linux (Documentation/arch/x86/boot.rst, "32-bit boot
protocol"), multiboot and PVH want at their entry is the same: flat segments, paging and interrupts off, addresses
of what the loader prepared in registers.  Linux' 64-bit entry wants long mode, with memory mapped to itself.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

SIZE = 0x1_0000
BASE = (1 << 32) - SIZE

#: Linux wants these selectors: __BOOT_CS and __BOOT_DS
CODE_SELECTOR, DATA_SELECTOR = 0x10, 0x18
#: on the way to long mode __BOOT_CS is a 64-bit segment, and this one of 32 bits
WAY_SELECTOR = 0x28
CODE_32, CODE_64 = 0x00CF9B000000FFFF, 0x00AF9B000000FFFF
#: null, null, flat code, flat data, a task state (for kernels that load TR before their own tables), flat code
DESCRIPTORS = (0, 0, CODE_32, 0x00CF93000000FFFF, 0x00008B0000000067, CODE_32)
LONG_DESCRIPTORS = (0, 0, CODE_64, *DESCRIPTORS[3:])

# the first 4 GiB mapped to themselves by pages of 2 MiB
MAPPED_GIB, TABLE_BYTES = 4, 4096
PRESENT_WRITABLE, LARGE = 0x03, 0x80

_TABLE, _TABLE_POINTER, _LONG, _START, _PROTECTED, _VECTOR = 0xFE00, 0xFE40, 0xFE80, 0xFF00, 0xFF40, 0xFFF0


@dataclass(frozen=True, slots=True)
class Entry:
    """The first instruction of the kernel and what it finds in registers.

    ``page_tables`` None: 32-bit code; else it is 64-bit code, and ``identity_tables`` lie there in RAM.
    """

    address: int
    eax: int = 0
    ebx: int = 0
    esi: int = 0
    esp: int = 0x7000
    page_tables: int | None = None


def identity_tables(address: int) -> bytes:
    """Page tables for physical ``address`` (a multiple of 4096): six pages."""
    top = [address + TABLE_BYTES | PRESENT_WRITABLE]
    middle = [address + TABLE_BYTES * (2 + number) | PRESENT_WRITABLE for number in range(MAPPED_GIB)]
    pages = [number << 21 | LARGE | PRESENT_WRITABLE for number in range(512 * MAPPED_GIB)]
    return b"".join(struct.pack(f"<{len(table)}Q", *table).ljust(TABLE_BYTES, b"\0") for table in (top, middle, pages))


def boot_rom(entry: Entry) -> bytes:
    """SIZE bytes for BASE."""
    image = bytearray(SIZE)

    def put(offset: int, *parts: bytes) -> None:
        code = b"".join(parts)
        image[offset : offset + len(code)] = code

    def word32(value: int) -> bytes:
        return struct.pack("<I", value)

    long = entry.page_tables is not None
    descriptors = LONG_DESCRIPTORS if long else DESCRIPTORS
    first_selector = WAY_SELECTOR if long else CODE_SELECTOR
    put(_TABLE, struct.pack(f"<{len(descriptors)}Q", *descriptors))
    put(_TABLE_POINTER, struct.pack("<HI", 8 * len(descriptors) - 1, BASE + _TABLE))
    put(_VECTOR, b"\xe9", struct.pack("<h", _START - (_VECTOR + 3)))  # jmp _START
    put(
        _START,
        b"\xfa",  # cli
        b"\x2e\x66\x0f\x01\x16" + struct.pack("<H", _TABLE_POINTER),  # o32 lgdt [cs:_TABLE_POINTER]
        b"\x0f\x20\xc0\x0c\x01\x0f\x22\xc0",  # mov eax, cr0; or al, 1; mov cr0, eax
        b"\x66\xea" + word32(BASE + _PROTECTED) + struct.pack("<H", first_selector),  # jmp dword CODE:_PROTECTED
    )
    put(
        _PROTECTED,
        b"\x66\xb8" + struct.pack("<H", DATA_SELECTOR),  # mov ax, DATA
        b"\x8e\xd8\x8e\xc0\x8e\xe0\x8e\xe8\x8e\xd0",  # ds, es, fs, gs, ss
        _to_long_mode(entry.page_tables) if entry.page_tables is not None else b"",
        b"\xbc" + word32(entry.esp),
        b"\xb8" + word32(entry.eax),
        b"\xbb" + word32(entry.ebx),
        b"\xbe" + word32(entry.esi),
        b"\x31\xed\x31\xff\x31\xc9\x31\xd2",  # ebp, edi, ecx, edx = 0
        b"\xea" + word32(BASE + _LONG if long else entry.address) + struct.pack("<H", CODE_SELECTOR),
    )
    # mov rax, entry; jmp rax: a far jump reaches only 4 GiB, and nothing but the kernel's entry needs more
    put(_LONG, b"\x48\xb8" + struct.pack("<Q", entry.address) + b"\xff\xe0")
    return bytes(image)


def _to_long_mode(page_tables: int) -> bytes:
    """32-bit code: PAE, the tables, EFER.LME, paging."""
    return b"".join(
        (
            b"\x0f\x20\xe0\x83\xc8\x20\x0f\x22\xe0",  # mov eax, cr4; or eax, 20h; mov cr4, eax
            b"\xb8" + struct.pack("<I", page_tables) + b"\x0f\x22\xd8",  # mov cr3, tables
            b"\xb9\x80\x00\x00\xc0\x0f\x32\x0f\xba\xe8\x08\x0f\x30",  # rdmsr EFER; bts eax, 8; wrmsr
            b"\x0f\x20\xc0\x0f\xba\xe8\x1f\x0f\x22\xc0",  # mov eax, cr0; bts eax, 31; mov cr0, eax
        )
    )
