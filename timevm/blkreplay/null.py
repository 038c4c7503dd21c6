"""A disk without a file: reads as zeroes, forgets what is written.  For tests and measurements."""

from __future__ import annotations

from timevm.errors import UserError


class NullNode:
    """A BlockNode of ``size`` bytes."""

    def __init__(self, size: int) -> None:
        self._size = size

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        self._check_range(offset, length)
        return bytes(length)

    def write(self, offset: int, data: bytes) -> None:
        self._check_range(offset, len(data))

    def write_zeroes(self, offset: int, length: int, *, unmap: bool = True) -> None:
        self._check_range(offset, length)

    def discard(self, offset: int, length: int) -> None:
        self._check_range(offset, length)

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self._size:
            raise UserError(f"bytes {offset} … {offset + length} are not on the disk of {self._size} bytes")
