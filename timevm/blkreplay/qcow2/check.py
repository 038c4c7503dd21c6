"""Is an image consistent?  Counts every reference anew and compares; repairs counts and flags on request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from timevm.blkreplay.image_errors import ImageError
from timevm.blkreplay.qcow2.entries import (
    COMPRESSED,
    COPIED,
    L1_RESERVED,
    OFFSET_MASK,
    ZERO,
    Indexes,
    Kind,
    Table,
    decode,
    kinds_of,
    owned,
    referenced_clusters,
)
from timevm.blkreplay.qcow2.layout import Autoclear, Incompatible
from timevm.blkreplay.qcow2.transaction import has_doubles, load_l1, transaction
from timevm.errors import UserError

if TYPE_CHECKING:
    from timevm.blkreplay.qcow2.image import Qcow2Image

#: host clusters whose references are counted at once: 512 MiB of counters, 8 TiB of file with clusters of 64 KiB
MOST_CLUSTERS = 1 << 27
#: each contradiction is counted, but only so many are told one by one
MOST_MESSAGES = 100_000
#: bytes of a bitmap's directory that are looked at
_BITMAP_DIRECTORY_LIMIT = 64 << 20


@dataclass(slots=True)
class CheckResult:
    """``corruptions``: contradictions that can cost data; ``leaks``: clusters counted but not used."""

    total_clusters: int
    allocated_clusters: int = 0
    fragmented_clusters: int = 0
    compressed_clusters: int = 0
    image_end_offset: int = 0
    corruptions: int = 0
    leaks: int = 0
    #: of the corruptions, those that a repair of counts and flags does not mend
    beyond_repair: int = 0
    messages: list[str] = field(default_factory=list)

    def error(self, text: str, *, lasting: bool = True) -> None:
        self.corruptions += 1
        self.beyond_repair += lasting
        self.tell(text)

    def tell(self, text: str) -> None:
        if len(self.messages) < MOST_MESSAGES:
            self.messages.append(text)
        elif len(self.messages) == MOST_MESSAGES:
            self.messages.append(f"more than {MOST_MESSAGES} contradictions: the rest is counted only")


def check(image: Qcow2Image) -> CheckResult:
    """Reads all tables.  Costs 4 bytes of memory a host cluster.  Raises UserError (file too large), HostError."""
    result = CheckResult(total_clusters=-(-image.size // image.cluster_size))
    _compare(image, _count_used(image, result), result)
    _check_flags(image, result)
    return result


def repair(image: Qcow2Image, *, everything: bool) -> CheckResult:
    """Counts down leaks; with ``everything`` corrects counts and flags, and clears the dirty and corrupt marks.

    All at once, or nothing.  The result is of the check before.  Raises ImageError where tables are damaged in a way
    that no count can mend, UserError, HostError.
    """
    result = check(image)
    if result.corruptions and not everything:
        return result
    if result.beyond_repair:
        raise ImageError(f"the image {image.path} cannot be repaired: {result.messages[0]}")
    header = image.header
    if not (result.corruptions or result.leaks or header.is_dirty or header.is_corrupt):
        return result
    with transaction(image, repairing=True) as change:
        counts = np.zeros(_most_clusters(image), dtype=np.uint32)
        for clusters in _references(image, None, blocks=False):
            np.add.at(counts, clusters, 1)
        change.refcounts.set_all(counts)
        marks = int(Incompatible.DIRTY | Incompatible.CORRUPT)
        image.header = replace(header, incompatible=header.incompatible & ~marks)
        change.finish(image.l1, image.records)
    return result


def _most_clusters(image: Qcow2Image) -> int:
    """How many host clusters there can be."""
    clusters = -(-image.file.size // image.cluster_size)
    if clusters > MOST_CLUSTERS:
        raise UserError(f"the image {image.path} has too many clusters to be checked ({clusters})")
    return clusters


def _count_used(image: Qcow2Image, result: CheckResult) -> npt.NDArray[np.uint32]:
    """How often each host cluster is used."""
    used = np.zeros(_most_clusters(image), dtype=np.uint32)
    for found in _references(image, result, blocks=True):
        outside = (found < 0) | (found >= len(used))
        for cluster in np.unique(found[outside]).tolist():
            result.error(f"ERROR: a cluster behind the end of the file is used: {cluster << image.cluster_bits:#x}")
        np.add.at(used, found[~outside], 1)
    return used


def _compare(image: Qcow2Image, used: npt.NDArray[np.uint32], result: CheckResult) -> None:
    """Against what the image counts, block by block."""
    for first in range(0, len(used), image.refcounts.per_block):
        need = used[first : first + image.refcounts.per_block].astype(np.uint64)
        have = np.zeros_like(need)
        try:
            have = image.refcounts.counts(np.arange(first, first + len(need)))
        except ImageError as error:
            result.error(f"ERROR {error}")
        in_use = np.flatnonzero(have | need)
        if len(in_use):
            result.image_end_offset = (first + int(in_use[-1]) + 1) << image.cluster_bits
        for index in np.flatnonzero(have != need).tolist():
            text = f"cluster {first + index} refcount={have[index]} reference={need[index]}"
            if have[index] < need[index]:
                result.error(f"ERROR {text}", lasting=False)
            else:
                result.leaks += 1
                result.tell(f"Leaked {text}")


def _references(image: Qcow2Image, result: CheckResult | None, *, blocks: bool) -> Iterator[Indexes]:
    """Host clusters, each as often as something refers to it; what cannot be is noted in ``result``, or raised."""
    header, bits = image.header, image.cluster_bits
    yield np.array([0])
    if blocks:
        yield _range(image, header.refcount_table_offset, header.refcount_table_clusters << bits)
        yield image.refcounts.block_clusters()
    yield _range(image, header.l1_offset, header.l1_entries * 8)
    yield from _tree(image, image.l1, result, active=True)
    seen: set[int] = set()
    for record in image.records:
        if record.l1_offset in seen:
            _note(result, ImageError(f"snapshot {record.id} has the L1 table of another"))
            continue
        seen.add(record.l1_offset)
        try:
            l1 = load_l1(image, record)
        except ImageError as error:
            _note(result, error)
            continue
        yield _range(image, record.l1_offset, record.l1_entries * 8)
        yield from _tree(image, l1, result, active=False)
    if image.records:
        yield _range(image, header.snapshots_offset, image.snapshot_table_bytes)
    try:
        yield from _bitmaps(image)
    except ImageError as error:
        _note(result, error)


def _note(result: CheckResult | None, error: ImageError) -> None:
    if result is None:
        raise error
    result.error(f"ERROR {error}")


def _range(image: Qcow2Image, offset: int, length: int) -> Indexes:
    return np.arange(offset >> image.cluster_bits, (offset + length + image.cluster_size - 1) >> image.cluster_bits)


def _tree(image: Qcow2Image, l1: Table, result: CheckResult | None, *, active: bool) -> Iterator[Indexes]:
    if has_doubles(l1):
        _note(result, ImageError("an L1 table has one L2 table twice"))
        l1 = np.unique(l1)
    for entry in l1[l1 != 0].tolist():
        try:
            if entry & L1_RESERVED or not entry & OFFSET_MASK:
                raise ImageError(f"an L1 entry is {entry:#x}")
            table = image.table_at(entry)
            assert table is not None
            _check_entries(image, table.values)
        except ImageError as error:
            _note(result, error)
            continue
        yield np.array([table.offset >> image.cluster_bits])
        yield referenced_clusters(table.values, image.cluster_bits)
        if active and result is not None:
            _count_allocated(image, table.values, result)


def _check_entries(image: Qcow2Image, values: Table) -> None:
    bad = OFFSET_MASK & (image.cluster_size - 1) | (ZERO if image.header.version < 3 else 0)
    standard = (values & np.uint64(COMPRESSED)) == 0
    wrong = standard & ((values & np.uint64(bad)) != 0)
    if wrong.any():
        raise ImageError(f"an L2 entry is {int(values[wrong][0]):#x}")


def _count_allocated(image: Qcow2Image, values: Table, result: CheckResult) -> None:
    kinds = kinds_of(values)
    compressed = kinds == Kind.COMPRESSED
    places = (values & np.uint64(OFFSET_MASK))[owned(values)]
    result.compressed_clusters += int(compressed.sum())
    result.allocated_clusters += len(places) + int(compressed.sum())
    steps = places[1:] - places[:-1]
    result.fragmented_clusters += int((steps != image.cluster_size).sum()) + int(compressed.sum())


def _check_flags(image: Qcow2Image, result: CheckResult) -> None:
    """COPIED must say exactly whether a count is 1."""
    bits = image.cluster_bits
    for entry in np.unique(image.l1[image.l1 != 0]).tolist():
        try:
            table = image.table_at(entry)
            if table is None:
                continue
            count = image.refcounts.count(table.offset >> bits)
            if (count == 1) != bool(entry & COPIED):
                result.error(f"ERROR OFLAG_COPIED L2 cluster: l1_entry={entry:x} refcount={count}", lasting=False)
            have = table.values[owned(table.values)]
            counts = image.refcounts.counts(((have & np.uint64(OFFSET_MASK)) >> np.uint64(bits)).astype(np.int64))
            wrong = (counts == 1) != ((have & np.uint64(COPIED)) != 0)
            for value, number in zip(have[wrong].tolist(), counts[wrong].tolist(), strict=True):
                text = f"ERROR OFLAG_COPIED data cluster: l2_entry={value:x} refcount={number}"
                result.error(text, lasting=False)
        except ImageError:
            continue  # noted already


def _bitmaps(image: Qcow2Image) -> Iterator[Indexes]:
    """What the dirty bitmaps of QEMU use: directory, tables, data.  timevm leaves them alone."""
    if image.header.bitmap_directory is None or not image.header.autoclear & Autoclear.BITMAPS:
        return
    offset, size, count = image.header.bitmap_directory
    if size > min(_BITMAP_DIRECTORY_LIMIT, image.file.size) or offset % image.cluster_size:
        raise ImageError("the bitmap directory is too large")
    yield _range(image, offset, size)
    directory, at = image.file.read(offset, size), 0
    for _ in range(count):
        if at + 24 > len(directory):
            raise ImageError("the bitmap directory is cut short")
        table_offset = int.from_bytes(directory[at : at + 8], "big")
        entries = int.from_bytes(directory[at + 8 : at + 12], "big")
        name_size = int.from_bytes(directory[at + 18 : at + 20], "big")
        extra_size = int.from_bytes(directory[at + 20 : at + 24], "big")
        if entries * 8 > image.file.size or table_offset % image.cluster_size or table_offset >= image.file.size:
            raise ImageError("a bitmap's table is too large")
        at += 24 + name_size + extra_size
        at += -at % 8
        yield _range(image, table_offset, entries * 8)
        table = decode(image.file.read(table_offset, entries * 8)) & np.uint64(OFFSET_MASK)
        yield (table[table != 0] >> np.uint64(image.cluster_bits)).astype(np.int64)
