"""The kernel inside a bzImage, unpacked by us instead of by the guest (Linux, boot.rst: payload_offset and _length).

Unpacking Debian's kernel takes a guest 4.5 billion instructions, more than half of its boot, and the host 0.6 s.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import zstandard

from timevm.engine.machine.images import ELF_MAGIC, LARGEST_KERNEL, File, Piece, elf_pieces
from timevm.errors import TimevmError

PAYLOAD_OFFSET, PAYLOAD_LENGTH, EXTRA_LOAD_FLAGS = 0x248, 0x24C, 0x236
#: of the extra load flags: the kernel has a 64-bit entry
KERNEL_64 = 0x01
#: protocol 2.12 (Linux 3.8): the first with these flags
WITH_FLAGS = 0x20C
MACHINES = ("EM_X86_64",)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """``entry``: physical address of the kernel's 64-bit code."""

    pieces: tuple[Piece, ...]
    entry: int


def _gzip(data: bytes, size: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        return stream.read(size)


def _zstd(data: bytes, size: int) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)[:size]


#: first bytes of the payload -> how to unpack at most so many bytes; Linux has LZ4 and LZO too
FORMATS: dict[bytes, Callable[[bytes, int], bytes]] = {
    b"\xfd7zXZ\0": lambda data, size: lzma.LZMADecompressor().decompress(data, size),
    b"\x5d\0\0": lambda data, size: lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data, size),
    b"\x1f\x8b": _gzip,
    b"BZh": lambda data, size: bz2.BZ2Decompressor().decompress(data, size),
    b"\x28\xb5\x2f\xfd": _zstd,
}


def unpack(kernel: File, protocol: int) -> Unpacked | None:
    """None where the guest has to do it itself: 32-bit kernels, other formats, anything unexpected."""
    data = kernel.data
    if protocol < WITH_FLAGS or not struct.unpack_from("<H", data, EXTRA_LOAD_FLAGS)[0] & KERNEL_64:
        return None
    offset, length = struct.unpack_from("<II", data, PAYLOAD_OFFSET)
    start = 512 * (1 + (data[0x1F1] or 4)) + offset
    payload = data[start : start + length]
    if len(payload) != length or length < 8:
        return None
    # The unpacked size stands behind the packed bytes.
    (size,) = struct.unpack_from("<I", payload, length - 4)
    run = next((run for magic, run in FORMATS.items() if payload.startswith(magic)), None)
    if run is None or not 0 < size <= LARGEST_KERNEL:
        return None
    try:
        unpacked = run(payload[:-4], size)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zstandard.ZstdError):
        return None
    if len(unpacked) != size or not unpacked.startswith(ELF_MAGIC):
        return None
    try:
        pieces, entry = elf_pieces(kernel, unpacked, MACHINES)
    except TimevmError:
        return None
    # The kernel clears its own zero pages, as after the guest's unpacking.
    return Unpacked(tuple(Piece(piece.address, piece.data, len(piece.data)) for piece in pieces if piece.data), entry)
