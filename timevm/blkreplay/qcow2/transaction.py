"""Changes of a whole image at once: snapshots, another size, repairs.

Everything that changes is written to fresh clusters (L2 tables whose COPIED flags change, L1 tables, reference count
blocks and their table, the snapshot table), and one write of the header makes it valid.  So there is no moment in which
a flag and a count contradict each other, as there would be in place, and no kill leaves more than unused bytes behind
the file's old end.  Costs a copy of the changed tables: about 1/8000 of the changed disk with clusters of 64 KiB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from timevm.blkreplay.image_errors import ImageError
from timevm.blkreplay.qcow2.entries import (
    COPIED,
    L1_RESERVED,
    OFFSET_MASK,
    Indexes,
    Table,
    decode,
    encode,
    owned,
    referenced_clusters,
)
from timevm.blkreplay.qcow2.snapshot_table import SnapshotRecord, pack_snapshots

if TYPE_CHECKING:
    from timevm.blkreplay.qcow2.image import Qcow2Image


class Transaction:
    """One change.  Add references before subtracting any; then ``finish``."""

    def __init__(self, image: Qcow2Image) -> None:
        self.image = image
        self.refcounts = image.refcounts

    # -- new clusters

    def place(self, data: bytes) -> int:
        """Writes ``data`` into clusters in a row of its own; their offset."""
        image = self.image
        count = max(1, -(-len(data) >> image.cluster_bits))
        offset = self.refcounts.allocate_row(count) << image.cluster_bits
        image.file.write(offset, data, bytes((count << image.cluster_bits) - len(data)))
        return offset

    def place_table(self, values: Table) -> int:
        """A fresh L2 table; its offset."""
        first, _ = self.refcounts.allocate(1)
        self.image.l2.create(first << self.image.cluster_bits, values)
        return first << self.image.cluster_bits

    # -- references

    def tables_of(self, l1: Table) -> Iterator[tuple[int, int, Table]]:
        """L1 index, offset and entries of each L2 table.  Raises ImageError."""
        if has_doubles(l1):
            raise ImageError(f"the image {self.image.path} is damaged: an L1 table has one L2 table twice")
        for index in np.flatnonzero(l1).tolist():
            table = self.image.table_at(int(l1[index]))
            if table is not None:
                yield index, table.offset, table.values

    def add_tree(self, l1: Table) -> None:
        """One more reference to each L2 table and to all it refers to."""
        for _, offset, values in self.tables_of(l1):
            self.refcounts.add(self.cluster(offset))
            self.refcounts.add(referenced_clusters(values, self.image.cluster_bits))

    def subtract_tree(self, l1: Table) -> None:
        """The opposite."""
        for _, offset, values in self.tables_of(l1):
            self.refcounts.subtract(referenced_clusters(values, self.image.cluster_bits))
            self.refcounts.subtract(self.cluster(offset))

    def subtract_range(self, offset: int, length: int) -> None:
        """The clusters of a table that lies in a row."""
        if length:
            bits = self.image.cluster_bits
            self.refcounts.subtract(np.arange(offset >> bits, (offset + length - 1 >> bits) + 1))

    def cluster(self, offset: int) -> Indexes:
        return np.array([offset >> self.image.cluster_bits])

    # -- the end

    def finish(self, l1: Table, records: Sequence[SnapshotRecord], *, size: int | None = None) -> None:
        """``l1``: the new active table, without regard to its flags.  After this the file says it all."""
        image, header = self.image, self.image.header
        l1 = self._with_true_flags(l1)
        self.subtract_range(header.l1_offset, header.l1_entries * 8)
        l1_offset = self.place(encode(l1))
        snapshots_offset = header.snapshots_offset
        if list(records) != image.records:
            if image.records:
                self.subtract_range(header.snapshots_offset, image.snapshot_table_bytes)
            packed = pack_snapshots(records)
            snapshots_offset = self.place(packed) if records else 0
            image.snapshot_table_bytes = len(packed)
        self.refcounts.relocate()
        self.refcounts.write_relocated()
        image.switch(
            replace(
                header,
                size=header.size if size is None else size,
                l1_entries=len(l1),
                l1_offset=l1_offset,
                snapshot_count=len(records),
                snapshots_offset=snapshots_offset,
            )
        )
        image.l1 = l1
        image.records = list(records)
        image.l2.shrink()
        self.refcounts.shrink()

    def _with_true_flags(self, l1: Table) -> Table:
        """COPIED exactly where a count is 1; tables in which that changes anything are copied."""
        l1 = l1 & ~np.uint64(COPIED)
        for index, offset, values in self._flag_changes(l1):
            l1[index] = self.place_table(values)
            self.refcounts.subtract(self.cluster(offset))
        used = np.flatnonzero(l1)
        if len(used):
            clusters = ((l1[used] & np.uint64(OFFSET_MASK)) >> np.uint64(self.image.cluster_bits)).astype(np.int64)
            alone = used[self.refcounts.counts(clusters) == 1]
            l1[alone] |= np.uint64(COPIED)
        return l1

    def _flag_changes(self, l1: Table) -> Iterator[tuple[int, int, Table]]:
        for index, offset, values in self.tables_of(l1):
            have = owned(values)
            clusters = ((values[have] & np.uint64(OFFSET_MASK)) >> np.uint64(self.image.cluster_bits)).astype(np.int64)
            flags = np.zeros(len(values), dtype=np.uint64)
            flags[have] = np.where(self.refcounts.counts(clusters) == 1, np.uint64(COPIED), np.uint64(0))
            true = (values & ~np.uint64(COPIED)) | flags
            if not np.array_equal(true, values):
                yield index, offset, true


def has_doubles(l1: Table) -> bool:
    """No sound table refers to an L2 table twice; a damaged one may a million times, at the cost of a look each."""
    places = np.sort(l1[l1 != 0] & np.uint64(OFFSET_MASK))
    return bool((places[1:] == places[:-1]).any())


@contextmanager
def transaction(image: Qcow2Image, *, repairing: bool = False) -> Iterator[Transaction]:
    """Begins with memory and file equal.  Any error before the header is switched leaves the image as it was.

    ``repairing``: even on an image that is marked as damaged or dirty; only directly after it was opened.
    """
    image.begin_writing(repairing=repairing)
    if not repairing:
        image.settle()
    header, size = image.header, image.file.size
    try:
        yield Transaction(image)
    except BaseException:
        image.roll_back(header, size)
        raise


def load_l1(image: Qcow2Image, record: SnapshotRecord) -> Table:
    """A snapshot's L1 table.  Raises ImageError."""
    end = image.file.size + -image.file.size % image.cluster_size
    if record.l1_offset % image.cluster_size or record.l1_offset + record.l1_entries * 8 > end:
        raise ImageError(f"the image {image.path} is damaged: the L1 table of snapshot '{record.tag}' cannot be there")
    l1 = decode(image.file.read(record.l1_offset, record.l1_entries * 8))
    if bool((l1 & np.uint64(L1_RESERVED)).any()):
        raise ImageError(
            f"the image {image.path} is damaged: the L1 table of snapshot '{record.tag}' has impossible entries"
        )
    return l1
