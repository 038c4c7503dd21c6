"""Slots of Unicorn's linkage table: where its own calls from one of its source files into another go.

The library calls its exported functions through its procedure linkage table, so that a program may put others in their
place (ELF symbol interposition).  Here that is done for single slots of the loaded library, whatever was loaded when:
plain data of this process, no code is changed.  What stands there now is called on for every other engine.
"""

from __future__ import annotations

import ctypes
import struct
from ctypes import c_uint64
from functools import cache

from timevm.engine.cpu import unicorn_library
from timevm.errors import InternalError

# tags of the dynamic section and sizes of its records (System V ABI, gABI chapter 5, x86-64 supplement)
NEEDED_TAGS = {"strings": 5, "symbols": 6, "relocations_size": 2, "relocations": 23}
SYMBOL_BYTES, RELOCATION_BYTES = 24, 24
JUMP_SLOT = 7


def _dynamic() -> tuple[int, dict[int, int]]:
    """Load address and dynamic section of the library; a ``dlopen`` handle points to glibc's ``struct link_map``."""
    address, _, section = (c_uint64 * 3).from_address(unicorn_library.library._handle)
    tags: dict[int, int] = {}
    at = int(section)
    while True:
        tag, value = (c_uint64 * 2).from_address(at)
        if tag == 0:
            return int(address), tags
        tags[int(tag)] = int(value)
        at += 16


@cache
def _slots() -> dict[str, int]:
    """Address of each function's slot.  About 15 ms.  Raises InternalError if the library has no such table."""
    base, tags = _dynamic()
    if not all(tag in tags for tag in NEEDED_TAGS.values()):
        raise InternalError("this build of Unicorn has no linkage table: use the wheel from PyPI")
    # glibc has made these addresses absolute
    strings, symbols = tags[NEEDED_TAGS["strings"]], tags[NEEDED_TAGS["symbols"]]
    table = ctypes.string_at(tags[NEEDED_TAGS["relocations"]], tags[NEEDED_TAGS["relocations_size"]])
    found = {}
    for offset, info, _ in struct.iter_unpack("<QQq", table):
        if info & 0xFFFF_FFFF == JUMP_SLOT:
            name = c_uint32_at(symbols + SYMBOL_BYTES * (info >> 32))
            found[ctypes.string_at(strings + name).decode("ascii", "replace")] = base + offset
    return found


def c_uint32_at(address: int) -> int:
    return int(ctypes.c_uint32.from_address(address).value)


def slot(name: str) -> ctypes.c_uint64:
    """The slot through which Unicorn calls an exported function of its own.  Raises InternalError if there is none."""
    address = _slots().get(name)
    if address is None:
        raise InternalError(f"this build of Unicorn does not call {name} through its linkage table: use PyPI's wheel")
    return c_uint64.from_address(address)
