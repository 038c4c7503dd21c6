"""Slots of Unicorn's linkage table: where its own calls from one of its source files into another go.

The library calls its exported functions through its procedure linkage table, so that a program may put others in their
place (ELF symbol interposition).  Here that is done for single slots of the loaded library, whatever was loaded when:
plain data of this process, no code is changed.  What stands there now is called on for every other engine.
Functions that translated code calls are not called through it; their addresses stand elsewhere in its data.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Collection
from ctypes import c_uint64
from functools import cache

import numpy as np

from timevm.engine.cpu import unicorn_library
from timevm.errors import InternalError

# tags of the dynamic section and sizes of its records (System V ABI, gABI chapter 5, x86-64 supplement)
NEEDED_TAGS = {"strings": 5, "symbols": 6, "relocations_size": 2, "relocations": 23}
SYMBOL_BYTES, RELOCATION_BYTES = 24, 24
JUMP_SLOT = 7
#: the table of all other relocations; in it, addresses in data (R_X86_64_64) and in the global offset table
ALL_TAGS = {"symbols": 6, "relocations": 7, "relocations_size": 8}
DATA_SLOTS = (1, 6)
#: PROT_READ | PROT_WRITE (Linux, asm-generic/mman-common.h)
READ_WRITE = 3

_mprotect = ctypes.CDLL(None).mprotect
_mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


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


def places_of(functions: Collection[int]) -> dict[int, list[int]]:
    """Where in its data the library keeps the addresses of exported functions of its own.  About 3 ms.

    Empty for a function that it does not keep.  Raises InternalError if the library has no such table.
    """
    base, tags = _dynamic()
    if not all(tag in tags for tag in ALL_TAGS.values()):
        raise InternalError("this build of Unicorn has no relocations: use the wheel from PyPI")
    table = ctypes.string_at(tags[ALL_TAGS["relocations"]], tags[ALL_TAGS["relocations_size"]])
    relocations = np.frombuffer(table, dtype=np.uint64).reshape(-1, 3)
    relocations = relocations[np.isin(relocations[:, 1] & np.uint64(0xFFFF_FFFF), DATA_SLOTS)]
    numbers = (relocations[:, 1] >> np.uint64(32)).astype(np.int64)
    symbols = ctypes.string_at(tags[ALL_TAGS["symbols"]], (int(numbers.max(initial=0)) + 1) * SYMBOL_BYTES)
    values = np.frombuffer(symbols, dtype=np.uint64).reshape(-1, 3)[numbers, 1] + np.uint64(base)
    return {
        function: [base + int(offset) for offset in relocations[values == np.uint64(function), 0]]
        for function in functions
    }


def redirect(places: Collection[int], target: int) -> None:
    """The loader made some of them read-only.  Raises InternalError if the host will not have it otherwise."""
    for place in places:
        if _mprotect(place & ~0xFFF, 0x1000, READ_WRITE):
            raise InternalError("the host does not let the data of Unicorn be changed")
        c_uint64.from_address(place).value = target


def c_uint32_at(address: int) -> int:
    return int(ctypes.c_uint32.from_address(address).value)


def slot(name: str) -> ctypes.c_uint64:
    """The slot through which Unicorn calls an exported function of its own.  Raises InternalError if there is none."""
    address = _slots().get(name)
    if address is None:
        raise InternalError(f"this build of Unicorn does not call {name} through its linkage table: use PyPI's wheel")
    return c_uint64.from_address(address)
