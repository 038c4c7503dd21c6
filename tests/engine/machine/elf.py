"""ELF files for tests, made from nothing (System V ABI, gABI 4.1: 64 and 32 bits, little endian)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

EM_386, EM_ARM, EM_X86_64, EM_AARCH64, EM_RISCV = 3, 40, 62, 183, 243
PT_LOAD, PT_NOTE = 1, 4
HEADER, PROGRAM_HEADER = 64, 56


@dataclass(frozen=True, slots=True)
class Segment:
    """``memory_size`` None: as long as the data; ``virtual`` None: the physical address."""

    physical: int
    data: bytes
    memory_size: int | None = None
    virtual: int | None = None
    kind: int = PT_LOAD


def elf64(segments: Sequence[Segment], entry: int = 0, machine: int = EM_AARCH64) -> bytes:
    heads, body = b"", b""
    start = HEADER + PROGRAM_HEADER * len(segments)
    for segment in segments:
        size = len(segment.data) if segment.memory_size is None else segment.memory_size
        virtual = segment.physical if segment.virtual is None else segment.virtual
        place = start + len(body)
        heads += struct.pack(
            "<IIQQQQQQ", segment.kind, 7, place, virtual, segment.physical, len(segment.data), size, 4096
        )
        body += segment.data
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    fields = (2, machine, 1, entry, HEADER, 0, 0, HEADER, PROGRAM_HEADER, len(segments), 0, 0, 0)
    return identity + struct.pack("<HHIQQQIHHHHHH", *fields) + heads + body
