"""RISC-V's page tables (Privileged specification 4.3 to 4.6), read as they lie in memory: Sv39, Sv48 and Sv57."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from timevm.engine.cpu.mappings import Column, Mappings, ReadMemory, named
from timevm.engine.cpu.page_size import page_size
from timevm.engine.cpu.table_walk import Level, Mask, canonical, walk

#: levels of each mode of satp
_LEVELS = {8: 3, 9: 4, 10: 5}
VALID, READ, WRITE, EXECUTE = 1, 2, 4, 8
#: of bits 1 to 7
_LETTERS = "rwxugad"
#: of satp and of an entry behind its lowest ten bits
_PLACE = (1 << 44) - 1


@dataclass(frozen=True, slots=True)
class _Paging:
    levels: tuple[Level, ...]
    entry_bytes: int = 8

    def pages(self, level: int, entries: Column) -> Mask:
        return self._valid(entries) & self._has_rights(entries)

    def tables(self, level: int, entries: Column) -> Mask:
        return self._valid(entries) & ~self._has_rights(entries)

    def _valid(self, entries: Column) -> Mask:
        valid: Mask = (entries & np.uint64(VALID)) != 0
        return valid

    def _has_rights(self, entries: Column) -> Mask:
        some: Mask = (entries & np.uint64(READ | WRITE | EXECUTE)) != 0
        return some

    def table_address(self, entries: Column) -> Column:
        return (entries >> np.uint64(10) & np.uint64(_PLACE)) << np.uint64(12)

    def inherit(self, level: int, inherited: Column, entries: Column) -> Column:
        """Nothing: QEMU shows the bits of the last entry."""
        return inherited


def _letters(key: int) -> str:
    return "".join(letter if key >> bit & 1 else "-" for bit, letter in enumerate(_LETTERS, 1))


def mappings(register: Callable[[str], int], read: ReadMemory) -> Mappings:
    """Rights are ``rwxugad``, as in QEMU's monitor; flags the page's size and the same."""
    satp = register("satp")
    mode = satp >> 60
    if mode == 0:
        return Mappings(absent="No translation or protection")
    if mode not in _LEVELS:
        return Mappings(absent=f"satp has mode {mode}, which is reserved")
    shifts = [12 + 9 * number for number in reversed(range(_LEVELS[mode]))]
    paging = _Paging(tuple(Level(shift, 512) for shift in shifts))
    found = canonical(walk(read, paging, (satp & _PLACE) << 12), shifts[0] + 9)
    rights = found.entry & np.uint64(0xFE)
    return Mappings(
        found.virtual,
        paging.table_address(found.entry),
        np.uint64(1) << np.array(shifts, np.uint64)[found.level],
        named(rights.astype(np.uint16), _letters),
        named(
            (rights | found.level << np.uint64(8)).astype(np.uint16),
            lambda key: f"{page_size(1 << shifts[key >> 8])} {_letters(key & 0xFF)}",
        ),
        heading="attr",
        more_from=found.more_from,
    )
