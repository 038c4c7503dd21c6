"""The qcow2 header as data: fields, features, extensions, and the limits within which an image is believed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path

from timevm.blkreplay.image_errors import ImageError

MAGIC = b"QFI\xfb"
#: magic, version, backing offset, backing length, cluster bits, size, encryption, L1 entries, L1 offset, refcount table
#: offset, its clusters, snapshots, snapshot table offset
HEADER_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
#: incompatible, compatible, autoclear features, refcount order, header length
HEADER_V3 = struct.Struct(">QQQII")
#: where the fields lie that change together; one write within a sector, so they change at once or not at all
SIZE_AT, L1_SIZE_AT, L1_OFFSET_AT, REFCOUNT_TABLE_AT = 24, 36, 40, 48
#: from SIZE_AT: size, encryption, L1 entries, L1 offset, refcount table offset, its clusters, snapshots, their offset
SWITCH = struct.Struct(">QIIQQIIQ")
INCOMPATIBLE_AT, AUTOCLEAR_AT, COMPRESSION_AT = 72, 88, 104

EXTENSION = struct.Struct(">II")
BACKING_FORMAT, FEATURE_NAMES, BITMAPS, LUKS_HEADER, DATA_FILE = (
    0xE2792ACA,
    0x6803F857,
    0x23852875,
    0x0537BE77,
    0x44415441,
)
BITMAPS_FIELDS = struct.Struct(">IIQQ")
FEATURE_NAME = struct.Struct(">BB46s")

SMALLEST_CLUSTER_BITS, LARGEST_CLUSTER_BITS = 9, 21
#: QEMU's limits, in bytes; the largest a damaged image can make us allocate at once
L1_LIMIT, REFCOUNT_TABLE_LIMIT = 32 << 20, 8 << 20
BACKING_NAME_LIMIT = 1023
#: bytes of a cluster below which a new image has no feature name table, to leave room for a backing file's name
_SMALLEST_WITH_NAMES = 8192


class Incompatible(IntFlag):
    """Who does not know one of these must not open the image."""

    DIRTY = 1
    CORRUPT = 2
    DATA_FILE = 4
    COMPRESSION = 8
    EXTENDED_L2 = 16


class Compatible(IntFlag):
    LAZY_REFCOUNTS = 1


class Autoclear(IntFlag):
    """Who does not maintain one of these must clear it before the first write."""

    BITMAPS = 1
    RAW_DATA_FILE = 2


class Compression(IntEnum):
    ZLIB = 0
    ZSTD = 1


#: type of feature, bit -> the name that qemu-img writes into new images
FEATURE_TABLE = (
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
)
#: an int: the complement of an IntFlag has only bits that have a name
_CARRIED_OUT = int(Incompatible.DIRTY | Incompatible.CORRUPT | Incompatible.COMPRESSION)


@dataclass(frozen=True, slots=True)
class Header:
    """One image's header; sizes and offsets in bytes unless named otherwise."""

    version: int
    cluster_bits: int
    size: int
    l1_entries: int
    l1_offset: int
    refcount_table_offset: int
    refcount_table_clusters: int
    snapshot_count: int = 0
    snapshots_offset: int = 0
    incompatible: int = 0
    compatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    header_length: int = HEADER_V2.size
    compression: Compression = Compression.ZLIB
    backing_file: str | None = None
    backing_format: str | None = None
    #: offset and length of the bitmap directory, and how many there are
    bitmap_directory: tuple[int, int, int] | None = None

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def refcount_bits(self) -> int:
        return 1 << self.refcount_order

    @property
    def is_dirty(self) -> bool:
        """Its reference counts were postponed and are not to be believed."""
        return bool(self.incompatible & Incompatible.DIRTY)

    @property
    def is_corrupt(self) -> bool:
        return bool(self.incompatible & Incompatible.CORRUPT)

    @property
    def lazy_refcounts(self) -> bool:
        return bool(self.compatible & Compatible.LAZY_REFCOUNTS)

    def switch_fields(self) -> bytes:
        """What is written at SIZE_AT to make another set of tables the valid one."""
        return SWITCH.pack(
            self.size,
            0,
            self.l1_entries,
            self.l1_offset,
            self.refcount_table_offset,
            self.refcount_table_clusters,
            self.snapshot_count,
            self.snapshots_offset,
        )


def parse_header(first: bytes, path: Path, file_size: int) -> Header:
    """``first``: the first cluster of the image, or at least 4 KiB of it (padded with zeroes if shorter).

    Raises ImageError for what is no qcow2, is damaged, or cannot be carried out.
    """
    if len(first) < HEADER_V2.size or first[:4] != MAGIC or file_size < HEADER_V2.size:
        raise ImageError(f"Could not open '{path}': Image is not in qcow2 format")
    fields = HEADER_V2.unpack_from(first)
    version, backing_offset, backing_length, cluster_bits, size, encryption = fields[1:7]
    l1_entries, l1_offset, table_offset, table_clusters, snapshots, snapshots_offset = fields[7:]
    if version not in (2, 3):
        raise ImageError(f"Could not open '{path}': Unsupported qcow2 version {version}")
    if not SMALLEST_CLUSTER_BITS <= cluster_bits <= LARGEST_CLUSTER_BITS:
        raise ImageError(f"Could not open '{path}': Unsupported cluster size: 2^{cluster_bits}")
    incompatible = compatible = autoclear = 0
    order, length, compression = 4, HEADER_V2.size, Compression.ZLIB
    if version == 3:
        incompatible, compatible, autoclear, order, length = HEADER_V3.unpack_from(first, HEADER_V2.size)
        if length < HEADER_V2.size + HEADER_V3.size or length > 1 << cluster_bits or length % 8:
            raise ImageError(f"Could not open '{path}': qcow2 header of an impossible length ({length})")
    extensions = list(_extensions(first, length, min(1 << cluster_bits, backing_offset or 1 << cluster_bits), path))
    _refuse_features(incompatible, extensions, path)
    if order > 6:
        raise ImageError(f"Could not open '{path}': Reference count entry width too large; may not exceed 64 bits")
    if incompatible & Incompatible.COMPRESSION:
        kind = first[COMPRESSION_AT] if length > COMPRESSION_AT else 0
        if kind != Compression.ZSTD:
            raise ImageError(f"Could not open '{path}': qcow2: unknown compression type: {kind}")
        compression = Compression.ZSTD
    if encryption or any(kind == LUKS_HEADER for kind, _ in extensions):
        name = {1: "AES", 2: "LUKS"}.get(encryption, f"method {encryption}")
        raise ImageError(
            f"Could not open '{path}': it is encrypted ({name}), which timevm does not carry out: decrypt it first"
        )
    header = Header(
        version=version,
        cluster_bits=cluster_bits,
        size=size,
        l1_entries=l1_entries,
        l1_offset=l1_offset,
        refcount_table_offset=table_offset,
        refcount_table_clusters=table_clusters,
        snapshot_count=snapshots,
        snapshots_offset=snapshots_offset,
        incompatible=incompatible,
        compatible=compatible,
        autoclear=autoclear,
        refcount_order=order,
        header_length=length,
        compression=compression,
        backing_file=_backing_name(first, backing_offset, backing_length, cluster_bits, path),
        backing_format=next((_text(data) for kind, data in extensions if kind == BACKING_FORMAT), None),
        bitmap_directory=_bitmaps(extensions),
    )
    _check_tables(header, path, file_size)
    return header


def _extensions(first: bytes, at: int, end: int, path: Path) -> Iterator[tuple[int, bytes]]:
    while at + EXTENSION.size <= min(end, len(first)):
        kind, length = EXTENSION.unpack_from(first, at)
        if kind == 0:
            return
        at += EXTENSION.size
        if at + length > end or at + length > len(first):
            raise ImageError(f"Could not open '{path}': Header extension too large")
        yield kind, first[at : at + length]
        at += length + -length % 8


def _refuse_features(incompatible: int, extensions: list[tuple[int, bytes]], path: Path) -> None:
    unknown = incompatible & ~_CARRIED_OUT
    if not unknown:
        return
    names = {bit: name for kind, bit, name in FEATURE_TABLE if kind == 0}
    for kind, data in extensions:
        if kind == FEATURE_NAMES:
            for at in range(0, len(data) - FEATURE_NAME.size + 1, FEATURE_NAME.size):
                feature, bit, name = FEATURE_NAME.unpack_from(data, at)
                if feature == 0 and bit not in names:
                    names[bit] = _text(name)
    asked = [names.get(bit) or f"Unknown incompatible feature: {1 << bit:x}" for bit in range(64) if unknown >> bit & 1]
    raise ImageError(f"Could not open '{path}': Unsupported qcow2 feature(s): {', '.join(asked)}")


def _backing_name(first: bytes, offset: int, length: int, cluster_bits: int, path: Path) -> str | None:
    if not offset:
        return None
    if length > min(BACKING_NAME_LIMIT, (1 << cluster_bits) - min(offset, 1 << cluster_bits)) or offset + length > len(
        first
    ):
        raise ImageError(f"Could not open '{path}': Backing file name too long")
    return first[offset : offset + length].decode("utf-8", "surrogateescape") or None


def _bitmaps(extensions: list[tuple[int, bytes]]) -> tuple[int, int, int] | None:
    for kind, data in extensions:
        if kind == BITMAPS and len(data) >= BITMAPS_FIELDS.size:
            count, _, size, offset = BITMAPS_FIELDS.unpack_from(data)
            return offset, size, count
    return None


def _check_tables(header: Header, path: Path, file_size: int) -> None:
    """Nothing is allocated by a number of the header before it went through here."""
    end = file_size + -file_size % header.cluster_size
    last = header.cluster_size - 1

    def check(what: str, offset: int, size: int, limit: int) -> None:
        if size > limit:
            raise ImageError(f"Could not open '{path}': {what} is too large ({size} bytes)")
        if offset & last or offset + size > max(end, offset) or (size and not offset) or offset >= 1 << 56:
            raise ImageError(f"Could not open '{path}': {what} offset invalid ({offset:#x})")

    if header.size >= 1 << 63:
        raise ImageError(f"Could not open '{path}': Image is too big ({header.size} bytes)")
    if not header.refcount_table_clusters:
        raise ImageError(f"Could not open '{path}': Image does not contain a reference count table")
    table = header.refcount_table_clusters << header.cluster_bits
    check("Reference count table", header.refcount_table_offset, table, REFCOUNT_TABLE_LIMIT + last)
    check("Active L1 table", header.l1_offset, header.l1_entries * 8, L1_LIMIT)
    needed = l1_entries_for(header.size, header.cluster_bits)
    if header.l1_entries < needed:
        raise ImageError(f"Could not open '{path}': L1 table is too small")
    if header.snapshot_count:
        check("Snapshot table", header.snapshots_offset, 40 * header.snapshot_count, 65536 * 1024)
        if header.snapshot_count > 65536:
            raise ImageError(f"Could not open '{path}': Snapshot table too large ({header.snapshot_count} snapshots)")


def l1_entries_for(size: int, cluster_bits: int) -> int:
    """How many L1 entries describe ``size`` bytes; also the first that holds VM state."""
    bits = 2 * cluster_bits - 3
    return (size + (1 << bits) - 1) >> bits


def pack_header(header: Header) -> bytes:
    """A new image's header with its extensions, as qemu-img lays it out."""
    extensions = bytearray()
    if header.backing_format is not None:
        extensions += _extension(BACKING_FORMAT, header.backing_format.encode())
    if header.version >= 3 and header.cluster_size >= _SMALLEST_WITH_NAMES:
        names = b"".join(FEATURE_NAME.pack(kind, bit, name.encode()) for kind, bit, name in FEATURE_TABLE)
        extensions += _extension(FEATURE_NAMES, names)
    extensions += EXTENSION.pack(0, 0)
    name = (header.backing_file or "").encode("utf-8", "surrogateescape")
    at = header.header_length + len(extensions) if name else 0
    packed = HEADER_V2.pack(
        MAGIC,
        header.version,
        at,
        len(name),
        header.cluster_bits,
        header.size,
        0,
        header.l1_entries,
        header.l1_offset,
        header.refcount_table_offset,
        header.refcount_table_clusters,
        header.snapshot_count,
        header.snapshots_offset,
    )
    if header.version >= 3:
        packed += HEADER_V3.pack(
            header.incompatible, header.compatible, header.autoclear, header.refcount_order, header.header_length
        )
        packed += bytes([header.compression])
    return packed.ljust(header.header_length, b"\0") + bytes(extensions) + name


def _extension(kind: int, data: bytes) -> bytes:
    return EXTENSION.pack(kind, len(data)) + data + bytes(-len(data) % 8)


def _text(data: bytes) -> str:
    """Up to the first zero byte; nothing of it may steer a terminal."""
    text = data.partition(b"\0")[0].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)
