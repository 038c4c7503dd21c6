"""Tables of pages, that share what they have alike.

A table says for every page of RAM which content it has: the number of its slot in the ``PageStore``.  It is kept in
parts of PART entries, and is itself an array of the numbers of its parts.  A table that is derived from another has
parts of its own only where a page was written in between: to derive it, to give it up and to compare two costs what
differs, and some bytes for each PART pages of RAM.  Part 0 has nothing but pages of zeroes and is everybody's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from timevm.engine.snapshot.page_store import Numbers, Pages, PageStore, Slots

Table = npt.NDArray[np.int32]

#: entries of a part: 256 KiB of RAM
PART = 64
EMPTY = 0


class PageTables:
    """For RAM of ``page_count`` pages; contents are kept in ``store``, where only tables from here hold any."""

    def __init__(self, store: PageStore, page_count: int) -> None:
        self._store = store
        self._page_count = page_count
        #: shape ``[number of part, PART]``, and how many tables have each; grows by doubling
        self._parts = np.zeros((256, PART), dtype=np.int32)
        self._users = np.zeros(len(self._parts), dtype=np.int32)
        self._free: list[int] = []
        self._fresh = EMPTY + 1

    @property
    def used_bytes(self) -> int:
        return (self._fresh - len(self._free)) * PART * self._parts.itemsize

    def empty(self) -> Table:
        """Of RAM that nobody has written."""
        return np.full(-(-self._page_count // PART), EMPTY, dtype=np.int32)

    def derive(self, table: Table, pages: Pages, numbers: Numbers) -> Table:
        """As ``table``, but the pages of these numbers (ascending) are as in ``pages``; to be given up by ``release``.

        1 us for each of them, 0.5 us for each part that they are in.  Raises HostError when the store is full.
        """
        slots = self._store.add(pages, numbers)
        places, belongs = np.unique(numbers // PART, return_inverse=True)
        fresh = self._take(len(places))
        parts = self._parts[table[places]]
        parts[belongs, numbers % PART] = slots
        self._parts[fresh] = parts
        derived = table.copy()
        derived[places] = fresh
        self._store.hold(parts.reshape(-1))
        self._users[derived] += 1  # no part but EMPTY, which is not counted, stands in a table twice
        return derived

    def _take(self, count: int) -> Slots:
        old = min(count, len(self._free))
        taken = [self._free.pop() for _ in range(old)]
        new = count - old
        while self._fresh + new > len(self._parts):
            self._parts = np.concatenate([self._parts, np.zeros_like(self._parts)])
            self._users = np.concatenate([self._users, np.zeros_like(self._users)])
        taken += range(self._fresh, self._fresh + new)
        self._fresh += new
        return np.array(taken, dtype=np.int32)

    def release(self, table: Table) -> None:
        """Nobody uses it any more; nor what only it had."""
        self._users[table] -= 1
        gone = table[(self._users[table] <= 0) & (table != EMPTY)]
        if len(gone):
            self._store.release(self._parts[gone].reshape(-1))
            self._free += gone.tolist()

    def slots(self, table: Table, numbers: Numbers) -> Slots:
        """Of the contents of these pages."""
        return self._parts[table[numbers // PART], numbers % PART]

    def differing(self, one: Table, other: Table) -> Numbers:
        """Numbers of the pages that have not the same content, ascending."""
        places = np.flatnonzero(one != other)
        part, entry = np.nonzero(self._parts[one[places]] != self._parts[other[places]])
        return places[part] * PART + entry

    def only_here(self, table: Table) -> int:
        """How many pages of ``table`` no other table has."""
        own = table[(self._users[table] == 1) & (table != EMPTY)]
        return self._store.only_here(self._parts[own].reshape(-1))
