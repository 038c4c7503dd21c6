"""x86's page tables (Intel SDM 3A, chapter 4), read as they lie in memory: 32-bit, PAE, 4-level and 5-level paging."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from timevm.engine.cpu.mappings import Column, Mappings, ReadMemory, named
from timevm.engine.cpu.table_walk import Level, Mask, canonical, walk

#: CR0.PG; CR4.PSE, CR4.PAE, CR4.LA57; EFER.LMA
PAGING, LARGE_PAGES, PHYSICAL_EXTENSION, FIVE_LEVELS, LONG_MODE = 1 << 31, 1 << 4, 1 << 5, 1 << 12, 1 << 10
PRESENT, WRITE, USER, LARGE = 1 << 0, 1 << 1, 1 << 2, 1 << 7
_RIGHTS = WRITE | USER
#: letters of QEMU's ``info tlb``, from bit 8 of an entry down to bit 1; in front of them that of bit 63
_LETTERS = "GPDACTUW"
#: bits 51 to 12
_PLACE = 0x000F_FFFF_FFFF_F000
#: of a page of 4 MiB: bits 31 to 22 of its address, and bits 39 to 32, which are 20 to 13 of the entry (PSE-36)
_LARGE_PLACE_32, _BEYOND_32 = 0xFFC0_0000, 0x001F_E000


@dataclass(frozen=True, slots=True)
class _Paging:
    """``large``: the levels, by their shift, on which an entry may map memory though it is not the last one."""

    levels: Sequence[Level]
    entry_bytes: int
    root: int
    large: frozenset[int]
    #: first level whose entries have rights: those of PAE's root have none
    rights_from: int = 0

    def pages(self, level: int, entries: Column) -> Mask:
        present: Mask = (entries & np.uint64(PRESENT)) != 0
        is_last = level == len(self.levels) - 1
        mask: Mask = present if is_last else present & self._is_large(level, entries)
        return mask

    def tables(self, level: int, entries: Column) -> Mask:
        present: Mask = (entries & np.uint64(PRESENT)) != 0
        return present & ~self._is_large(level, entries)

    def _is_large(self, level: int, entries: Column) -> Mask:
        if self.levels[level].shift not in self.large:
            return np.zeros(entries.shape, bool)
        large: Mask = (entries & np.uint64(LARGE)) != 0
        return large

    def table_address(self, entries: Column) -> Column:
        return entries & np.uint64(_PLACE)

    def inherit(self, level: int, inherited: Column, entries: Column) -> Column:
        """What the tables on the way forbid, as the bits of an entry that would allow it."""
        return inherited | ~entries & np.uint64(_RIGHTS) if level >= self.rights_from else inherited

    def page_address(self, entries: Column, shifts: Column) -> Column:
        place = entries & np.uint64(_PLACE) & ~((np.uint64(1) << shifts) - np.uint64(1))
        if self.entry_bytes == 8:
            return place
        beyond = (entries & np.uint64(_BEYOND_32)) << np.uint64(32 - 13)
        return np.where(shifts == np.uint64(22), entries & np.uint64(_LARGE_PLACE_32) | beyond, place)


def _paging(register: Callable[[str], int]) -> _Paging:
    control, root = register("cr4"), register("cr3")
    if not control & PHYSICAL_EXTENSION:
        large = frozenset({22} if control & LARGE_PAGES else ())
        return _Paging((Level(22, 1024), Level(12, 1024)), 4, root & 0xFFFF_F000, large)
    if not register("efer") & LONG_MODE:
        levels = (Level(30, 4), Level(21, 512), Level(12, 512))
        return _Paging(levels, 8, root & 0xFFFF_FFE0, frozenset({21}), rights_from=1)
    shifts = (48, 39, 30, 21, 12) if control & FIVE_LEVELS else (39, 30, 21, 12)
    return _Paging(tuple(Level(shift, 512) for shift in shifts), 8, root & _PLACE, frozenset({30, 21}))


def _rights(key: int) -> str:
    return f"{'u' if key & USER else '-'}r{'w' if key & WRITE else '-'}"


def _flags(key: int) -> str:
    """``key``: bits 8 to 1 of the entry, and bit 63 above them."""
    letters = zip(_LETTERS, range(7, -1, -1), strict=True)
    return ("X" if key >> 8 else "-") + "".join(letter if key >> bit & 1 else "-" for letter, bit in letters)


def mappings(register: Callable[[str], int], read: ReadMemory) -> Mappings:
    """Rights are ``urw``, flags ``XGPDACTUW``, both as in QEMU's monitor."""
    if not register("cr0") & PAGING:
        return Mappings(absent="PG disabled")
    paging = _paging(register)
    found = walk(read, paging, paging.root)
    if register("efer") & LONG_MODE:
        found = canonical(found, paging.levels[0].shift + 9)
    shifts = np.array([level.shift for level in paging.levels], np.uint64)[found.level]
    # of the smallest pages bit 7 is no size
    size_bit = np.where(shifts == np.uint64(12), np.uint64(LARGE), np.uint64(0))
    no_execute = found.entry >> np.uint64(63) << np.uint64(8)
    flags = (found.entry & ~size_bit) >> np.uint64(1) & np.uint64(0xFF) | no_execute
    return Mappings(
        found.virtual,
        paging.page_address(found.entry, shifts),
        np.uint64(1) << shifts,
        named((found.entry & ~found.inherited & np.uint64(_RIGHTS)).astype(np.uint16), _rights),
        named(flags.astype(np.uint16), _flags),
        more_from=found.more_from,
    )
