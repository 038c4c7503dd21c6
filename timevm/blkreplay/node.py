"""What every node of the block graph is: bytes by offset, synchronous, called by one thread at a time."""

from __future__ import annotations

from typing import Protocol


class BlockNode(Protocol):
    """A virtual disk of ``size`` bytes.  Offsets and lengths may have any alignment.

    Everything may raise HostError (the host refused: disk full, I/O error), and UserError for what an image cannot do
    (a write to a read-only one).  A write that failed leaves the image readable; what it covered is undefined.
    """

    @property
    def size(self) -> int:
        """Bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes; never past ``size``."""

    def write(self, offset: int, data: bytes) -> None: ...

    def write_zeroes(self, offset: int, length: int, *, unmap: bool = True) -> None:
        """The range reads as zeroes afterwards; ``unmap``: its space may be given back."""

    def discard(self, offset: int, length: int) -> None:
        """The range is not needed any more; whole clusters of it read as zeroes afterwards."""

    def flush(self) -> None:
        """What was written is on the host's disk."""

    def close(self) -> None:
        """Flush and let the file go.  Idempotent."""
