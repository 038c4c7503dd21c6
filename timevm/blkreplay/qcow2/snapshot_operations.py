"""Internal snapshots: save, apply, delete, and reading them without applying."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from timevm.blkreplay.image_errors import ImageError
from timevm.blkreplay.qcow2 import cluster_reader
from timevm.blkreplay.qcow2.entries import COPIED, OFFSET_MASK, ZERO, Kind, Table, encode, referenced_clusters, runs_of
from timevm.blkreplay.qcow2.layout import l1_entries_for
from timevm.blkreplay.qcow2.snapshot_table import SnapshotRecord
from timevm.blkreplay.qcow2.transaction import Transaction, load_l1, transaction
from timevm.blkreplay.zeroes import is_zero
from timevm.errors import InternalError, UserError

if TYPE_CHECKING:
    from timevm.blkreplay.qcow2.image import Qcow2Image

#: VM state is written in rows of this many bytes
_ROW_BYTES = 1 << 20
_LONGEST_NAME = 0xFFFF
#: VM state is read in pieces of this many bytes
_READ_BYTES = 4 << 20
#: bytes of zeroes in a VM state that become zero clusters; more are written, so that no small file claims much memory
SPARSE_STATE_LIMIT = 256 << 20


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A piece of VM state that is ``count`` clusters of the snapshot shared with, from its number ``first`` on."""

    first: int
    count: int


def save(
    image: Qcow2Image,
    tag: str,
    vm_state: Iterable[bytes | Unchanged],
    date: tuple[int, int],
    vm_clock_ns: int,
    icount: int,
    overlay: Mapping[int, bytes],
    share_with: str | None,
    *,
    replace_tag: bool,
    compare: bool,
) -> SnapshotRecord:
    """See Qcow2Image.save_snapshot."""
    if not tag or len(tag.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
        raise UserError("a snapshot's tag has 1 … 65535 bytes")
    shared = None if share_with is None else image.find_snapshot(share_with)
    with transaction(image) as change:
        replaced = [record for record in image.records if replace_tag and record.tag == tag]
        l1 = _disk_tables(image, change, overlay)
        entries, size = _store_state(image, change, vm_state, shared, compare=compare)
        l1 = np.concatenate((l1, entries))
        offset = change.place(encode(l1))
        record = SnapshotRecord(
            id=_new_id(image.records),
            tag=tag,
            date_seconds=date[0],
            date_nanoseconds=date[1],
            vm_clock_ns=vm_clock_ns,
            vm_state_size=size,
            disk_size=image.size,
            icount=icount,
            l1_offset=offset,
            l1_entries=len(l1),
        )
        for old in replaced:
            _drop(image, change, old)
        change.finish(image.l1, [*(kept for kept in image.records if kept not in replaced), record])
    return record


def apply(image: Qcow2Image, record: SnapshotRecord) -> None:
    """The active tables become the snapshot's, without its VM state."""
    with transaction(image) as change:
        disk = _disk_part(image, load_l1(image, record), record.disk_size) & ~np.uint64(COPIED)
        change.add_tree(disk)
        change.subtract_tree(image.l1)
        change.finish(disk, image.records, size=record.disk_size)


def delete(image: Qcow2Image, record: SnapshotRecord) -> None:
    with transaction(image) as change:
        _drop(image, change, record)
        change.finish(image.l1, [kept for kept in image.records if kept is not record])


def load_vm_state(image: Qcow2Image, record: SnapshotRecord) -> bytes:
    """Whole; ``record.vm_state_size`` bytes.  Raises ImageError, also for more zeroes than ``save`` writes sparsely."""
    if record.vm_state_size > SPARSE_STATE_LIMIT + 16 * image.file.size:
        raise ImageError(f"the image {image.path} is damaged: snapshot '{record.tag}' has no such amount of VM state")
    l1, start = _state_tables(image, record)
    return cluster_reader.read(image, l1, start, record.vm_state_size, None)


def vm_state_pieces(image: Qcow2Image, record: SnapshotRecord) -> Iterator[bytes]:
    """The same in pieces of some MiB.  Raises ImageError; never yields more than the tables describe."""
    l1, start = _state_tables(image, record)
    for at in range(0, record.vm_state_size, _READ_BYTES):
        length = min(_READ_BYTES, record.vm_state_size - at)
        yield cluster_reader.read(image, l1, start + at, length, None)


class StateReader:
    """Any part of a snapshot's VM state; good until the snapshot is deleted or the image closed."""

    def __init__(self, image: Qcow2Image, record: SnapshotRecord) -> None:
        """Raises ImageError."""
        self.size = record.vm_state_size
        self._image = image
        self._l1 = load_l1(image, record)
        table_bits = image.cluster_bits + image.l2_bits
        self._start = l1_entries_for(record.disk_size, image.cluster_bits) << table_bits
        if self._start + self.size > len(self._l1) << table_bits:
            raise ImageError(
                f"the image {image.path} is damaged: snapshot '{record.tag}' has less VM state than it says"
            )

    def read(self, offset: int, length: int) -> bytes:
        """As much of it as there is.  Raises ImageError."""
        length = max(0, min(length, self.size - offset))
        return cluster_reader.read(self._image, self._l1, self._start + offset, length, None) if length else b""


def _state_tables(image: Qcow2Image, record: SnapshotRecord) -> tuple[Table, int]:
    """The snapshot's L1 table, and at which byte of what it describes the VM state begins."""
    l1 = load_l1(image, record)
    table_bits = image.cluster_bits + image.l2_bits
    start = l1_entries_for(record.disk_size, image.cluster_bits) << table_bits
    if start + record.vm_state_size > len(l1) << table_bits:
        raise ImageError(f"the image {image.path} is damaged: snapshot '{record.tag}' has less VM state than it says")
    return l1, start


class SnapshotReader:
    """A BlockNode on a snapshot's disk; good until the snapshot is deleted or the image closed."""

    def __init__(self, image: Qcow2Image, record: SnapshotRecord) -> None:
        self._image, self._record = image, record
        self._l1 = _disk_part(image, load_l1(image, record), record.disk_size)

    @property
    def image(self) -> Qcow2Image:
        return self._image

    @property
    def l1(self) -> Table:
        """Of the disk as it was."""
        return self._l1

    @property
    def size(self) -> int:
        """Bytes; the disk's when the snapshot was taken."""
        return self._record.disk_size

    def read(self, offset: int, length: int) -> bytes:
        """Raises UserError for a range beyond the disk, or when the snapshot is gone."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise UserError(f"bytes {offset} … {offset + length} are not on the disk of {self.size} bytes")
        if self._record not in self._image.records:
            raise UserError(f"snapshot '{self._record.tag}' has been deleted")
        return cluster_reader.read(self._image, self._l1, offset, length, self._image.backing)

    def write(self, offset: int, data: bytes) -> None:
        raise self._refusal()

    def write_zeroes(self, offset: int, length: int, *, unmap: bool = True) -> None:
        raise self._refusal()

    def discard(self, offset: int, length: int) -> None:
        raise self._refusal()

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """The image stays open."""

    def _refusal(self) -> UserError:
        return UserError(f"snapshot '{self._record.tag}' cannot be written to")


def _new_id(records: Iterable[SnapshotRecord]) -> str:
    return str(
        1 + max((int(record.id) for record in records if record.id.isascii() and record.id.isdigit()), default=0)
    )


def _disk_part(image: Qcow2Image, l1: Table, disk_size: int) -> Table:
    entries = l1_entries_for(disk_size, image.cluster_bits)
    if entries > len(l1):
        raise ImageError(f"the image {image.path} is damaged: a snapshot's L1 table is too small for its disk")
    return l1[:entries].copy()


def _drop(image: Qcow2Image, change: Transaction, record: SnapshotRecord) -> None:
    if record in image.pinned:
        raise UserError(
            f"snapshot '{record.tag}' of {image.path} is in use: the disk is read from it. "
            "It can be deleted when this timevm has ended"
        )
    change.subtract_tree(load_l1(image, record))
    change.subtract_range(record.l1_offset, record.l1_entries * 8)


def _disk_tables(image: Qcow2Image, change: Transaction, overlay: Mapping[int, bytes]) -> Table:
    """The new snapshot's L1 entries for the disk, counted; where ``overlay`` has clusters, tables of its own."""
    l1 = image.l1[: image.state_index] & ~np.uint64(COPIED)
    if not overlay:
        change.add_tree(l1)
        return l1
    clusters = np.array(sorted(overlay), dtype=np.int64)
    if int(clusters[0]) < 0 or int(clusters[-1]) << image.cluster_bits >= image.size:
        raise UserError(f"an overlay has clusters outside the disk of {image.size} bytes")
    covered = set((clusters >> image.l2_bits).tolist())
    plain = l1.copy()
    plain[list(covered)] = 0
    change.add_tree(plain)
    for index in sorted(covered):
        table = image.table_at(int(l1[index]))
        values = np.zeros(1 << image.l2_bits, dtype=np.uint64) if table is None else table.values & ~np.uint64(COPIED)
        mine = clusters[clusters >> image.l2_bits == index]
        places = mine & ((1 << image.l2_bits) - 1)
        values[places] = 0
        change.refcounts.add(referenced_clusters(values, image.cluster_bits))
        values[places] = np.array(_store_clusters(image, change, [overlay[number] for number in mine.tolist()]))
        l1[index] = change.place_table(values)
    return l1


def _store_clusters(image: Qcow2Image, change: Transaction, pieces: list[bytes]) -> list[int]:
    """Writes clusters (the last bytes of a short one are zeroes) in rows; their offsets."""
    size = image.cluster_size
    offsets: list[int] = []
    while len(offsets) < len(pieces):
        first, count = change.refcounts.allocate(len(pieces) - len(offsets))
        row = pieces[len(offsets) : len(offsets) + count]
        if any(len(piece) > size for piece in row):
            raise UserError(f"an overlay has a cluster of more than {size} bytes")
        image.file.write(first << image.cluster_bits, *(piece.ljust(size, b"\0") for piece in row))
        offsets += [(first + number) << image.cluster_bits for number in range(count)]
    return offsets


def _store_state(
    image: Qcow2Image,
    change: Transaction,
    vm_state: Iterable[bytes | Unchanged],
    shared: SnapshotRecord | None,
    *,
    compare: bool,
) -> tuple[Table, int]:
    """L1 entries of the tables that hold the VM state, and its size.  Holds about a MiB of it at a time."""
    known = _known_clusters(image, shared) if compare and shared is not None else {}
    entries: list[int] = []
    size = 0
    for pieces in _rows_of_clusters(vm_state, image.cluster_size):
        if isinstance(pieces, Unchanged):
            entries += _share(image, change, pieces, shared)
            size += pieces.count * image.cluster_size
            continue
        size += sum(map(len, pieces))
        entries += _store_row(image, change, pieces, known, sparse=size <= SPARSE_STATE_LIMIT)
    per_table = 1 << image.l2_bits
    tables = []
    for first in range(0, len(entries), per_table):
        values = np.zeros(per_table, dtype=np.uint64)
        part = entries[first : first + per_table]
        values[: len(part)] = np.array(part, dtype=np.uint64)
        tables.append(change.place_table(values))
    return np.array(tables, dtype=np.uint64), size


def _store_row(
    image: Qcow2Image, change: Transaction, pieces: list[bytes], known: Mapping[bytes, int], *, sparse: bool
) -> list[int]:
    """An L2 entry for each piece: zero cluster, shared with an earlier snapshot, or written."""
    zero = ZERO if image.header.version >= 3 else 0
    entries = [-1] * len(pieces)
    for number, piece in enumerate(pieces):
        if sparse and is_zero(piece):
            entries[number] = zero
        elif known and len(piece) == image.cluster_size:
            host = known.get(xxhash.xxh3_128_digest(piece))
            if host is not None and image.file.read(host, len(piece)) == piece:
                entries[number] = host
    shared = [entry >> image.cluster_bits for entry in entries if entry > zero]
    change.refcounts.add(np.array(shared, dtype=np.int64))
    missing = [number for number, entry in enumerate(entries) if entry < 0]
    offsets = _store_clusters(image, change, [pieces[number] for number in missing])
    for number, offset in zip(missing, offsets, strict=True):
        entries[number] = offset
    return entries


def _share(image: Qcow2Image, change: Transaction, piece: Unchanged, shared: SnapshotRecord | None) -> list[int]:
    """L2 entries of the snapshot that is shared with, counted once more."""
    if shared is None:
        raise InternalError("VM state is said to be unchanged, but not since which snapshot")
    tables = load_l1(image, shared)[l1_entries_for(shared.disk_size, image.cluster_bits) :]
    per_table = 1 << image.l2_bits
    if piece.first < 0 or piece.first + piece.count > len(tables) * per_table:
        raise InternalError("VM state is said to be unchanged where the snapshot shared with has none")
    entries: list[int] = []
    while len(entries) < piece.count:
        number = piece.first + len(entries)
        place = number % per_table
        count = min(per_table - place, piece.count - len(entries))
        table = image.table_at(int(tables[number // per_table]) & OFFSET_MASK)
        if table is None:
            entries += [0] * count
            continue
        values = cluster_reader.checked(image, table.values)[place : place + count] & ~np.uint64(COPIED)
        change.refcounts.add(referenced_clusters(values, image.cluster_bits))
        entries += values.tolist()
    return entries


def _rows_of_clusters(chunks: Iterable[bytes | Unchanged], size: int) -> Iterator[list[bytes] | Unchanged]:
    """Cuts a stream into clusters, some at a time; the last may be shorter.  What is unchanged is passed on."""
    row: list[bytes] = []
    rest = b""
    for chunk in chunks:
        if isinstance(chunk, Unchanged):
            if rest:
                raise InternalError("VM state is said to be unchanged in the middle of a cluster")
            if row:
                yield row
                row = []
            yield chunk
            continue
        data = rest + chunk if rest else chunk
        whole = len(data) - len(data) % size
        for at in range(0, whole, size):
            row.append(data[at : at + size])
            if len(row) * size >= _ROW_BYTES:
                yield row
                row = []
        rest = data[whole:]
    if rest:
        row.append(rest)
    if row:
        yield row


def _known_clusters(image: Qcow2Image, record: SnapshotRecord) -> dict[bytes, int]:
    """Digest → place of each cluster of a snapshot's VM state.  Reads it: some 5 GB/s from the page cache."""
    known: dict[bytes, int] = {}
    l1 = load_l1(image, record)
    for entry in l1[l1_entries_for(record.disk_size, image.cluster_bits) :].tolist():
        table = image.table_at(entry & OFFSET_MASK)
        if table is None:
            continue
        for run in runs_of(cluster_reader.checked(image, table.values), image.cluster_size):
            if run.kind != Kind.DATA:
                continue
            for number in range(run.count):
                host = run.host + number * image.cluster_size
                known[xxhash.xxh3_128_digest(image.file.read(host, image.cluster_size))] = host
    return known
