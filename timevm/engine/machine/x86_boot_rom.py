"""The ROM of a PC that starts a kernel without firmware: from the reset vector to 32-bit protected mode, and there.

An x86 processor always starts in real mode at FFFFFFF0h.  What Linux (Documentation/arch/x86/boot.rst, "32-bit boot
protocol"), multiboot and PVH want at their entry is the same: flat segments, paging and interrupts off, addresses
of what the loader prepared in registers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

SIZE = 0x1_0000
BASE = (1 << 32) - SIZE

#: Linux wants these selectors: __BOOT_CS and __BOOT_DS
CODE_SELECTOR, DATA_SELECTOR = 0x10, 0x18
#: null, null, flat code, flat data, and a task state (for kernels that load TR before their own tables)
DESCRIPTORS = (0, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00008B0000000067)

_TABLE, _TABLE_POINTER, _START, _PROTECTED, _VECTOR = 0xFE00, 0xFE40, 0xFF00, 0xFF40, 0xFFF0


@dataclass(frozen=True, slots=True)
class Entry:
    """The first instruction of the kernel (32-bit code) and what it finds in registers."""

    address: int
    eax: int = 0
    ebx: int = 0
    esi: int = 0
    esp: int = 0x7000


def boot_rom(entry: Entry) -> bytes:
    """SIZE bytes for BASE."""
    image = bytearray(SIZE)

    def put(offset: int, *parts: bytes) -> None:
        code = b"".join(parts)
        image[offset : offset + len(code)] = code

    def word32(value: int) -> bytes:
        return struct.pack("<I", value)

    put(_TABLE, struct.pack(f"<{len(DESCRIPTORS)}Q", *DESCRIPTORS))
    put(_TABLE_POINTER, struct.pack("<HI", 8 * len(DESCRIPTORS) - 1, BASE + _TABLE))
    put(_VECTOR, b"\xe9", struct.pack("<h", _START - (_VECTOR + 3)))  # jmp _START
    put(
        _START,
        b"\xfa",  # cli
        b"\x2e\x66\x0f\x01\x16" + struct.pack("<H", _TABLE_POINTER),  # o32 lgdt [cs:_TABLE_POINTER]
        b"\x0f\x20\xc0\x0c\x01\x0f\x22\xc0",  # mov eax, cr0; or al, 1; mov cr0, eax
        b"\x66\xea" + word32(BASE + _PROTECTED) + struct.pack("<H", CODE_SELECTOR),  # jmp dword CODE:_PROTECTED
    )
    put(
        _PROTECTED,
        b"\x66\xb8" + struct.pack("<H", DATA_SELECTOR),  # mov ax, DATA
        b"\x8e\xd8\x8e\xc0\x8e\xe0\x8e\xe8\x8e\xd0",  # ds, es, fs, gs, ss
        b"\xbc" + word32(entry.esp),
        b"\xb8" + word32(entry.eax),
        b"\xbb" + word32(entry.ebx),
        b"\xbe" + word32(entry.esi),
        b"\x31\xed\x31\xff\x31\xc9\x31\xd2",  # ebp, edi, ecx, edx = 0
        b"\xea" + word32(entry.address) + struct.pack("<H", CODE_SELECTOR),  # jmp CODE:entry
    )
    return bytes(image)
