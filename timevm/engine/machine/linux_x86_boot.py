"""A Linux bzImage in RAM, ready for its entry (Linux, Documentation/arch/x86/boot.rst and zero-page.rst).

A 64-bit kernel in a format that we can unpack is put where it would unpack itself to, and started at the 64-bit entry
that its own unpacker would jump to, with the same parameters.  Others start at the 32-bit entry of the bzImage.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from timevm.engine.machine.images import File, Piece
from timevm.engine.machine.x86_boot_rom import Entry, identity_tables
from timevm.engine.machine.x86_memory_map import HIGH, USABLE, Range
from timevm.engine.machine.x86_unpack import unpack
from timevm.errors import UserError

MAGIC, MAGIC_AT = b"HdrS", 0x202
HEADER_AT = 0x1F1
#: protocol 2.06 (Linux 2.6.22): the first that says how long a command line may be
OLDEST_PROTOCOL, WITH_PLACE = 0x206, 0x20A
OLD_COMMAND_LINE_LIMIT, OLD_INITRD_LIMIT = 255, 0x37FF_FFFF

# where the loader's data go, in the first 640 KiB
PARAMETERS, SETUP_DATA, COMMAND_LINE, PAGE_TABLES = 0x1_0000, 0x1_1000, 0x2_0000, 0x3_0000
# fields of the parameters ("zero page")
RSDP_ADDRESS, E820_ENTRIES, E820_TABLE, MOST_E820 = 0x070, 0x1E8, 0x2D0, 128
VIDEO_MODE, LOADER_TYPE, LOAD_FLAGS, CODE32_START = 0x1FA, 0x210, 0x211, 0x214
RAMDISK_IMAGE, RAMDISK_SIZE, HEAP_END, COMMAND_LINE_POINTER, SETUP_DATA_POINTER = 0x218, 0x21C, 0x224, 0x228, 0x250
#: "a loader without an assigned number"; loaded high, heap usable
UNKNOWN_LOADER, LOADED_HIGH, CAN_USE_HEAP, NORMAL_VIDEO = 0xFF, 0x01, 0x80, 0xFFFF
#: setup_data type of a seed for the kernel's random numbers
SETUP_RNG_SEED = 9
PAGE = 4096


@dataclass(frozen=True, slots=True)
class Placed:
    """What is written into RAM, named for messages; ``reserved`` is what the kernel overwrites before it looks."""

    pieces: tuple[tuple[str, Piece], ...]
    reserved: tuple[tuple[str, Piece], ...]
    entry: Entry


def is_bzimage(data: bytes) -> bool:
    return data[MAGIC_AT : MAGIC_AT + 4] == MAGIC


def place_linux(
    kernel: File,
    initrd: File | None,
    command_line: str,
    ram_end: int,
    memory_map: list[Range],
    *,
    random_seed: bytes,
    rsdp: int = 0,
) -> Placed:
    """``memory_map`` and ``rsdp`` (0: none) are what the kernel is told.  Raises UserError."""
    data = kernel.data
    if len(data) < 0x300:
        raise UserError(f"{kernel.title} '{kernel.path}' is damaged: it ends in its header")
    (protocol,) = struct.unpack_from("<H", data, 0x206)
    if protocol < OLDEST_PROTOCOL or not data[LOAD_FLAGS] & LOADED_HIGH:
        raise UserError(
            f"{kernel.title} '{kernel.path}' speaks boot protocol {protocol >> 8}.{protocol & 0xFF:02}: "
            "timevm needs a bzImage of 2.06 or newer (Linux 2.6.22)"
        )
    setup_sectors = data[HEADER_AT] or 4
    code = data[512 * (1 + setup_sectors) :]
    if not code:
        raise UserError(f"{kernel.title} '{kernel.path}' is damaged: it ends before its 32-bit code")
    start, size = HIGH, len(code)
    if protocol >= WITH_PLACE:
        preferred, needed = struct.unpack_from("<QI", data, 0x258)
        start, size = max(preferred, HIGH), max(needed, len(code))
    if start + size > ram_end:
        raise UserError(
            f"{kernel.title} '{kernel.path}' does not fit into RAM: it needs {start >> 20} to "
            f"{start + size >> 20} MiB, RAM ends at {ram_end >> 20} MiB. Give the machine more with -m"
        )
    limit = struct.unpack_from("<I", data, 0x238)[0] or OLD_COMMAND_LINE_LIMIT
    text = command_line.encode() + b"\0"
    if len(text) > limit + 1:
        raise UserError(f"-append: {len(text) - 1} characters are more than the {limit} that this kernel takes")

    parameters = bytearray(PAGE)
    end_of_header = min(0x202 + data[0x201], 0x290)
    parameters[HEADER_AT:end_of_header] = data[HEADER_AT:end_of_header]
    _put(parameters, "<Q", RSDP_ADDRESS, rsdp)
    _put(parameters, "<H", VIDEO_MODE, NORMAL_VIDEO)
    _put(parameters, "<B", LOADER_TYPE, UNKNOWN_LOADER)
    _put(parameters, "<B", LOAD_FLAGS, data[LOAD_FLAGS] | CAN_USE_HEAP)
    _put(parameters, "<I", CODE32_START, start)
    _put(parameters, "<H", HEAP_END, 0xFE00)
    _put(parameters, "<I", COMMAND_LINE_POINTER, COMMAND_LINE)
    _put(parameters, "<Q", SETUP_DATA_POINTER, SETUP_DATA)
    _put(parameters, "<B", E820_ENTRIES, min(len(memory_map), MOST_E820))
    for number, part in enumerate(memory_map[:MOST_E820]):
        parameters[E820_TABLE + 20 * number : E820_TABLE + 20 * number + 20] = part.packed()

    unpacked = unpack(kernel, protocol)
    if unpacked is not None and all(start <= p.address and p.end <= start + size for p in unpacked.pieces):
        entry = Entry(unpacked.entry, esi=PARAMETERS, page_tables=PAGE_TABLES)
        tables = identity_tables(PAGE_TABLES)
        named = [("the kernel", piece) for piece in unpacked.pieces]
        named.append(("the page tables", Piece(PAGE_TABLES, tables, len(tables))))
    else:
        entry = Entry(start, esi=PARAMETERS)
        named = [("the kernel", Piece(start, code, len(code)))]
    kernel_end = max(piece.end for title, piece in named if title == "the kernel")
    if initrd is not None:
        most = struct.unpack_from("<I", data, 0x22C)[0] or OLD_INITRD_LIMIT
        usable_end = min(ram_end, most + 1, *(r.base + r.size for r in memory_map if r.kind == USABLE and r.base))
        where = (usable_end - len(initrd.data)) // PAGE * PAGE
        if where < start + size:
            raise UserError(
                f"kernel ({size >> 20} MiB from {start >> 20} MiB on) and initrd ({len(initrd.data) >> 20} MiB) do not "
                f"fit into {ram_end >> 20} MiB of RAM: give the machine more with -m"
            )
        named.append(("the initrd", Piece(where, initrd.data, len(initrd.data))))
        _put(parameters, "<I", RAMDISK_IMAGE, where)
        _put(parameters, "<I", RAMDISK_SIZE, len(initrd.data))
    seed = struct.pack("<QII", 0, SETUP_RNG_SEED, len(random_seed)) + random_seed
    named += [
        ("the boot parameters", Piece(PARAMETERS, bytes(parameters), PAGE)),
        ("the random seed", Piece(SETUP_DATA, seed, len(seed))),
        ("the command line", Piece(COMMAND_LINE, text, len(text))),
    ]
    return Placed(
        tuple(named),
        (("the kernel's memory", Piece(kernel_end, b"", start + size - kernel_end)),),
        entry,
    )


def _put(parameters: bytearray, form: str, offset: int, value: int) -> None:
    struct.pack_into(form, parameters, offset, value)
