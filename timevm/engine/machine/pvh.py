"""ELF kernels that say where their 32-bit PVH entry is, such as Linux' vmlinux (Xen, docs/misc/pvh.pandoc)."""

from __future__ import annotations

import io
import struct
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from timevm.engine.machine.images import File, Piece, elf_pieces
from timevm.engine.machine.linux_x86_boot import Placed
from timevm.engine.machine.x86_boot_rom import Entry
from timevm.engine.machine.x86_memory_map import Range
from timevm.errors import UserError

#: XEN_ELFNOTE_PHYS32_ENTRY
NOTE_ENTRY: Final = 18
START_INFO_MAGIC: Final = 0x336EC578
START_INFO, MODULES, MAP, COMMAND_LINE = 0x9000, 0x9100, 0x9200, 0x2_0000
MACHINES: Final = ("EM_X86_64", "EM_386")
PAGE: Final = 4096


def entry_of(file: File) -> int | None:
    """Physical address of the PVH entry; None: the ELF file names none.  Raises UserError for a damaged file."""
    try:
        for segment in ELFFile(io.BytesIO(file.data)).iter_segments("PT_NOTE"):
            for note in segment.iter_notes():
                if note["n_name"] == "Xen" and note["n_type"] == NOTE_ENTRY:
                    description = note["n_descdata"] if "n_descdata" in note else note["n_desc"]
                    if len(description) >= 4:
                        return int(struct.unpack_from("<I", description)[0])
    except (ELFError, ConstructError, ValueError, KeyError, AssertionError, OverflowError, AttributeError) as error:
        raise UserError(f"{file.title} '{file.path}' is no ELF file that can be read: {error}") from error
    return None


def place_pvh(
    kernel: File,
    entry: int,
    initrd: File | None,
    command_line: str,
    ram_end: int,
    memory_map: list[Range],
    *,
    rsdp: int = 0,
) -> Placed:
    """Raises UserError."""
    pieces, _ = elf_pieces(kernel, kernel.data, MACHINES)
    named = [("the kernel", piece) for piece in pieces]
    modules = b""
    if initrd is not None:
        where = (ram_end - len(initrd.data)) // PAGE * PAGE
        named.append(("the initrd", Piece(where, initrd.data, len(initrd.data))))
        modules = struct.pack("<QQQQ", where, len(initrd.data), 0, 0)
    ranges = b"".join(part.packed() + bytes(4) for part in memory_map)
    information = struct.pack(
        "<IIIIQQQQII",
        START_INFO_MAGIC,
        1,
        0,
        len(modules) // 32,
        MODULES if modules else 0,
        COMMAND_LINE,
        rsdp,
        MAP,
        len(memory_map),
        0,
    )
    text = command_line.encode() + b"\0"
    named += [
        ("the start information", Piece(START_INFO, information, len(information))),
        ("the module list", Piece(MODULES, modules, len(modules))),
        ("the memory map", Piece(MAP, ranges, len(ranges))),
        ("the command line", Piece(COMMAND_LINE, text, len(text))),
    ]
    return Placed(tuple(item for item in named if item[1].size), (), Entry(entry, ebx=START_INFO))
