"""What a disk controller needs of the disk behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

#: request number, and what it gave: the bytes of a read, ``b""`` of all others, None if the host could not do it
Completed = Callable[[int, bytes | None], None]


class BlockPort(Protocol):
    """Requests go out at once and get a number (from 0, in order); each is completed later, between two instructions.

    They are carried out in the order of their numbers, so a read sees what was written before it was asked for, and
    nothing that was written after.  ``completed`` is set by the controller.
    """

    completed: Completed

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def read_only(self) -> bool:
        """Writes fail."""

    def has_room(self) -> bool:
        """Whether one more request should be made before others are completed: a guest must not fill the host."""

    def read(self, offset: int, length: int) -> int: ...

    def write(self, offset: int, data: bytes) -> int: ...

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> int:
        """``unmap``: the space may be given back."""

    def flush(self) -> int:
        """Everything that was completed before is on the host's disk."""
