"""Bytes that are kept for the session only: in memory up to a bound, then in a temporary file without a name."""

from __future__ import annotations

import os
import tempfile
from typing import BinaryIO

from timevm.errors import HostError

#: bytes
MEMORY = 64 << 20


class Spool:
    """Grows at its end.  One thread at a time; HostError when the temporary folder (``$TMPDIR``) is full."""

    def __init__(self, memory: int = MEMORY) -> None:
        self._limit = memory
        self._held = bytearray()
        self._file: BinaryIO | None = None
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._size

    @property
    def spilled(self) -> int:
        """Bytes in the file."""
        return self._size - len(self._held)

    def append(self, data: bytes) -> int:
        """The position of ``data``, for ``read``."""
        position = self._size
        if self._file is None and len(self._held) + len(data) <= self._limit:
            self._held += data
        else:
            self._put(position - len(self._held), data)
        self._size += len(data)
        return position

    def overwrite(self, position: int, data: bytes) -> None:
        """Inside what was appended."""
        inside = max(0, min(len(data), len(self._held) - position))
        self._held[position : position + inside] = data[:inside]
        if inside < len(data):
            self._put(position + inside - len(self._held), data[inside:])

    def read(self, position: int, length: int) -> bytes:
        """Exactly ``length`` bytes, which were appended."""
        data = bytes(self._held[position : position + length])
        if len(data) == length or self._file is None:
            return data
        try:
            rest = os.pread(self._file.fileno(), length - len(data), position + len(data) - len(self._held))
        except OSError as error:
            raise HostError(f"the temporary file of a disk cannot be read: {error.strerror}") from error
        return data + rest

    def close(self) -> None:
        """Idempotent; the bytes are gone."""
        self._held = bytearray()
        self._size = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _put(self, offset: int, data: bytes) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="timevm-", buffering=0)  # noqa: SIM115 (`close` does)
            view = memoryview(data)
            while view:
                done = os.pwrite(self._file.fileno(), view, offset)
                view, offset = view[done:], offset + done
        except OSError as error:
            raise HostError(
                f"no room for what the guest writes in {tempfile.gettempdir()}: {error.strerror}. "
                "Make room there, or set TMPDIR to a folder that has some"
            ) from error
