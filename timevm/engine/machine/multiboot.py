"""Kernels with a multiboot header (Multiboot Specification 0.6.96)."""

from __future__ import annotations

import struct
from typing import Final

from timevm.engine.machine.images import ELF_MAGIC, File, Piece, elf_pieces
from timevm.engine.machine.linux_x86_boot import Placed
from timevm.engine.machine.x86_boot_rom import Entry
from timevm.engine.machine.x86_memory_map import BIOS_DATA, HIGH, Range
from timevm.errors import UserError

HEADER_MAGIC: Final = 0x1BADB002
LOADER_MAGIC: Final = 0x2BADB002
#: the header lies within these first bytes, 4-byte aligned
SEARCHED: Final = 8192
FLAG_ADDRESSES, FLAG_VIDEO, UNKNOWN_REQUIREMENTS = 1 << 16, 1 << 2, 0xFFF8
# flags of the information structure
INFO_MEMORY, INFO_COMMAND_LINE, INFO_MODULES, INFO_MAP, INFO_LOADER_NAME = 1 << 0, 1 << 2, 1 << 3, 1 << 6, 1 << 9

INFORMATION, MODULES, MAP, NAMES = 0x9000, 0x9100, 0x9200, 0x2_0000
LOADER_NAME: Final = b"timevm\0"
MACHINES: Final = ("EM_386",)
PAGE: Final = 4096


def header_at(data: bytes) -> int | None:
    """Offset of the multiboot header; None: there is none."""
    for offset in range(0, min(len(data), SEARCHED) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", data, offset)
        if magic == HEADER_MAGIC and (magic + flags + checksum) & 0xFFFFFFFF == 0:
            return offset
    return None


def place_multiboot(
    kernel: File, initrd: File | None, command_line: str, ram_end: int, memory_map: list[Range]
) -> Placed:
    """``initrd`` becomes the only module.  Raises UserError."""
    offset = header_at(kernel.data)
    assert offset is not None
    (flags,) = struct.unpack_from("<I", kernel.data, offset + 4)
    if flags & UNKNOWN_REQUIREMENTS or flags & FLAG_VIDEO:
        raise UserError(
            f"{kernel.title} '{kernel.path}' asks its loader for what timevm has not (multiboot flags {flags:#x})"
        )
    if flags & FLAG_ADDRESSES:
        pieces, entry = _addressed(kernel, offset)
    elif kernel.data.startswith(ELF_MAGIC):
        pieces, entry = elf_pieces(kernel, kernel.data, MACHINES)
    else:
        raise UserError(f"{kernel.title} '{kernel.path}' has a multiboot header, but says not where it is to be loaded")
    end = max(piece.end for piece in pieces)

    names = bytearray()

    def name(text: bytes) -> int:
        names.extend(text)
        return NAMES + len(names) - len(text)

    full = f"{kernel.path} {command_line}".rstrip().encode() + b"\0"
    present = INFO_MEMORY | INFO_COMMAND_LINE | INFO_MAP | INFO_LOADER_NAME
    named = [("the kernel", piece) for piece in pieces]
    modules = b""
    if initrd is not None:
        where = -(-end // PAGE) * PAGE
        named.append(("the initrd", Piece(where, initrd.data, len(initrd.data))))
        modules = struct.pack("<IIII", where, where + len(initrd.data), name(str(initrd.path).encode() + b"\0"), 0)
        present |= INFO_MODULES
    entries = b"".join(struct.pack("<I", 20) + part.packed() for part in memory_map)
    information = struct.pack(
        "<IIIIIII16xII",
        present,
        BIOS_DATA >> 10,
        ram_end - HIGH >> 10,
        0xFFFFFFFF,
        name(full),
        len(modules) // 16,
        MODULES if modules else 0,
        len(entries),
        MAP,
    )
    information += struct.pack("<IIII", 0, 0, 0, name(LOADER_NAME))
    named += [
        ("the multiboot information", Piece(INFORMATION, information, len(information))),
        ("the module list", Piece(MODULES, modules, len(modules))),
        ("the memory map", Piece(MAP, entries, len(entries))),
        ("the command line", Piece(NAMES, bytes(names), len(names))),
    ]
    return Placed(tuple(item for item in named if item[1].size), (), Entry(entry, eax=LOADER_MAGIC, ebx=INFORMATION))


def _addressed(kernel: File, offset: int) -> tuple[list[Piece], int]:
    """The header says itself what of the file goes where ("a.out kludge")."""
    data = kernel.data
    if len(data) < offset + 32:
        raise UserError(f"{kernel.title} '{kernel.path}' is damaged: it ends in its multiboot header")
    header, load, load_end, bss_end, entry = struct.unpack_from("<IIIII", data, offset + 12)
    begin = offset - (header - load)
    length = load_end - load if load_end else len(data) - begin
    if begin < 0 or length <= 0 or begin + length > len(data):
        raise UserError(f"{kernel.title} '{kernel.path}' is damaged: its multiboot addresses do not match its size")
    return [Piece(load, data[begin : begin + length], max(length, bss_end - load))], entry
