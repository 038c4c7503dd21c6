"""L2 tables in memory: loaded on demand, changed in place, written back by range, bounded."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from timevm.blkreplay.host_file import HostFile
from timevm.blkreplay.image_errors import ImageError
from timevm.blkreplay.qcow2.entries import Table, decode, encode

#: what the cache may take, in bytes of tables: 32 MiB describe 256 GiB of disk with clusters of 64 KiB
CACHE_BYTES = 32 << 20
_PER_SECTOR = 64


class L2Table:
    """``values``: entries in host order.  Who changes one says which, with ``touch``."""

    __slots__ = ("high", "low", "offset", "values")

    def __init__(self, offset: int, values: Table) -> None:
        self.offset, self.values = offset, values
        self.low, self.high = len(values), 0

    def touch(self, low: int, high: int) -> None:
        """Entries ``low`` … ``high`` - 1 differ from the file."""
        self.low, self.high = min(self.low, low), max(self.high, high)


class L2Cache:
    """Tables by their offset in the file."""

    def __init__(self, file: HostFile, cluster_bits: int) -> None:
        self._file = file
        self._size = 1 << cluster_bits
        self._tables: OrderedDict[int, L2Table] = OrderedDict()
        self._dirty: dict[int, L2Table] = {}
        self._capacity = max(4, CACHE_BYTES >> cluster_bits)

    @property
    def is_crowded(self) -> bool:
        """Write back, then ``shrink``."""
        return len(self._tables) > self._capacity

    @property
    def is_dirty(self) -> bool:
        return bool(self._dirty)

    def get(self, offset: int) -> L2Table:
        """Raises ImageError for a place where no table can be."""
        table = self._tables.get(offset)
        if table is not None:
            self._tables.move_to_end(offset)
            return table
        if offset % self._size or not 0 < offset < self._file.size:
            raise ImageError(f"the image {self._file.path} is damaged: an L2 table would be at {offset:#x}")
        table = self._tables[offset] = L2Table(offset, decode(self._file.read(offset, self._size)))
        if len(self._tables) > self._capacity:
            self.shrink()
        return table

    def create(self, offset: int, values: Table | None = None) -> L2Table:
        """A new table at a new place, written at once, so that a full disk is noticed while nothing depends on it."""
        if values is None:
            values = np.zeros(self._size // 8, dtype=np.uint64)
        self._file.write(offset, encode(values))
        table = self._tables[offset] = L2Table(offset, values)
        self._dirty.pop(offset, None)
        if len(self._tables) > self._capacity:
            self.shrink()
        return table

    def touch(self, table: L2Table, low: int, high: int) -> None:
        table.touch(low, high)
        self._dirty[table.offset] = self._tables[table.offset] = table

    def write_back(self) -> None:
        """Raises HostError; may be called again then."""
        for offset, table in list(self._dirty.items()):
            low = table.low - table.low % _PER_SECTOR
            high = min(table.high + -table.high % _PER_SECTOR, len(table.values))
            self._file.write(offset + low * 8, encode(table.values[low:high]))
            table.low, table.high = len(table.values), 0
            del self._dirty[offset]

    def shrink(self) -> None:
        """Forgets the least used clean tables."""
        for offset in list(self._tables):
            if len(self._tables) <= self._capacity:
                return
            if offset not in self._dirty:
                del self._tables[offset]
