"""One qcow2 image: its tables in memory, the order in which they reach the file, and the BlockNode on top."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from timevm.blkreplay.host_file import HostFile
from timevm.blkreplay.image_errors import ImageError, SnapshotNotFoundError
from timevm.blkreplay.node import BlockNode
from timevm.blkreplay.qcow2 import cluster_reader, cluster_writer, snapshot_operations
from timevm.blkreplay.qcow2.entries import COPIED, L1_RESERVED, OFFSET_MASK, Table, decode, encode
from timevm.blkreplay.qcow2.l2_cache import L2Cache, L2Table
from timevm.blkreplay.qcow2.layout import AUTOCLEAR_AT, SIZE_AT, Header, l1_entries_for, parse_header
from timevm.blkreplay.qcow2.refcounts import Refcounts
from timevm.blkreplay.qcow2.snapshot_operations import Unchanged
from timevm.blkreplay.qcow2.snapshot_table import TABLE_LIMIT, SnapshotRecord, parse_snapshots
from timevm.blkreplay.qcow2.transaction import load_l1
from timevm.errors import HostError, TimevmError, UserError

#: the header's first cluster may be 2 MiB; fields, extensions and backing name never need more than this
_HEADER_BYTES = 64 << 10


class Qcow2Image:
    """A BlockNode.  One thread at a time.  After an error within a write of the tables it refuses further writes.

    Crash safety: data, then reference counts, then L2, then L1, with fsync between them against a loss of power
    (``durable``); a kill at any moment leaves at worst leaked clusters.  Whatever needs more than that (snapshots,
    longer tables) is written to fresh clusters and made valid by one write of the header.
    """

    def __init__(self, file: HostFile, *, backing: BlockNode | None = None, durable: bool = True) -> None:
        """Takes over ``file`` and ``backing``.  Raises ImageError."""
        self.file = file
        self.backing = backing
        self.durable = durable
        #: snapshots that somebody reads from for as long as the image is open
        self.pinned: list[SnapshotRecord] = []
        self._broken: TimevmError | None = None
        self._closed = False
        self.reload()

    def reload(self) -> None:
        """Memory becomes what the file says."""
        file = self.file
        header = parse_header(file.read(0, min(_HEADER_BYTES, max(file.size, 512))), file.path, file.size)
        self.header: Header = header
        self.cluster_bits = header.cluster_bits
        self.cluster_size = header.cluster_size
        self.l2_bits = header.cluster_bits - 3
        self.l1: Table = decode(file.read(header.l1_offset, header.l1_entries * 8))
        self._l1_dirty: set[int] = set()
        self.l2 = L2Cache(file, header.cluster_bits)
        self.refcounts = Refcounts(file, header)
        self.records, self.snapshot_table_bytes = self._load_snapshots(header)
        self._writing = False
        self.decompressed: tuple[int, bytes] = (0, b"")

    def _load_snapshots(self, header: Header) -> tuple[list[SnapshotRecord], int]:
        if not header.snapshot_count:
            return [], 0
        length = max(0, min(TABLE_LIMIT, self.file.size - header.snapshots_offset))
        data = self.file.read(header.snapshots_offset, length)
        return parse_snapshots(data, header.snapshot_count, header.size, self.path)

    # -- the BlockNode

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def read_only(self) -> bool:
        return self.file.read_only

    @property
    def size(self) -> int:
        """Bytes."""
        return self.header.size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes.  A run of clusters that lie in a row costs one pread."""
        self._check_range(offset, length)
        return cluster_reader.read(self, self.l1, offset, length, self.backing)

    def write(self, offset: int, data: bytes) -> None:
        """New clusters are allocated in rows; what lies in a row costs one pwrite."""
        self._check_range(offset, len(data))
        self.begin_writing()
        cluster_writer.write(self, offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool = True) -> None:
        """Whole clusters become zero clusters (version 3); nothing is written for what reads as zeroes anyway."""
        self._check_range(offset, length)
        self.begin_writing()
        cluster_writer.write_zeroes(self, offset, length, unmap=unmap)

    def discard(self, offset: int, length: int) -> None:
        """Whole clusters within the range lose their data; parts of clusters at its ends are left alone."""
        self._check_range(offset, length)
        self.begin_writing()
        cluster_writer.discard(self, offset, length)

    def flush(self) -> None:
        """Data and tables are on the host's disk.  Costs one fsync when no table changed, else two."""
        if self.read_only:
            return
        self._check_usable()
        self.write_tables()
        self._sync()
        self.refcounts.apply_releases()

    def close(self) -> None:
        """Flush, count down what was released, let the files go.  Idempotent.  Raises HostError when a flush fails."""
        if self._closed:
            return
        self._closed = True
        try:
            if not self.read_only and self._broken is None:
                self.settle()
        finally:
            self.file.close()
            if self.backing is not None:
                self.backing.close()

    def abandon(self) -> None:
        """Lets the files go without a flush: what a killed process leaves behind.  For tests."""
        self._closed = True
        self.file.close()
        if self.backing is not None:
            self.backing.close()

    # -- snapshots

    def snapshots(self) -> list[SnapshotRecord]:
        """In the order of the table."""
        return list(self.records)

    def find_snapshot(self, id_or_tag: str) -> SnapshotRecord:
        """An id is looked for before a tag, as in QEMU.  Raises SnapshotNotFoundError."""
        for record in self.records:
            if record.id == id_or_tag:
                return record
        for record in self.records:
            if record.tag == id_or_tag:
                return record
        raise SnapshotNotFoundError(id_or_tag)

    def save_snapshot(
        self,
        tag: str,
        vm_state: bytes | Iterable[bytes | Unchanged] = b"",
        date: float | tuple[int, int] = 0,
        vm_clock_ns: int = 0,
        icount: int = -1,
        *,
        overlay: Mapping[int, bytes] | None = None,
        share_with: str | None = None,
        replace_tag: bool = True,
        compare: bool = True,
    ) -> SnapshotRecord:
        """The disk as it is (or under ``overlay``) and the VM state, all at once or not at all.

        ``date``: seconds since the epoch, or (seconds, nanoseconds).  ``overlay``: cluster number -> the cluster's
        bytes in the snapshot; the active state stays as it is.
        ``share_with``: id or tag of an earlier snapshot; pieces of ``vm_state`` of one cluster (at multiples of the
        cluster size) that equal one of its pieces are shared with it.  Who knows them names them as ``Unchanged``, and
        has nothing compared (``compare``).
        ``replace_tag``: snapshots of the same tag vanish in the moment in which the new one appears.
        Raises UserError (read-only, no more references possible), HostError; then nothing has changed.
        """
        return snapshot_operations.save(
            self,
            tag,
            (vm_state,) if isinstance(vm_state, bytes) else vm_state,
            date if isinstance(date, tuple) else (int(date), int(date % 1 * 1e9)),
            vm_clock_ns,
            icount,
            overlay or {},
            share_with,
            replace_tag=replace_tag,
            compare=compare,
        )

    def load_vm_state(self, id_or_tag: str) -> bytes:
        """Raises SnapshotNotFoundError, ImageError.  Costs about 1 ms a MiB, most of it for the new memory."""
        return snapshot_operations.load_vm_state(self, self.find_snapshot(id_or_tag))

    def vm_state_pieces(self, id_or_tag: str) -> Iterator[bytes]:
        """The same in pieces of some MiB, for a state that should not be in memory twice."""
        return snapshot_operations.vm_state_pieces(self, self.find_snapshot(id_or_tag))

    def apply_snapshot(self, id_or_tag: str) -> None:
        """The disk becomes the snapshot's, its size too.  Raises as ``save_snapshot``."""
        snapshot_operations.apply(self, self.find_snapshot(id_or_tag))

    def delete_snapshot(self, id_or_tag: str) -> None:
        """Raises as ``save_snapshot``."""
        snapshot_operations.delete(self, self.find_snapshot(id_or_tag))

    def snapshot_reader(self, id_or_tag: str, *, pin: bool = False) -> BlockNode:
        """The snapshot's disk, read-only, without applying it; good until that snapshot is deleted.

        ``pin``: to delete or replace it is refused while the image is open.
        """
        record = self.find_snapshot(id_or_tag)
        if pin and record not in self.pinned:
            self.pinned.append(record)
        return snapshot_operations.SnapshotReader(self, record)

    # -- for the modules of this package

    @property
    def state_index(self) -> int:
        """The first L1 entry behind the disk: there VM state begins."""
        return l1_entries_for(self.header.size, self.cluster_bits)

    def begin_writing(self, *, repairing: bool = False) -> None:
        """Before anything changes in the file.  Raises UserError, HostError."""
        if self._writing and not repairing:
            self._check_usable()
            return
        if self.read_only:
            raise UserError(f"the image {self.path} is open for reading only")
        self._check_usable()
        if repairing:
            return
        if self.header.is_corrupt:
            raise ImageError(
                f"the image {self.path} is marked as damaged: repair it with `timevm img check -r all` first"
            )
        if self.header.is_dirty:
            raise ImageError(
                f"the image {self.path} is marked as dirty: repair it with `timevm img check -r all` first"
            )
        self._check_counted()
        if self.header.autoclear:
            self.file.write(AUTOCLEAR_AT, bytes(8))
            self._sync()
            self.header = replace(self.header, autoclear=0)
        self._writing = True

    def _check_counted(self) -> None:
        """Every table is counted as used: so an allocation never hands one out.  Reads all tables but L2.

        Raises ImageError.
        """
        header, bits = self.header, self.cluster_bits
        ranges = [
            (0, 1),
            (header.l1_offset, header.l1_entries * 8),
            (header.refcount_table_offset, header.refcount_table_clusters << bits),
            (header.snapshots_offset, self.snapshot_table_bytes),
        ]
        used = [self.refcounts.block_clusters()]
        for l1 in (self.l1, *(load_l1(self, record) for record in self.records)):
            used.append(((l1 & np.uint64(OFFSET_MASK)) >> np.uint64(bits)).astype(np.int64))
        ranges += [(record.l1_offset, record.l1_entries * 8) for record in self.records]
        used += [np.arange(at >> bits, (at + length + self.cluster_size - 1) >> bits) for at, length in ranges]
        clusters = np.unique(np.concatenate(used))  # unallocated L2 tables are 0, as is the header
        if not self.refcounts.counts(clusters).all():
            raise ImageError(f"the image {self.path} is damaged: some of its tables are counted as free")

    def roll_back(self, header: Header, size: int) -> None:
        """After a failed transaction: what is valid in the file is what counts; its new end is given back."""
        try:
            self.reload()
            if self.header == header:
                self.file.truncate(size)
        except (HostError, ImageError) as error:
            self._broken = HostError(f"the image {self.path} cannot be used any more: {error}")

    def table_at(self, entry: int) -> L2Table | None:
        """The L2 table of an L1 entry, if there is one.  Raises ImageError."""
        if not entry:
            return None
        if entry & L1_RESERVED:
            raise ImageError(f"the image {self.path} is damaged: an L1 entry is {entry:#x}")
        offset = entry & OFFSET_MASK
        return self.l2.get(offset) if offset else None

    def writable_table(self, index: int) -> L2Table:
        """The L2 table of the active entry ``index``, made or copied first where it has to be.  Raises HostError."""
        entry = int(self.l1[index])
        table = self.table_at(entry)
        if table is not None and entry & COPIED:
            return table
        first, _ = self.refcounts.allocate(1)
        try:
            new = self.l2.create(first << self.cluster_bits, None if table is None else table.values.copy())
        except HostError:
            self.refcounts.give_back(first, 1)
            raise
        if table is not None:
            self.refcounts.release_later(np.array([table.offset >> self.cluster_bits]))
        self.l1[index] = new.offset | COPIED
        self._l1_dirty.add(index)
        return new

    def relieve(self) -> None:
        """Between two slices of a request: keeps the caches within bounds."""
        if self.l2.is_crowded or self.refcounts.is_crowded:
            self.write_tables()
            self.l2.shrink()
            self.refcounts.shrink()

    def write_tables(self) -> None:
        """Reference counts, then L2, then L1.  A failure half-way leaves a sound image, and may be tried again."""
        if self.refcounts.needs_switch:
            try:
                self.refcounts.relocate()
                self.refcounts.write_relocated()
                self.switch(self.header)
            except TimevmError as error:
                self._broken = error
                raise
        else:
            self.refcounts.write_back()
        if self.l2.is_dirty or self._l1_dirty:
            # new L2 tables were written when they were made: L1 may get to the disk before their latest entries
            self._sync()
            self.l2.write_back()
            for index in sorted(self._l1_dirty):
                self.file.write(self.header.l1_offset + index * 8, encode(self.l1[index : index + 1]))
            self._l1_dirty.clear()

    def settle(self) -> None:
        """Everything is in the file, and nothing that was released is still counted."""
        while True:
            self.flush()
            if not self.refcounts.cached_dirty:
                return

    def switch(self, header: Header) -> None:
        """Makes fresh tables the valid ones: all that lies before this is on the disk before it, and itself after."""
        refcounts = self.refcounts
        header = replace(
            header,
            refcount_table_offset=refcounts.table_offset,
            refcount_table_clusters=refcounts.table_clusters,
        )
        self._sync()
        features = header.incompatible.to_bytes(8, "big") if header.version >= 3 else b""
        self.file.write(SIZE_AT, header.switch_fields() + features)
        self._sync()
        self.header = header
        refcounts.switched()

    def _sync(self) -> None:
        if self.durable:
            self.file.sync()

    def _check_usable(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.header.size:
            raise UserError(f"bytes {offset} … {offset + length} are not on the disk of {self.header.size} bytes")
