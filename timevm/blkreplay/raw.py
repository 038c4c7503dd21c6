"""A raw image: the file is the disk."""

from __future__ import annotations

from pathlib import Path

from timevm.blkreplay.host_file import HostFile
from timevm.blkreplay.zeroes import is_zero
from timevm.errors import UserError

_ZERO_BYTES = 1 << 20


class RawImage:
    """A BlockNode; its size is the file's, in whole sectors as QEMU rounds it."""

    def __init__(self, file: HostFile, *, durable: bool = True) -> None:
        """Takes over ``file``."""
        self.file = file
        self.durable = durable
        self._size = file.size + -file.size % 512

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def read_only(self) -> bool:
        return self.file.read_only

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes."""
        self._check_range(offset, length)
        return self.file.read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._check_writable(offset, len(data))
        self.file.write(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool = True) -> None:
        """Writes what does not read as zeroes yet."""
        self._check_writable(offset, length)
        end = offset + length
        while offset < end:
            step = min(_ZERO_BYTES, end - offset)
            if not is_zero(self.file.read(offset, step)):
                self.file.write(offset, bytes(step))
            offset += step

    def discard(self, offset: int, length: int) -> None:
        """A raw file has no clusters that could be given back; the data stays."""
        self._check_writable(offset, length)

    def flush(self) -> None:
        """What was written is on the host's disk."""
        if not self.read_only and self.durable:
            self.file.sync()

    def close(self) -> None:
        """Flush and let the file go.  Idempotent."""
        try:
            if not self.file.closed:
                self.flush()
        finally:
            self.file.close()

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self._size:
            raise UserError(f"bytes {offset} … {offset + length} are not on the disk of {self._size} bytes")

    def _check_writable(self, offset: int, length: int) -> None:
        self._check_range(offset, length)
        if self.read_only:
            raise UserError(f"the image {self.path} is open for reading only")
