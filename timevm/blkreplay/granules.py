"""How the layers over an image divide it: granules, 4 KiB usually, and blocks of them for large ranges of zeroes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

#: bytes; what a file system of a guest writes at once
GRANULE = 4096
#: granules in a block
BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes ``start`` … ``end`` - 1 of granule ``granule``; ``whole``: all of it."""

    granule: int
    start: int
    end: int
    whole: bool

    @property
    def length(self) -> int:
        return self.end - self.start


def parts(offset: int, length: int, size: int = GRANULE) -> Iterator[Part]:
    """The granules (of ``size`` bytes) that a range of bytes touches, in order."""
    end = offset + length
    while offset < end:
        granule, start = divmod(offset, size)
        stop = min(size, start + end - offset)
        yield Part(granule, start, stop, stop - start == size)
        offset += stop - start


def zero_parts(offset: int, length: int, size: int = GRANULE) -> Iterator[tuple[range | None, Part | None]]:
    """A range as whole blocks (a range of their numbers) and, around them, granules."""
    end, block = offset + length, BLOCK * size
    first, last = -(-offset // block), end // block
    if first >= last:
        yield from ((None, part) for part in parts(offset, length, size))
        return
    yield from ((None, part) for part in parts(offset, first * block - offset, size))
    yield range(first, last), None
    yield from ((None, part) for part in parts(last * block, end - last * block, size))
