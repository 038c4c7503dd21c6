"""Which disk is it?  A digest of what a guest reads from a node: equal contents have equal digests, wherever they lie.

Up to ``FULL`` bytes of data everything is read (about 4 GB/s when the host has it in memory), in pieces of 1 MiB; those
of zeroes do not count: a sparse image costs what is in it, and a copy in another format is the same disk.

A larger disk would cost seconds at every start.  Of it are hashed: where the data is (qcow2: all tables), the first
16 MiB, and a piece of each of 256 places.  A file whose data can be overwritten in place also has its size and the time
of its last modification in the digest: nobody, a guest neither, changes the data without changing those.  An internal
snapshot needs no time: qcow2 never overwrites what a snapshot refers to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import xxhash

from timevm.blkreplay.host_file import HostFile
from timevm.blkreplay.node import BlockNode
from timevm.blkreplay.qcow2.entries import COPIED, Kind, Table, kinds_of
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.blkreplay.qcow2.snapshot_operations import SnapshotReader
from timevm.blkreplay.raw import RawImage
from timevm.blkreplay.zeroes import is_zero
from timevm.errors import HostError

#: bytes of data up to which all of it is read
FULL = 1 << 30
PIECE = 1 << 20
#: of a larger disk: pieces at its beginning, and places elsewhere with their bytes
FIRST_PIECES, PLACES, PLACE_BYTES = 16, 256, 65536

Pieces = npt.NDArray[np.int64]


def content_digest(node: BlockNode, *, full: int = FULL) -> str:
    """Lower-case hexadecimal digits.  Raises HostError, UserError (a damaged image)."""
    hasher = xxhash.xxh3_128(node.size.to_bytes(8, "little"))
    pieces = np.unique(np.concatenate([np.zeros(0, np.int64), *_data_pieces(node)]))
    if len(pieces) * PIECE <= full:
        _feed(hasher, node, pieces, PIECE)
        return hasher.hexdigest()
    hasher.update(b"large")
    hasher.update(pieces.tobytes())
    for table in _tables(node):
        hasher.update(table)
    for file in _overwritten_in_place(node):
        hasher.update(_stamp(file))
    _feed(hasher, node, pieces[:FIRST_PIECES], PIECE)
    _feed(hasher, node, pieces[FIRST_PIECES :: max(1, len(pieces) // PLACES)], PLACE_BYTES)
    return hasher.hexdigest()


def _feed(hasher: xxhash.xxh3_128, node: BlockNode, pieces: Pieces, length: int) -> None:
    for piece in pieces.tolist():
        data = node.read(piece * PIECE, min(length, node.size - piece * PIECE))
        if not is_zero(data):
            hasher.update(piece.to_bytes(8, "little"))
            hasher.update(data)


def _layer(node: BlockNode) -> tuple[Qcow2Image, Table] | None:
    """The image and the L1 table that a qcow2 node reads through."""
    if isinstance(node, SnapshotReader):
        return node.image, node.l1
    return (node, node.l1) if isinstance(node, Qcow2Image) else None


def _l2_tables(image: Qcow2Image, l1: Table) -> Iterator[tuple[int, Table]]:
    """(number of its first cluster, entries) of each L2 table that is there."""
    for index in np.flatnonzero(l1).tolist():
        table = image.table_at(int(l1[index]))
        if table is not None:
            yield index << image.l2_bits, table.values
            image.l2.shrink()


def _data_pieces(node: BlockNode) -> Iterator[Pieces]:
    """Numbers of the pieces that may hold data, in any order and more than once."""
    layer = _layer(node)
    if layer is not None:
        image, l1 = layer
        per_cluster = np.arange(max(1, image.cluster_size // PIECE))
        for first, entries in _l2_tables(image, l1):
            kinds = kinds_of(entries)
            clusters = first + np.flatnonzero((kinds == Kind.DATA) | (kinds == Kind.COMPRESSED))
            pieces = (clusters * image.cluster_size // PIECE)[:, None] + per_cluster
            yield pieces[pieces * PIECE < node.size]
        if image.backing is not None:
            for pieces in _data_pieces(image.backing):
                yield pieces[pieces * PIECE < node.size]
    elif isinstance(node, RawImage):
        yield from _data_of_file(node.file, node.size)
    else:
        yield np.arange(-(-node.size // PIECE))


def _data_of_file(file: HostFile, size: int) -> Iterator[Pieces]:
    """Where a sparse file is not a hole."""
    at = 0
    while at < size:
        try:
            begin = os.lseek(file.descriptor, at, os.SEEK_DATA)
            end = os.lseek(file.descriptor, begin, os.SEEK_HOLE)
        except OSError:
            return  # nothing but a hole
        yield np.arange(begin // PIECE, -(-min(end, size) // PIECE))
        at = end


def _tables(node: BlockNode) -> Iterator[bytes]:
    layer = _layer(node)
    if layer is not None:
        image, l1 = layer
        for first, entries in _l2_tables(image, l1):
            yield first.to_bytes(8, "little")
            yield (entries & ~np.uint64(COPIED)).tobytes()
        if image.backing is not None:
            yield from _tables(image.backing)


def _overwritten_in_place(node: BlockNode) -> Iterator[HostFile]:
    if isinstance(node, RawImage | Qcow2Image):
        yield node.file
    layer = _layer(node)
    if layer is not None and layer[0].backing is not None:
        yield from _overwritten_in_place(layer[0].backing)


def _stamp(file: HostFile) -> bytes:
    try:
        found = os.fstat(file.descriptor)
    except OSError as error:
        raise HostError(f"the image {file.path} cannot be looked at: {error.strerror}") from error
    return found.st_size.to_bytes(8, "little") + found.st_mtime_ns.to_bytes(16, "little", signed=True)
