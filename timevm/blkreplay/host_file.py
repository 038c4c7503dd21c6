"""A file of the host as the image formats use it: positioned reads and writes that are whole or raise HostError."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from timevm.blkreplay.image_errors import ImageError
from timevm.blkreplay.image_locks import lock_image
from timevm.errors import HostError, UserError

#: buffers one pwritev takes (IOV_MAX of Linux)
_MOST_BUFFERS = 1024


class HostFile:
    """``size`` is the end of the file in bytes, kept without asking the host; what lies behind it reads as zeroes."""

    def __init__(self, path: Path | str, *, read_only: bool, share: bool = False, create: bool = False) -> None:
        """Locks the image (see image_locks); ``share``: looks at one that another program may be writing, unlocked.

        Raises UserError (no such file, no permission, in use), HostError.
        """
        self.path = Path(path)
        self.read_only = read_only
        flags = os.O_RDONLY if read_only else os.O_RDWR | (os.O_CREAT if create else 0)
        try:
            self._descriptor = os.open(self.path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
        except OSError as error:
            raise UserError(f"Could not open '{self.path}': {os.strerror(error.errno or 0)}") from error
        try:
            mode = os.fstat(self._descriptor).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise ImageError(f"Could not open '{self.path}': neither a regular file nor a block device")
            if not share:
                lock_image(self._descriptor, self.path, writing=not read_only)
            self.size = os.lseek(self._descriptor, 0, os.SEEK_END)
        except OSError as error:
            os.close(self._descriptor)
            raise HostError(f"Could not open '{self.path}': {os.strerror(error.errno or 0)}") from error
        except UserError:
            os.close(self._descriptor)
            raise
        self.closed = False
        self._unsynced = False

    @property
    def descriptor(self) -> int:
        return self._descriptor

    @property
    def allocated_bytes(self) -> int:
        """What the file takes of the host's disk."""
        return os.fstat(self._descriptor).st_blocks * 512

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes, zeroes behind the end of the file.  Raises HostError."""
        try:
            data = os.pread(self._descriptor, length, offset)
            if len(data) == length:
                return data
            parts = [data]
            missing = length - len(data)
            while data and missing:
                data = os.pread(self._descriptor, missing, offset + length - missing)
                parts.append(data)
                missing -= len(data)
        except (OSError, OverflowError) as error:
            raise self._refused("read", offset, error) from error
        return b"".join((*parts, bytes(missing)))

    def write(self, offset: int, *buffers: bytes | bytearray | memoryview) -> None:
        """All of the buffers, one behind the other.  Raises HostError; what it covered is then undefined."""
        self._unsynced = True
        rest: Sequence[bytes | bytearray | memoryview] = buffers
        try:
            while rest:
                batch = rest[:_MOST_BUFFERS]
                done = os.pwritev(self._descriptor, batch, offset)
                offset += done
                self.size = max(self.size, offset)
                rest = _behind(rest, done)
        except (OSError, OverflowError) as error:
            raise self._refused("written", offset, error) from error

    def sync(self) -> None:
        """What was written is on the host's disk.  Costs nothing when nothing was.  Raises HostError."""
        if not self._unsynced:
            return
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise self._refused("synchronised", 0, error) from error
        self._unsynced = False

    def truncate(self, size: int) -> None:
        """Cuts or lengthens (with a hole) the file.  Raises HostError."""
        self._unsynced = True
        try:
            os.ftruncate(self._descriptor, size)
        except (OSError, OverflowError) as error:
            raise self._refused("resized", size, error) from error
        self.size = size

    def close(self) -> None:
        """Idempotent; does not synchronise."""
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)

    def _refused(self, what: str, offset: int, error: OSError | OverflowError) -> HostError:
        number = error.errno if isinstance(error, OSError) else errno.EFBIG
        why = os.strerror(number or 0)
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            why = f"{why}: make room and try again"
        refusal = HostError(f"the image {self.path} could not be {what} at byte {offset} ({why})")
        refusal.__cause__ = error
        return refusal


def _behind(buffers: Sequence[bytes | bytearray | memoryview], done: int) -> list[bytes | bytearray | memoryview]:
    """The buffers without their first ``done`` bytes."""
    rest: list[bytes | bytearray | memoryview] = []
    for buffer in buffers:
        if done >= len(buffer):
            done -= len(buffer)
        else:
            rest.append(memoryview(buffer)[done:] if done else buffer)
            done = 0
    return rest
