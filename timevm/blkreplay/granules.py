"""How the layers over an image divide it: granules of 4 KiB, and blocks of granules for large ranges of zeroes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

#: bytes; what a file system of a guest writes at once
GRANULE = 4096
#: granules in a block
BLOCK = 1024
BLOCK_BYTES = BLOCK * GRANULE


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes ``start`` … ``end`` - 1 of granule ``granule``; ``whole``: all of it."""

    granule: int
    start: int
    end: int

    @property
    def whole(self) -> bool:
        return self.start == 0 and self.end == GRANULE

    @property
    def length(self) -> int:
        return self.end - self.start


def parts(offset: int, length: int) -> Iterator[Part]:
    """The granules that a range of bytes touches, in order."""
    end = offset + length
    while offset < end:
        granule, start = divmod(offset, GRANULE)
        stop = min(GRANULE, start + end - offset)
        yield Part(granule, start, stop)
        offset += stop - start


def zero_parts(offset: int, length: int) -> Iterator[tuple[range | None, Part | None]]:
    """A range as whole blocks (a range of their numbers) and, around them, granules."""
    end = offset + length
    first, last = -(-offset // BLOCK_BYTES), end // BLOCK_BYTES
    if first >= last:
        yield from ((None, part) for part in parts(offset, length))
        return
    yield from ((None, part) for part in parts(offset, first * BLOCK_BYTES - offset))
    yield range(first, last), None
    yield from ((None, part) for part in parts(last * BLOCK_BYTES, end - last * BLOCK_BYTES))
