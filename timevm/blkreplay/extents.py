"""Where an image's bytes come from: extents through the chain of backing files, as ``qemu-img map`` tells them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from timevm.blkreplay.node import BlockNode
from timevm.blkreplay.qcow2.cluster_reader import checked
from timevm.blkreplay.qcow2.entries import OFFSET_MASK, Kind, Table, runs_of
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.blkreplay.raw import RawImage


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes of one origin.

    ``depth``: 0 for the image itself, 1 for its backing file …; ``present``: that file has an entry for them;
    ``zero``: they read as zeroes; ``data``: they take space there; ``offset``: where in the file ``path``, if they lie
    there as they are.
    """

    start: int
    length: int
    depth: int
    present: bool
    zero: bool
    data: bool
    offset: int | None
    path: Path | None

    def joins(self, later: Extent) -> bool:
        """Both are one extent."""
        if self.offset is not None and later.offset is not None:
            follows = self.offset + self.length == later.offset
        else:
            follows = self.offset is None and later.offset is None
        mine = (self.depth, self.present, self.zero, self.data, self.path)
        return follows and mine == (later.depth, later.present, later.zero, later.data, later.path)


def extents(node: BlockNode, start: int = 0, end: int | None = None) -> Iterator[Extent]:
    """Of bytes ``start`` … ``end``, joined where they can be.  Raises ImageError, HostError."""
    before: Extent | None = None
    for extent in _extents(node, start, node.size if end is None else min(end, node.size), 0):
        if before is None:
            before = extent
        elif before.joins(extent):
            before = replace(before, length=before.length + extent.length)
        else:
            yield before
            before = extent
    if before is not None:
        yield before


def _extents(node: BlockNode, start: int, end: int, depth: int) -> Iterator[Extent]:
    if isinstance(node, Qcow2Image):
        yield from _qcow2_extents(node, start, end, depth)
    elif isinstance(node, RawImage):
        for low, high, data in _file_parts(node.file.descriptor, start, end):
            yield Extent(low, high - low, depth, True, not data, data, low, node.path)
    elif start < end:
        yield Extent(start, end - start, depth, True, False, True, None, None)


def _file_parts(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Data and holes, as far as the host's file system knows."""
    while start < end:
        try:
            data = os.lseek(descriptor, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # this file system does not know
                yield start, end, True
                return
            data = end
        if data > start:
            yield start, min(data, end), False
        if data >= end:
            return
        hole = min(end, os.lseek(descriptor, data, os.SEEK_HOLE))
        yield data, hole, True
        start = hole


def _qcow2_extents(image: Qcow2Image, start: int, end: int, depth: int) -> Iterator[Extent]:
    bits, table_bits = image.cluster_bits, image.cluster_bits + image.l2_bits
    sparse = is_preallocated(image)
    while start < end:
        index = start >> table_bits
        stop = min(end, (index + 1) << table_bits)
        table = image.table_at(int(image.l1[index]))
        if table is None:
            yield from _behind(image, start, stop, depth)
            start = stop
            continue
        base = index << table_bits
        first, last = (start - base) >> bits, (stop - 1 - base) >> bits
        for run in runs_of(checked(image, table.values[first : last + 1]), image.cluster_size):
            run_start = base + ((first + run.first) << bits)
            low, high = max(start, run_start), min(stop, run_start + (run.count << bits))
            if run.kind == Kind.UNALLOCATED:
                yield from _behind(image, low, high, depth)
            elif run.kind == Kind.DATA and sparse:
                host = run.host + low - run_start
                for begin, finish, data in _file_parts(image.file.descriptor, host, host + high - low):
                    at = low + begin - host
                    yield Extent(at, finish - begin, depth, True, not data, True, begin, image.path)
            elif run.kind == Kind.DATA:
                yield Extent(low, high - low, depth, True, False, True, run.host + low - run_start, image.path)
            elif run.kind == Kind.ZERO:
                zeroes = table.values[first + run.first : first + run.first + run.count]
                yield from _zero_extents(image, depth, low, high, zeroes, run_start)
            else:
                yield Extent(low, high - low, depth, True, False, True, None, None)
        start = stop


def _zero_extents(
    image: Qcow2Image, depth: int, low: int, high: int, entries: Table, run_start: int
) -> Iterator[Extent]:
    """Zero clusters may keep a place in the file; ``entries`` begin at byte ``run_start`` of the disk."""
    hosts = entries & np.uint64(OFFSET_MASK)
    if not hosts.any():
        yield Extent(low, high - low, depth, True, True, False, None, None)
        return
    for number, host in enumerate(hosts.tolist()):
        at = run_start + (number << image.cluster_bits)
        begin, end = max(low, at), min(high, at + image.cluster_size)
        offset, path = (host + begin - at, image.path) if host else (None, None)
        yield Extent(begin, end - begin, depth, True, True, False, offset, path)


def _behind(image: Qcow2Image, low: int, high: int, depth: int) -> Iterator[Extent]:
    """Unallocated: what the backing file has there; behind its end, nothing."""
    covered = low if image.backing is None else min(high, max(low, image.backing.size))
    if image.backing is not None and covered > low:
        yield from _extents(image.backing, low, covered, depth + 1)
    if covered < high:
        yield Extent(covered, high - covered, depth, False, True, False, None, None)


def is_preallocated(image: Qcow2Image) -> bool:
    """The file takes clearly less space than its clusters: so its tables were made ahead, and holes are zeroes."""
    size = image.cluster_size
    real = image.file.allocated_bytes // size
    threshold = max(real * 10 // 9, real + 2)
    clusters = -(-image.file.size // size)
    if clusters < threshold:
        return False
    counted = 0
    step = image.refcounts.per_block
    for first in range(0, clusters, step):
        part = np.arange(first, min(first + step, clusters))
        counted += int((image.refcounts.counts(part) != 0).sum())
        if counted >= threshold:
            return True
    return False
