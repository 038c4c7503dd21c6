"""Reading guest clusters through an L1 table, the active one or a snapshot's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from timevm.blkreplay.image_errors import ImageError
from timevm.blkreplay.node import BlockNode
from timevm.blkreplay.qcow2.compressed import read_compressed
from timevm.blkreplay.qcow2.entries import COMPRESSED, OFFSET_MASK, ZERO, Kind, Table, runs_of

if TYPE_CHECKING:
    from timevm.blkreplay.qcow2.image import Qcow2Image


def read(image: Qcow2Image, l1: Table, offset: int, length: int, backing: BlockNode | None) -> bytes:
    """``length`` bytes from ``offset``, which may lie behind the disk (VM state).  Raises ImageError, HostError."""
    parts: list[bytes] = []
    bits, end = image.cluster_bits, offset + length
    table_bits = bits + image.l2_bits
    while offset < end:
        index = offset >> table_bits
        stop = min(end, (index + 1) << table_bits)
        table = image.table_at(int(l1[index])) if index < len(l1) else None
        if table is None:
            parts.append(read_backing(backing, offset, stop - offset))
        else:
            first = (offset - (index << table_bits)) >> bits
            last = (stop - 1 - (index << table_bits)) >> bits
            _read_slice(image, checked(image, table.values[first : last + 1]), offset, stop, backing, parts)
        offset = stop
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _read_slice(
    image: Qcow2Image, entries: Table, offset: int, end: int, backing: BlockNode | None, parts: list[bytes]
) -> None:
    bits = image.cluster_bits
    base = offset >> bits << bits
    for run in runs_of(entries, image.cluster_size):
        start = max(offset, base + (run.first << bits))
        stop = min(end, base + ((run.first + run.count) << bits))
        within = start - base - (run.first << bits)
        if run.kind == Kind.DATA:
            parts.append(image.file.read(run.host + within, stop - start))
        elif run.kind == Kind.ZERO:
            parts.append(bytes(stop - start))
        elif run.kind == Kind.UNALLOCATED:
            parts.append(read_backing(backing, start, stop - start))
        else:
            parts.append(_decompressed(image, run.host)[within : within + stop - start])


def read_backing(backing: BlockNode | None, offset: int, length: int) -> bytes:
    """What an unallocated range reads as; a backing file may be shorter than the image."""
    if backing is None or offset >= backing.size:
        return bytes(length)
    there = min(length, backing.size - offset)
    return backing.read(offset, there).ljust(length, b"\0")


def checked(image: Qcow2Image, entries: Table) -> Table:
    """Raises ImageError for entries that no sound image has."""
    bad = OFFSET_MASK & (image.cluster_size - 1)
    if image.header.version < 3:
        bad |= ZERO
    if len(entries) == 1:
        entry = int(entries[0])
        if entry & COMPRESSED or not entry & bad:
            return entries
    standard = entries[(entries & np.uint64(COMPRESSED)) == 0]
    if bool((standard & np.uint64(bad)).any()):
        raise ImageError(f"the image {image.path} is damaged: an L2 table has an entry that cannot be")
    return entries


def _decompressed(image: Qcow2Image, entry: int) -> bytes:
    """The last one is kept: a guest reads a cluster in several requests."""
    if image.decompressed[0] != entry:
        image.decompressed = entry, read_compressed(image.file, entry, image.cluster_bits, image.header.compression)
    return image.decompressed[1]
