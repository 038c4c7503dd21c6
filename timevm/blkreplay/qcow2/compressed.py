"""Compressed clusters: their contents.  A writer never touches one in place."""

from __future__ import annotations

import zlib

import zstandard

from timevm.blkreplay.host_file import HostFile
from timevm.blkreplay.image_errors import ImageError
from timevm.blkreplay.qcow2.entries import compressed_extent
from timevm.blkreplay.qcow2.layout import Compression

#: raw deflate with the largest window; QEMU writes with one of 4 KiB, and reads no larger ones
_WINDOW_BITS, _WRITTEN_WINDOW_BITS = -15, -12
#: bytes a zstd frame may ask for as its window
_ZSTD_WINDOW = 8 << 20


def read_compressed(file: HostFile, entry: int, cluster_bits: int, kind: Compression) -> bytes:
    """One guest cluster.  Allocates no more than some clusters, whatever the data says.  Raises ImageError."""
    offset, length = compressed_extent(entry, cluster_bits)
    size = 1 << cluster_bits
    if offset >= file.size:
        raise ImageError(f"the image {file.path} is damaged: a compressed cluster would be at {offset:#x}")
    stored = file.read(offset, length)
    try:
        if kind == Compression.ZLIB:
            plain = zlib.decompressobj(_WINDOW_BITS).decompress(stored, size)
        else:
            with zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(stored) as reader:
                plain = reader.read(size)
    except (zlib.error, zstandard.ZstdError) as error:
        raise ImageError(f"the image {file.path} is damaged: the compressed cluster at {offset:#x} is none") from error
    if len(plain) != size:
        raise ImageError(f"the image {file.path} is damaged: the compressed cluster at {offset:#x} is too short")
    return plain


def compress(data: bytes, kind: Compression) -> bytes | None:
    """A whole cluster; None if that does not make it smaller."""
    if kind == Compression.ZLIB:
        deflate = zlib.compressobj(wbits=_WRITTEN_WINDOW_BITS, memLevel=9)
        packed = deflate.compress(data) + deflate.flush()
    else:
        packed = zstandard.ZstdCompressor().compress(data)
    return packed if len(packed) < len(data) else None
