"""The walk through page tables, of any shape: whole tables at a time, and each of them read once a level.

It costs about 0.15 us a page: a Linux that maps 256 MiB in pages of 4 KiB takes 10 ms.
Tables that lead to themselves end with the last level; what they seem to map is cut off at MOST_PAGES.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from timevm.engine.cpu.mappings import Column, ReadMemory

Mask = npt.NDArray[np.bool_]

#: that a walk finds: 4 GiB in pages of 4 KiB
MOST_PAGES = 1 << 20
#: of one level
MOST_TABLES = 1 << 15
#: looked at in one go
_TOGETHER = 512


@dataclass(frozen=True, slots=True)
class Level:
    """``shift``: address bits that an entry leaves to what it leads to; ``entries`` of a table."""

    shift: int
    entries: int


class TableFormat(Protocol):
    """How entries are read.  Levels are numbered from the root, which is 0."""

    @property
    def levels(self) -> Sequence[Level]: ...

    @property
    def entry_bytes(self) -> int: ...

    def pages(self, level: int, entries: Column) -> Mask:
        """Which map memory."""

    def tables(self, level: int, entries: Column) -> Mask:
        """Which lead to a table of the next level; not asked for the last one."""

    def table_address(self, entries: Column) -> Column: ...

    def inherit(self, level: int, inherited: Column, entries: Column) -> Column:
        """What holds below, from what held before and the entries that lead there.  It is 0 at the root."""


@dataclass(frozen=True, slots=True)
class Found:
    """Columns of pages, ascending by ``virtual``; ``level`` that the entry is on."""

    virtual: Column
    entry: Column
    inherited: Column
    level: npt.NDArray[np.uint64]
    more_from: int | None = None


def canonical(found: Found, bits: int) -> Found:
    """The highest of so many address bits fills those above it."""
    low = 1 << bits - 1
    high = (1 << 64) - (1 << bits)
    virtual = np.where((found.virtual & np.uint64(low)) != 0, found.virtual | np.uint64(high), found.virtual)
    more_from = found.more_from
    if more_from is not None and more_from & low:
        more_from |= high
    return replace(found, virtual=virtual, more_from=more_from)


@dataclass(frozen=True, slots=True)
class _Reached:
    """Entries, the first virtual address of each, and what holds there."""

    virtual: Column
    entry: Column
    inherited: Column

    def __len__(self) -> int:
        return len(self.virtual)

    def first(self, count: int) -> _Reached:
        return _Reached(self.virtual[:count], self.entry[:count], self.inherited[:count])


def _joined(parts: Sequence[_Reached]) -> _Reached:
    def join(columns: list[Column]) -> Column:
        return np.concatenate(columns) if columns else np.zeros(0, np.uint64)

    return _Reached(
        join([part.virtual for part in parts]),
        join([part.entry for part in parts]),
        join([part.inherited for part in parts]),
    )


class _Walk:
    def __init__(self, read: ReadMemory, form: TableFormat) -> None:
        self._read, self._form = read, form
        #: virtual addresses from which something was left out
        self._left_out: list[int] = []

    def run(self, root: int, base: int) -> Found:
        start = np.array([root], np.uint64), np.array([base], np.uint64), np.zeros(1, np.uint64)
        tables, virtual, inherited = start
        pages: list[tuple[int, _Reached]] = []
        for level in range(len(self._form.levels)):
            found, below = self._level(level, tables, virtual, inherited)
            pages.append((level, found))
            tables = self._form.table_address(below.entry)
            virtual, inherited = below.virtual, self._form.inherit(level, below.inherited, below.entry)
        return self._ordered(pages)

    def _level(self, level: int, tables: Column, virtual: Column, inherited: Column) -> tuple[_Reached, _Reached]:
        """The pages that the tables of this level map, and the entries that lead to the next one."""
        form = self._form
        is_last = level == len(form.levels) - 1
        pages: list[_Reached] = []
        below: list[_Reached] = []
        for start in range(0, len(tables), _TOGETHER):
            if sum(map(len, pages)) >= MOST_PAGES or sum(map(len, below)) >= MOST_TABLES:
                self._left_out.append(int(virtual[start]))
                break
            part = slice(start, start + _TOGETHER)
            entries = self._contents(level, tables[part])
            pages.append(self._reached(level, form.pages(level, entries), entries, virtual[part], inherited[part]))
            if not is_last:
                mask = form.tables(level, entries)
                below.append(self._reached(level, mask, entries, virtual[part], inherited[part]))
        return self._cut(_joined(pages), MOST_PAGES), self._cut(_joined(below), MOST_TABLES)

    def _contents(self, level: int, tables: Column) -> Column:
        """A row of entries for each table; what is not in memory is empty."""
        size = self._form.levels[level].entries * self._form.entry_bytes
        distinct, index = np.unique(tables, return_inverse=True)
        data = b"".join(self._read(int(address), size)[:size].ljust(size, b"\0") for address in distinct)
        rows = np.frombuffer(data, f"<u{self._form.entry_bytes}").reshape(len(distinct), -1)
        contents: Column = rows.astype(np.uint64)[index]
        return contents

    def _reached(self, level: int, mask: Mask, entries: Column, virtual: Column, inherited: Column) -> _Reached:
        rows, places = np.nonzero(mask)
        shift = np.uint64(self._form.levels[level].shift)
        return _Reached(virtual[rows] + (places.astype(np.uint64) << shift), entries[rows, places], inherited[rows])

    def _cut(self, reached: _Reached, most: int) -> _Reached:
        if len(reached) <= most:
            return reached
        self._left_out.append(int(reached.virtual[most]))
        return reached.first(most)

    def _ordered(self, pages: list[tuple[int, _Reached]]) -> Found:
        whole = _joined([found for _, found in pages])
        level = np.concatenate([np.full(len(found), number, np.uint64) for number, found in pages])
        order = np.argsort(whole.virtual, kind="stable")
        if len(order) > MOST_PAGES:
            self._left_out.append(int(whole.virtual[order[MOST_PAGES]]))
        more_from = min(self._left_out, default=None)
        if more_from is not None:
            order = order[: int(np.searchsorted(whole.virtual[order], np.uint64(more_from)))]
        return Found(whole.virtual[order], whole.entry[order], whole.inherited[order], level[order], more_from)


def walk(read: ReadMemory, form: TableFormat, root: int, base: int = 0) -> Found:
    """From the table at physical ``root``, whose first entry is for virtual address ``base``.  Changes nothing."""
    return _Walk(read, form).run(root, base)
