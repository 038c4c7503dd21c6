"""Layout of a recording on disk, as data (docs/recording-format.md); all numbers little-endian."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

import xxhash
import zstandard

from timevm.engine.replay.gate import NEVER
from timevm.errors import RecordingError

#: 0x89 and the newlines show a file that went through a text-mode copy
MAGIC = b"\x89TVMREC\n"
#: magic, format version, bytes of JSON, xxh64 of the three fields before it and of the JSON
HEADER = struct.Struct("<8sIIQ")
HEADER_CHECKED = HEADER.size - 8
LARGEST_IDENTITY = 1 << 20

#: kind, flags, number of events, stored bytes, plain bytes, first icount, last icount, xxh32 of all of that and payload
FRAME = struct.Struct("<BBHIIQQI")
FRAME_CHECKED = FRAME.size - 4
#: payload of the end mark: frames of events, events, offset of the index frame
END_PAYLOAD = struct.Struct("<QQQ")
END_SIZE = FRAME.size + END_PAYLOAD.size

#: a frame is written when it has so many bytes or events; one large event may make it larger
FRAME_BYTES = 4 << 10
FRAME_EVENTS = 1024
LARGEST_PLAIN = 16 << 20
LARGEST_EVENT = LARGEST_PLAIN - FRAME_BYTES
FLAG_ZSTD = 1
#: plain payloads shorter than this are never compressed
WORTH_COMPRESSING = 64


class FrameKind(IntEnum):
    EVENTS = 1
    INDEX = 2
    END = 3


class UnsoundFrame(RecordingError):
    """A frame that is cut short or damaged; ``str()`` says how."""


@dataclass(frozen=True, slots=True)
class FrameHead:
    kind: int
    flags: int
    events: int
    stored: int
    plain: int
    first: int
    last: int
    checksum: int


def header_checksum(fields: bytes, identity: bytes) -> int:
    return xxhash.xxh64_intdigest(fields + identity)


def frame_seed(header: int, ordinal: int) -> int:
    """Ties a frame to its recording (the header's checksum) and to its place (0 for index and end mark)."""
    return (header ^ (header >> 32) ^ ordinal) & 0xFFFF_FFFF


def pack_frame(kind: FrameKind, seed: int, events: int, first: int, last: int, payload: bytes) -> bytes:
    """A whole frame; compressed if that is shorter."""
    flags, stored = 0, payload
    if len(payload) >= WORTH_COMPRESSING:
        packed = zstandard.ZstdCompressor(level=3).compress(payload)
        if len(packed) < len(payload):
            flags, stored = FLAG_ZSTD, packed
    fields = FRAME.pack(kind, flags, events, len(stored), len(payload), first, last, 0)[:FRAME_CHECKED]
    checksum = xxhash.xxh32_intdigest(fields + stored, seed)
    return fields + checksum.to_bytes(4, "little") + stored


def unpack_head(data: bytes) -> FrameHead:
    """Raises UnsoundFrame for a head that no writer makes."""
    if len(data) < FRAME.size:
        raise UnsoundFrame("the frame is cut short")
    head = FrameHead(*FRAME.unpack(data[: FRAME.size]))
    known = head.kind in (FrameKind.EVENTS, FrameKind.INDEX, FrameKind.END) and head.flags in (0, FLAG_ZSTD)
    if not known or head.plain > LARGEST_PLAIN or head.stored > head.plain:
        raise UnsoundFrame("what should be a frame is none")
    if not head.first <= head.last < NEVER:
        raise UnsoundFrame("the frame's instruction counts are impossible")
    return head


def check_frame(head: FrameHead, head_bytes: bytes, stored: bytes, seed: int) -> None:
    """Raises UnsoundFrame."""
    if len(stored) < head.stored:
        raise UnsoundFrame("the frame is cut short")
    if xxhash.xxh32_intdigest(head_bytes[:FRAME_CHECKED] + stored, seed) != head.checksum:
        raise UnsoundFrame("the checksum of the frame is wrong")


def plain_payload(head: FrameHead, stored: bytes) -> bytes:
    """Decompressed, if need be.  Never takes more memory than the head says.  Raises UnsoundFrame."""
    if not head.flags & FLAG_ZSTD:
        if head.stored != head.plain:
            raise UnsoundFrame("the lengths of the frame contradict each other")
        return stored
    try:
        if zstandard.get_frame_parameters(stored).content_size != head.plain:
            raise UnsoundFrame("the lengths of the frame contradict each other")
        plain = zstandard.ZstdDecompressor(max_window_size=LARGEST_PLAIN).decompress(stored)
    except zstandard.ZstdError as error:
        raise UnsoundFrame(f"the frame cannot be decompressed ({error})") from error
    if len(plain) != head.plain:
        raise UnsoundFrame("the lengths of the frame contradict each other")
    return plain
