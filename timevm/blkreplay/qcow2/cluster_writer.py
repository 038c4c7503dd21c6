"""Writing, zeroing and discarding guest clusters of the active state."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from timevm.blkreplay.image_errors import ImageError
from timevm.blkreplay.qcow2 import cluster_reader
from timevm.blkreplay.qcow2.entries import (
    COMPRESSED,
    COPIED,
    OFFSET_MASK,
    ZERO,
    Kind,
    Table,
    kind_of,
    referenced_clusters,
)
from timevm.blkreplay.qcow2.l2_cache import L2Table
from timevm.blkreplay.zeroes import is_zero
from timevm.errors import TimevmError

if TYPE_CHECKING:
    from timevm.blkreplay.qcow2.image import Qcow2Image


def write(image: Qcow2Image, offset: int, data: bytes) -> None:
    """Raises HostError; what was covered is then undefined, everything else as before."""
    view = memoryview(data)
    bits = image.cluster_bits
    for index, start, stop in _slices(image, offset, offset + len(data)):
        table = image.writable_table(index)
        base = index << (bits + image.l2_bits)
        first, last = (start - base) >> bits, (stop - 1 - base) >> bits
        entries = cluster_reader.checked(image, table.values[first : last + 1])
        for begin, end, in_place in _rows(entries, image.cluster_size):
            low = max(start, base + ((first + begin) << bits))
            high = min(stop, base + ((first + end) << bits))
            part = view[low - offset : high - offset]
            if in_place:
                host = int(entries[begin]) & OFFSET_MASK
                _check_overlap(image, host, end - begin)
                image.file.write(host + (low & (image.cluster_size - 1)), part)
            else:
                _write_new(image, table, first + begin, first + end, base, low, part)
        image.relieve()


def write_zeroes(image: Qcow2Image, offset: int, length: int, *, unmap: bool) -> None:
    """Partly covered clusters get zeroes written unless they read so; whole ones change their entries only."""
    for start, stop, whole in _by_clusters(image, offset, offset + length):
        if not whole:
            if not is_zero(image.read(start, stop - start)):
                write(image, start, bytes(stop - start))
        elif image.header.version >= 3:
            _change_entries(image, start, stop, ZERO, keep_place=not unmap)
        elif image.backing is None:
            _change_entries(image, start, stop, 0, keep_place=False)
        else:  # version 2 has no zero clusters, and without an entry the backing file would show
            for at in range(start, stop, 1 << 20):
                write(image, at, bytes(min(1 << 20, stop - at)))


def discard(image: Qcow2Image, offset: int, length: int) -> None:
    """Whole clusters only; they read as zeroes afterwards, whatever a backing file holds."""
    for start, stop, whole in _by_clusters(image, offset, offset + length):
        if whole:
            if image.backing is None:
                _change_entries(image, start, stop, 0, keep_place=False)
            else:
                write_zeroes(image, start, stop - start, unmap=True)


def _slices(image: Qcow2Image, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """By L2 table: L1 index, first byte, byte behind the last."""
    bits = image.cluster_bits + image.l2_bits
    while offset < end:
        index = offset >> bits
        stop = min(end, (index + 1) << bits)
        yield index, offset, stop
        offset = stop


def _by_clusters(image: Qcow2Image, offset: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Head, whole clusters, tail.  The disk's last cluster is whole even where the disk ends within it."""
    size = image.cluster_size
    first = offset + -offset % size
    last = end if end == image.size else end - end % size
    if first >= last:
        if offset < end:
            yield offset, end, offset % size == 0 and end == image.size
        return
    if offset < first:
        yield offset, first, False
    yield first, last, True
    if last < end:
        yield last, end, False


def _rows(entries: Table, cluster_size: int) -> Iterator[tuple[int, int, bool]]:
    """Rows that can be written at once: in place where they lie in a row in the file, and those to be placed anew."""
    if len(entries) == 1:
        entry = int(entries[0])
        yield 0, 1, bool(entry & COPIED) and kind_of(entry) == Kind.DATA
        return
    standard = (entries & np.uint64(COMPRESSED | ZERO)) == 0
    in_place = standard & ((entries & np.uint64(COPIED)) != 0) & ((entries & np.uint64(OFFSET_MASK)) != 0)
    breaks = in_place[1:] != in_place[:-1]
    breaks |= in_place[1:] & ((entries[1:] - entries[:-1]) != cluster_size)
    starts = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(entries)]
    for begin, end in pairwise(starts):
        yield begin, end, bool(in_place[begin])


def _write_new(image: Qcow2Image, table: L2Table, begin: int, end: int, base: int, low: int, part: memoryview) -> None:
    """Entries ``begin`` … ``end`` get clusters of their own, with ``part`` at byte ``low`` and else what was there."""
    bits = image.cluster_bits
    high = low + len(part)
    while begin < end:
        first, count = image.refcounts.allocate(end - begin)
        host = first << bits
        start = base + (begin << bits)
        stop = start + (count << bits)
        inner = part[max(start, low) - low : min(stop, high) - low]
        try:
            head = _fill(image, table, start, low) if low > start else b""
            tail = _fill(image, table, high, stop) if high < stop else b""
            if host >= image.file.size:  # a hole reads as zeroes: nothing has to be written there
                if is_zero(head):
                    host, head = host + len(head), b""
                if is_zero(tail):
                    tail = b""
            image.file.write(host, *(piece for piece in (head, inner, tail) if len(piece)))
        except TimevmError:
            image.refcounts.give_back(first, count)
            raise
        places = (np.arange(first, first + count, dtype=np.uint64) << np.uint64(bits)) | np.uint64(COPIED)
        image.refcounts.release_later(referenced_clusters(table.values[begin : begin + count], bits))
        table.values[begin : begin + count] = places
        image.l2.touch(table, begin, begin + count)
        begin += count


def _fill(image: Qcow2Image, table: L2Table, start: int, stop: int) -> bytes:
    """What the guest sees within one cluster; behind the end of the disk, zeroes."""
    there = min(stop, image.size)
    index = (start >> image.cluster_bits) & ((1 << image.l2_bits) - 1)
    entry = int(table.values[index])
    if there <= start or kind_of(entry) == Kind.ZERO or (kind_of(entry) == Kind.UNALLOCATED and image.backing is None):
        return bytes(stop - start)
    return image.read(start, there - start).ljust(stop - start, b"\0")


def _change_entries(image: Qcow2Image, start: int, stop: int, entry: int, *, keep_place: bool) -> None:
    """Whole clusters get ``entry``; ``keep_place``: those with a place of their own keep it, for later."""
    bits = image.cluster_bits
    for index, low, high in _slices(image, start, stop):
        if not int(image.l1[index]) and image.backing is None:
            continue
        table = image.table_at(int(image.l1[index]))
        base = index << (bits + image.l2_bits)
        first, last = (low - base) >> bits, (high - 1 - base) >> bits
        if table is not None:
            old = cluster_reader.checked(image, table.values[first : last + 1])
            if image.backing is None and not old.any():
                continue
        table = image.writable_table(index)
        old = table.values[first : last + 1]
        new = np.full(len(old), entry, dtype=np.uint64)
        if image.backing is None:
            new[old == 0] = 0  # reads as zeroes already
        if keep_place:
            keep = ((old & np.uint64(COPIED)) != 0) & ((old & np.uint64(COMPRESSED)) == 0)
            new[keep] = old[keep] | np.uint64(entry)
        gone = old[(new & np.uint64(OFFSET_MASK)) == 0]
        image.refcounts.release_later(referenced_clusters(gone, bits))
        table.values[first : last + 1] = new
        image.l2.touch(table, first, last + 1)
        image.relieve()


def _check_overlap(image: Qcow2Image, host: int, count: int) -> None:
    """A damaged table must not make us write guest data over tables, or far behind the end of the file.

    Costs some 10 µs a row of an ordinary image.
    """
    low, high = host, host + (count << image.cluster_bits)
    header, refcounts = image.header, image.refcounts
    l1_end = header.l1_offset + header.l1_entries * 8
    table_end = refcounts.table_offset + (refcounts.table_clusters << image.cluster_bits)
    snapshots_end = header.snapshots_offset + image.snapshot_table_bytes
    hit = (
        low < image.cluster_size
        or (low < l1_end and header.l1_offset < high)
        or (low < table_end and refcounts.table_offset < high)
        or (low < snapshots_end and header.snapshots_offset < high)
    )
    if not hit:
        places = refcounts.table
        hit = bool(((places >= low) & (places < high)).any())
    if not hit:
        places = image.l1 & np.uint64(OFFSET_MASK)
        hit = bool(((places >= low) & (places < high)).any())
    if low >= image.file.size:
        raise ImageError(
            f"the image {image.path} is damaged: a cluster would be at {low:#x}, behind the end of the file"
        )
    if hit:
        raise ImageError(f"the image {image.path} is damaged: guest data would be written over its tables at {low:#x}")
