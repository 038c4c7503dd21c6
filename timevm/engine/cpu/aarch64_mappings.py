"""AArch64's page tables (Arm ARM D5.2 and D5.3), read as they lie in memory: stage 1 of EL1 and EL0, all granules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from timevm.engine.cpu.mappings import Column, Mappings, Names, ReadMemory, named
from timevm.engine.cpu.page_size import page_size
from timevm.engine.cpu.table_walk import Found, Level, Mask, walk

#: of SCTLR_EL1
MMU_ON, WRITE_IS_NO_EXECUTE = 1 << 0, 1 << 19
#: bits of a page's address by TG0 and by TG1 of TCR_EL1
_GRANULES_LOW, _GRANULES_HIGH = {0: 12, 1: 16, 2: 14}, {1: 14, 2: 12, 3: 16}
#: levels at which an entry may map a block, by the granule
_BLOCKS = {12: (1, 2), 14: (2,), 16: (2,)}
_FEWEST_BITS, _MOST_BITS = 25, 48
_PLACE = (1 << 48) - 1
VALID, FURTHER, BLOCK = 1, 3, 1
#: bits of a page's entry
FOR_USER, READ_ONLY, ACCESSED, NOT_GLOBAL = 1 << 6, 1 << 7, 1 << 10, 1 << 11
NEVER_KERNEL, NEVER_USER = 1 << 53, 1 << 54
#: bits of a table's entry: what holds for all below
TABLE_NEVER_KERNEL, TABLE_NEVER_USER, TABLE_NOT_FOR_USER, TABLE_READ_ONLY = 1 << 59, 1 << 60, 1 << 61, 1 << 62
_HIERARCHICAL = TABLE_NEVER_KERNEL | TABLE_NEVER_USER | TABLE_NOT_FOR_USER | TABLE_READ_ONLY
HEADING = "el1 el0 ga memory"
#: rights in the order of a key's bits: EL1's, EL0's, global, accessed; behind them the number of the memory type
_LETTERS = "rwxrwxga"


@dataclass(frozen=True, slots=True)
class _Space:
    """One half of the addresses.  ``register`` is its TTBR, of ``bits`` address bits; ``granule`` in bits."""

    register: int
    bits: int
    granule: int
    base: int
    is_hierarchical: bool

    @property
    def stride(self) -> int:
        return self.granule - 3

    @property
    def first_level(self) -> int:
        """Levels are numbered as in the Arm ARM: the last one is 3."""
        return 4 - -(-(self.bits - self.granule) // self.stride)

    def shift(self, level: int) -> int:
        return self.granule + self.stride * (3 - level)


@dataclass(frozen=True, slots=True)
class _Paging:
    space: _Space
    levels: tuple[Level, ...]
    entry_bytes: int = 8

    def pages(self, level: int, entries: Column) -> Mask:
        number = self.space.first_level + level
        if number == 3:
            return self._is(entries, FURTHER)
        if number in _BLOCKS[self.space.granule]:
            return self._is(entries, BLOCK)
        return np.zeros(entries.shape, bool)

    def tables(self, level: int, entries: Column) -> Mask:
        return self._is(entries, FURTHER)

    def _is(self, entries: Column, kind: int) -> Mask:
        found: Mask = (entries & np.uint64(3)) == np.uint64(kind)
        return found

    def table_address(self, entries: Column) -> Column:
        return entries & np.uint64(_PLACE & -(1 << self.space.granule))

    def inherit(self, level: int, inherited: Column, entries: Column) -> Column:
        return inherited | entries & np.uint64(_HIERARCHICAL if self.space.is_hierarchical else 0)


def _spaces(register: Callable[[str], int]) -> list[_Space]:
    control = register("TCR_EL1")
    spaces = []
    for name, size, disabled, granule, granules, flat in (
        ("TTBR0_EL1", control & 63, 7, control >> 14 & 3, _GRANULES_LOW, 41),
        ("TTBR1_EL1", control >> 16 & 63, 23, control >> 30 & 3, _GRANULES_HIGH, 42),
    ):
        bits = min(max(64 - size, _FEWEST_BITS), _MOST_BITS)
        if not control >> disabled & 1 and granule in granules:
            base = 0 if granules is _GRANULES_LOW else (1 << 64) - (1 << bits)
            spaces.append(_Space(register(name), bits, granules[granule], base, not control >> flat & 1))
    return spaces


def _walk(space: _Space, read: ReadMemory) -> Found:
    first = space.first_level
    sizes = [1 << space.bits - space.shift(first), *(1 << space.stride for _ in range(first, 3))]
    levels = tuple(Level(space.shift(first + number), entries) for number, entries in enumerate(sizes))
    root = space.register & _PLACE & -(8 * sizes[0])
    return walk(read, _Paging(space, levels), root, space.base)


def _rights(found: Found, write_is_no_execute: bool) -> Column:
    """A bit for each of ``_LETTERS``."""

    def has(column: Column, bits: int) -> Mask:
        some: Mask = (column & np.uint64(bits)) != 0
        return some

    entry, tables = found.entry, found.inherited
    user = has(entry, FOR_USER) & ~has(tables, TABLE_NOT_FOR_USER)
    write = ~has(entry, READ_ONLY) & ~has(tables, TABLE_READ_ONLY)
    user_write = user & write
    execute = ~has(entry, NEVER_KERNEL) & ~has(tables, TABLE_NEVER_KERNEL) & ~user_write
    user_execute = ~has(entry, NEVER_USER) & ~has(tables, TABLE_NEVER_USER)
    if write_is_no_execute:
        execute, user_execute = execute & ~write, user_execute & ~user_write
    columns = (
        np.ones(len(entry), bool),
        write,
        execute,
        user,
        user_write,
        user_execute,
        ~has(entry, NOT_GLOBAL),
        has(entry, ACCESSED),
    )
    key = np.zeros(len(entry), np.uint64)
    for bit, column in enumerate(columns):
        key |= column.astype(np.uint64) << np.uint64(bit)
    return key


def _memory_type(attributes: int) -> str:
    """An attribute of MAIR_EL1 (Arm ARM D17.2.97)."""
    if not attributes & 0xF0:
        return "device"
    return "uncached" if attributes == 0x44 else "normal"


def mappings(register: Callable[[str], int], read: ReadMemory) -> Mappings:
    """Rights are those of EL1 and of EL0, whether global and accessed, and the type of memory; flags also the size."""
    system = register("SCTLR_EL1")
    if not system & MMU_ON:
        return Mappings(absent="the MMU is off: addresses are physical")
    memory = [_memory_type(register("MAIR_EL1") >> 8 * number & 0xFF) for number in range(8)]

    def text(key: int) -> str:
        letters = "".join(letter if key >> bit & 1 else "-" for bit, letter in enumerate(_LETTERS))
        return f"{letters[:3]} {letters[3:6]} {letters[6:]} {memory[key >> 8 & 7]}"

    parts = [_half(space, _walk(space, read), bool(system & WRITE_IS_NO_EXECUTE), text) for space in _spaces(register)]
    return _both(parts)


def _half(space: _Space, found: Found, write_is_no_execute: bool, text: Callable[[int], str]) -> Mappings:
    shifts = [space.shift(level) for level in range(space.first_level, 4)]
    shift = np.array(shifts, np.uint64)[found.level]
    kind = _rights(found, write_is_no_execute) | (found.entry >> np.uint64(2) & np.uint64(7)) << np.uint64(8)
    return Mappings(
        found.virtual,
        found.entry & np.uint64(_PLACE) & ~((np.uint64(1) << shift) - np.uint64(1)),
        np.uint64(1) << shift,
        named(kind.astype(np.uint16), text),
        named(
            (kind | found.level << np.uint64(11)).astype(np.uint16),
            lambda key: f"{page_size(1 << shifts[key >> 11])} {text(key & 0x7FF)}",
        ),
        heading=HEADING,
        more_from=found.more_from,
    )


def _both(parts: list[Mappings]) -> Mappings:
    """One behind the other."""

    def names(columns: list[Names]) -> Names:
        texts = tuple(sorted({text for column in columns for text in column.texts}))
        index = [np.array([texts.index(text) for text in column.texts], np.intp)[column.index] for column in columns]
        return Names(np.concatenate(index), texts)

    if not parts:
        return Mappings(absent="both halves of the addresses are switched off (TCR_EL1)")
    return Mappings(
        np.concatenate([part.virtual for part in parts]),
        np.concatenate([part.physical for part in parts]),
        np.concatenate([part.size for part in parts]),
        names([part.rights for part in parts]),
        names([part.flags for part in parts]),
        heading=HEADING,
        more_from=min((part.more_from for part in parts if part.more_from is not None), default=None),
    )
