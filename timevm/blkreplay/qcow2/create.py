"""New qcow2 images, laid out as qemu-img lays them out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from timevm.blkreplay.host_file import HostFile
from timevm.blkreplay.qcow2.entries import COPIED, encode
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.blkreplay.qcow2.layout import (
    L1_LIMIT,
    Compatible,
    Compression,
    Header,
    Incompatible,
    l1_entries_for,
    pack_header,
)
from timevm.blkreplay.qcow2.refcount_codec import decode as decode_counts
from timevm.blkreplay.qcow2.refcount_codec import encode as encode_counts
from timevm.errors import UserError


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """What a new image is like; qemu-img's defaults.  The size is rounded up to whole sectors of 512 bytes."""

    size: int
    version: int = 3
    cluster_size: int = 65536
    refcount_bits: int = 16
    lazy_refcounts: bool = False
    backing_file: str | None = None
    backing_format: str | None = None
    preallocate_metadata: bool = False
    #: of compressed clusters
    compression: Compression = Compression.ZLIB


def create_image(path: Path | str, options: CreateOptions) -> None:
    """Creates or replaces ``path``: header, reference count table, its first block, L1 table.

    Raises UserError for options that do not go together (in qemu-img's words), HostError.
    """
    header = _header(options)
    file = HostFile(path, read_only=False, create=True)
    try:
        file.truncate(0)
        size = header.cluster_size
        order = header.refcount_order
        l1_clusters = -(-header.l1_entries * 8 // size)
        blocks = _table_sizes(1 + l1_clusters, size, size * 8 >> order)[1]
        counts = decode_counts(bytes(blocks * size), order)
        counts[: 1 + header.refcount_table_clusters + blocks + l1_clusters] = 1
        table_size = header.refcount_table_clusters * size
        first_block = header.refcount_table_offset + table_size
        table = np.arange(blocks, dtype=np.uint64) * np.uint64(size) + np.uint64(first_block)
        file.write(header.refcount_table_offset, encode(table).ljust(table_size, b"\0"), encode_counts(counts, order))
        if header.l1_entries:
            file.write(header.l1_offset, bytes(header.l1_entries * 8))
        file.write(0, pack_header(header).ljust(size, b"\0"))
        if options.preallocate_metadata:
            _preallocate(Qcow2Image(file, durable=False))
        file.sync()
    finally:
        file.close()


def _preallocate(image: Qcow2Image) -> None:
    """Every guest cluster gets its place; the data stays a hole."""
    clusters = -(-image.size // image.cluster_size)
    end = 0
    for index in range(image.state_index):
        table = image.writable_table(index)
        at, count = 0, min(clusters - (index << image.l2_bits), len(table.values))
        while at < count:
            first, got = image.refcounts.allocate(count - at)
            places = np.arange(first, first + got, dtype=np.uint64) << np.uint64(image.cluster_bits)
            table.values[at : at + got] = places | np.uint64(COPIED)
            image.l2.touch(table, at, at + got)
            at += got
            end = max(end, (first + got) << image.cluster_bits)
        image.relieve()
    image.settle()
    image.file.truncate(max(end, image.file.size))


def _header(options: CreateOptions) -> Header:
    size, bits = options.cluster_size, options.cluster_size.bit_length() - 1
    if size & (size - 1) or not 512 <= size <= 2 << 20:
        raise UserError("Cluster size must be a power of two between 512 and 2048k")
    order = options.refcount_bits.bit_length() - 1
    if options.refcount_bits not in (1, 2, 4, 8, 16, 32, 64):
        raise UserError("Refcount width must be a power of two and may not exceed 64 bits")
    if options.version < 3 and order != 4:
        raise UserError(
            "Different refcount widths than 16 bits require compatibility level 1.1 or above "
            "(use version=v3 or greater)"
        )
    if options.version < 3 and options.lazy_refcounts:
        raise UserError(
            "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)"
        )
    if options.version < 3 and options.compression != Compression.ZLIB:
        raise UserError(
            "Non-zlib compression type is only supported with compatibility level 1.1 and above "
            "(use version=v3 or greater)"
        )
    if options.preallocate_metadata and options.backing_file is not None:
        raise UserError(
            "Backing file and preallocation can only be used at the same time if extended_l2 is enabled, "
            "which timevm does not carry out"
        )
    disk = options.size + -options.size % 512
    entries = l1_entries_for(disk, bits)
    if options.size < 0 or entries * 8 > L1_LIMIT:
        raise UserError("The image size is too large for file format 'qcow2' (try using a larger cluster size)")
    tables, blocks = _table_sizes(1 + -(-entries * 8 // size), size, size * 8 >> order)
    return Header(
        version=options.version,
        cluster_bits=bits,
        size=disk,
        l1_entries=entries,
        l1_offset=(1 + tables + blocks) * size if entries else 0,
        refcount_table_offset=size,
        refcount_table_clusters=tables,
        incompatible=Incompatible.COMPRESSION if options.compression != Compression.ZLIB else 0,
        compression=options.compression,
        compatible=Compatible.LAZY_REFCOUNTS if options.lazy_refcounts else 0,
        refcount_order=order,
        header_length=112 if options.version >= 3 else 72,
        backing_file=options.backing_file,
        backing_format=options.backing_format,
    )


def _table_sizes(others: int, cluster_size: int, per_block: int) -> tuple[int, int]:
    """Clusters of the reference count table and blocks, which count themselves and ``others``."""
    tables = blocks = 1
    while True:
        needed_blocks = -(-(others + tables + blocks) // per_block)
        needed_tables = -(-needed_blocks * 8 // cluster_size)
        if (needed_tables, needed_blocks) == (tables, blocks):
            return tables, blocks
        tables, blocks = max(tables, needed_tables), max(blocks, needed_blocks)
