"""Reference counts: which host clusters are free, which are shared; allocation; and their own way to the disk.

A count in the file may be too high after a crash (a leak), never too low.  So what is referenced anew is counted
before the reference is written (``write_back`` runs before the tables), and what is not referenced any more is counted
down only after that is in the file (``release_later``, ``apply_releases``).  Transactions (see transaction.py) are
atomic instead: ``relocate`` moves every changed block and the table to fresh clusters, which one write of the header
makes valid.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from timevm.blkreplay.host_file import HostFile
from timevm.blkreplay.image_errors import ImageError
from timevm.blkreplay.qcow2.entries import Indexes, decode, encode
from timevm.blkreplay.qcow2.layout import REFCOUNT_TABLE_LIMIT, Header
from timevm.blkreplay.qcow2.refcount_codec import Counts, largest
from timevm.blkreplay.qcow2.refcount_codec import decode as decode_counts
from timevm.blkreplay.qcow2.refcount_codec import encode as encode_counts
from timevm.errors import HostError, UserError

#: bits of a host offset that L2 entries can hold
_OFFSET_BITS = 56
#: what the cache of blocks may take, in bytes of the file
CACHE_BYTES = 16 << 20


@dataclass(slots=True)
class _Block:
    """``low`` … ``high``: changed entries; ``fresh``: no table in the file points to where it will be."""

    counts: Counts
    low: int
    high: int = 0
    fresh: bool = False

    @property
    def is_dirty(self) -> bool:
        return self.high > self.low or self.fresh

    def touch(self, low: int, high: int) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)

    def clean(self) -> None:
        self.low, self.high, self.fresh = len(self.counts), 0, False


class Refcounts:
    """Counts by host cluster number.  ``relocate`` etc. are for transactions only; all errors are typed."""

    def __init__(self, file: HostFile, header: Header) -> None:
        self._file = file
        self._order = header.refcount_order
        self._bits = header.cluster_bits
        self._largest = largest(self._order)
        self.per_block = (header.cluster_size * 8) >> self._order
        self._capacity = max(4, CACHE_BYTES >> self._bits)
        self.table_offset = header.refcount_table_offset
        self.table_clusters = header.refcount_table_clusters
        self.table = decode(file.read(self.table_offset, self.table_clusters << self._bits))
        self._blocks: OrderedDict[int, _Block] = OrderedDict()
        self._fresh: set[int] = set()
        self._grown = False
        self._later: list[Indexes] = []
        self._zeroed: list[Indexes] = []
        self._hint = 0

    # -- looking

    def count(self, cluster: int) -> int:
        number, index = divmod(cluster, self.per_block)
        block = self._block(number)
        return 0 if block is None else int(block.counts[index])

    def counts(self, clusters: Indexes) -> Counts:
        """Of many clusters, in their order.  Costs a few 10 µs and one gather a block."""
        found = np.zeros(len(clusters), dtype=np.uint64)
        numbers = clusters // self.per_block
        for number in np.unique(numbers).tolist():
            block = self._block(number)
            if block is not None:
                here = numbers == number
                found[here] = block.counts[clusters[here] % self.per_block]
            if self.is_crowded:
                self.shrink()
        return found

    def block_clusters(self) -> Indexes:
        """The clusters that the blocks themselves take."""
        clusters: Indexes = (self.table[self.table != 0] >> np.uint64(self._bits)).astype(np.int64)
        return clusters

    @property
    def cached_dirty(self) -> int:
        """How many blocks wait to be written."""
        return sum(block.is_dirty for block in self._blocks.values())

    @property
    def is_crowded(self) -> bool:
        """More blocks are in memory than should be: write back, then ``shrink``."""
        return len(self._blocks) > self._capacity

    @property
    def needs_switch(self) -> bool:
        """Several new blocks at once, or a longer table: only ``relocate`` and the header make them valid together."""
        return self._grown or len(self._fresh) > 1

    # -- changing

    def allocate(self, most: int) -> tuple[int, int]:
        """A row of 1 … ``most`` free clusters, now counted once: first, how many.  Raises HostError."""
        first, count = self._free_row(most, whole=False)
        self._take(first, count)
        return first, count

    def allocate_row(self, count: int) -> int:
        """Exactly ``count`` clusters in a row; the first."""
        first, _ = self._free_row(count, whole=True)
        self._take(first, count)
        return first

    def give_back(self, first: int, count: int) -> None:
        """Undoes an allocation that nothing refers to, in memory or file."""
        self._change(np.arange(first, first + count), -1, keep_zeroed=False)
        self._hint = min(self._hint, first)

    def add(self, clusters: Indexes) -> None:
        """One more reference for each (as often as it occurs).  Raises UserError when the width does not allow it."""
        self._change(clusters, 1, keep_zeroed=False)

    def subtract(self, clusters: Indexes) -> None:
        """One less, at once; what becomes free stays out of reach until the transaction ends.  After any ``add``."""
        self._change(clusters, -1, keep_zeroed=True)

    def release_later(self, clusters: Indexes) -> None:
        """One less, as soon as the file does not refer to them any more."""
        if len(clusters):
            self._later.append(clusters)

    def apply_releases(self) -> None:
        """The file now says what memory says: what was released can be counted down and used again."""
        if self._later:
            clusters, self._later = np.concatenate(self._later), []
            self._change(clusters, -1, keep_zeroed=False)
            self._hint = min(self._hint, int(clusters.min()))

    @property
    def has_releases(self) -> bool:
        return bool(self._later)

    def set_all(self, counts: Counts) -> None:
        """Repair: exactly these counts, by cluster number; to be followed by ``relocate``.  Raises UserError."""
        if len(counts) and int(counts.max()) > self._largest:
            raise UserError(f"{self._file.path}: a cluster is used too often for {1 << self._order}-bit counts")
        self._blocks.clear()
        self._fresh.clear()
        self._zeroed.clear()
        self._later.clear()
        self.table = np.zeros_like(self.table)
        self.table_clusters = 0
        self._hint = len(counts)  # the old blocks and table may be anywhere: behind all that is in use
        numbers = []
        for first in range(0, len(counts), self.per_block):
            part = counts[first : first + self.per_block]
            if part.any():
                numbers.append(first // self.per_block)
                self._new_block(numbers[-1]).counts[: len(part)] = part
        self._place(numbers, len(counts))

    # -- to the file

    def write_back(self) -> None:
        """In place, blocks before the table; not while ``needs_switch``.  Raises HostError; may be tried again."""
        self._write_blocks()
        for number in list(self._fresh):
            self._file.sync()
            self._file.write(self.table_offset + number * 8, encode(self.table[number : number + 1]))
            self._fresh.discard(number)

    def relocate(self) -> None:
        """Changed blocks and the table go to fresh clusters; then ``write_relocated``, the header, ``switched``."""
        moved: set[int] = set()
        old_table = np.arange(self.table_clusters) + (self.table_offset >> self._bits)
        row = (0, 0)
        self.subtract(old_table)
        while True:
            for clusters in self._zeroed:
                for number in np.unique(clusters // self.per_block).tolist():
                    block = self._need(number)
                    block.touch(0, 1)
            stale = [
                number
                for number, block in self._blocks.items()
                if block.is_dirty and number not in moved and number not in self._fresh
            ]
            for number in stale:
                cluster, _ = self.allocate(1)
                old = int(self.table[number]) >> self._bits
                self.table[number] = cluster << self._bits
                self._blocks[number].fresh = True
                moved.add(number)
                self.subtract(np.array([old]))
            needed = (len(self.table) * 8 + (1 << self._bits) - 1) >> self._bits
            if row[1] != needed:
                if row[1]:
                    self.give_back(*row)
                row = (self.allocate_row(needed), needed)
            elif not stale:
                break
        for clusters in self._zeroed:
            for number, _, indexes, _ in self._grouped(clusters):
                block = self._need(number)
                block.counts[indexes] = 0
        self.table_offset, self.table_clusters = row[0] << self._bits, row[1]

    def write_relocated(self) -> None:
        """To fresh clusters only: nothing that is valid changes.  Raises HostError."""
        self._write_blocks()
        self._file.write(self.table_offset, encode(self.table).ljust(self.table_clusters << self._bits, b"\0"))

    def switched(self) -> None:
        """The header in the file points to what ``write_relocated`` wrote."""
        if self._zeroed:
            self._hint = min(self._hint, min(int(clusters.min()) for clusters in self._zeroed))
        self._zeroed.clear()
        self._fresh.clear()
        self._grown = False

    def shrink(self) -> None:
        """Forgets the least used clean blocks."""
        for number in list(self._blocks):
            if len(self._blocks) <= self._capacity:
                return
            if not self._blocks[number].is_dirty:
                del self._blocks[number]

    # -- within

    def _block(self, number: int) -> _Block | None:
        block = self._blocks.get(number)
        if block is not None:
            self._blocks.move_to_end(number)
            return block
        if number >= len(self.table) or not self.table[number]:
            return None
        offset = int(self.table[number])
        if offset & ((1 << self._bits) - 1) or offset >= self._file.size:
            raise ImageError(
                f"the image {self._file.path} is damaged: reference count block {number} would be at {offset:#x}"
            )
        counts = decode_counts(self._file.read(offset, 1 << self._bits), self._order)
        block = self._blocks[number] = _Block(counts, len(counts))
        return block

    def _need(self, number: int) -> _Block:
        block = self._block(number)
        if block is None:
            raise ImageError(f"the image {self._file.path} is damaged: it uses clusters that it counts as free")
        return block

    def _grouped(self, clusters: Indexes) -> Iterator[tuple[int, Indexes, Indexes, Indexes]]:
        """By block: its number, the clusters in it (each once), their indexes, how often each occurred."""
        unique, times = np.unique(clusters, return_counts=True)
        numbers = unique // self.per_block
        edges = np.flatnonzero(np.diff(numbers)) + 1
        for part, often in zip(np.split(unique, edges), np.split(times, edges), strict=True):
            if len(part):
                yield int(part[0]) // self.per_block, part, part % self.per_block, often

    def _change(self, clusters: Indexes, sign: int, *, keep_zeroed: bool) -> None:
        for number, part, indexes, often in self._grouped(clusters):
            block = self._need(number)
            before = block.counts[indexes].astype(np.uint64)
            change = often.astype(np.uint64)
            if sign > 0:
                if not before.all():
                    raise ImageError(f"the image {self._file.path} is damaged: it uses clusters that it counts as free")
                if bool((before > np.uint64(self._largest) - change).any()):
                    raise UserError(
                        f"{self._file.path}: its reference counts of {1 << self._order} bits allow no more snapshots"
                    )
                after = before + change
            else:
                if bool((before < change).any()):
                    raise ImageError(
                        f"the image {self._file.path} is damaged: a cluster is used more often than it is counted"
                    )
                after = before - change
                if keep_zeroed:
                    gone = after == 0
                    if gone.any():
                        self._zeroed.append(part[gone])
                        after[gone] = 1
            block.counts[indexes] = after
            block.touch(int(indexes[0]), int(indexes[-1]) + 1)

    def _take(self, first: int, count: int) -> None:
        end = first + count
        self._hint = end
        while first < end:
            number, index = divmod(first, self.per_block)
            here = min(end - first, self.per_block - index)
            block = self._need(number)
            block.counts[index : index + here] = 1
            block.touch(index, index + here)
            first += here

    def _free_row(self, most: int, *, whole: bool) -> tuple[int, int]:
        """Free clusters in a row, from the hint on; blocks that count them exist afterwards."""
        first, count = self._hint, 0
        while count < most:
            number, index = divmod(first + count, self.per_block)
            block = self._block(number)
            want = min(most - count, self.per_block - index)
            if block is None:
                if count and not whole:
                    break  # a shorter row saves a block
                count += want
                continue
            part = block.counts[index : index + want]
            used = part != 0
            if not used.any():
                count += want
                continue
            free = int(used.argmax())
            if (free or count) and not whole:
                count += free
                break
            rest = block.counts[index + free :] == 0
            first = first + count + free + (int(rest.argmax()) if rest.any() else len(rest))
            count = 0
        if (first + count) << self._bits > 1 << _OFFSET_BITS:
            raise HostError(f"the image {self._file.path} cannot grow beyond 64 PiB")
        self._cover(first, count)
        return first, count

    def _cover(self, first: int, count: int) -> None:
        """Makes the blocks that are missing for a free row, and gives them places behind it."""
        numbers = range(first // self.per_block, (first + count - 1) // self.per_block + 1)
        missing = [number for number in numbers if self._block(number) is None]
        if missing:
            for number in missing:
                self._new_block(number)
            self._place(missing, first + count)

    def _place(self, numbers: list[int], at: int) -> None:
        """Gives new blocks the free clusters from ``at`` on, which may need further blocks."""
        while numbers:
            number = numbers.pop()
            while True:
                covering, index = divmod(at, self.per_block)
                block = self._block(covering)
                if block is None:
                    block = self._new_block(covering)
                    numbers.append(covering)
                if not block.counts[index]:
                    break
                at += 1
            block.counts[index] = 1
            block.touch(index, index + 1)
            self.table[number] = at << self._bits
            at += 1

    def _new_block(self, number: int) -> _Block:
        """All zero, without a place yet."""
        if number >= len(self.table):
            if number * 8 >= REFCOUNT_TABLE_LIMIT:
                raise HostError(f"the image {self._file.path} cannot grow any more: its reference count table is full")
            per_cluster = (1 << self._bits) // 8
            entries = max(number + 1, len(self.table) * 3 // 2)
            self.table = np.concatenate(
                (self.table, np.zeros(entries + -entries % per_cluster - len(self.table), dtype=np.uint64))
            )
            self._grown = True
        counts = decode_counts(bytes(1 << self._bits), self._order)
        block = self._blocks[number] = _Block(counts, len(counts), fresh=True)
        self._fresh.add(number)
        return block

    def _write_blocks(self) -> None:
        """Each dirty one where the table in memory says; clean afterwards."""
        per_sector = 4096 >> self._order
        for number, block in self._blocks.items():
            if not block.is_dirty:
                continue
            offset = int(self.table[number])
            if block.fresh:
                self._file.write(offset, encode_counts(block.counts, self._order))
            else:
                low = block.low - block.low % per_sector
                high = block.high + -block.high % per_sector
                part = encode_counts(block.counts[low:high], self._order)
                self._file.write(offset + (low << self._order) // 8, part)
            block.clean()
