"""Where a core file goes: a file that is there whole or not at all, or a pipe or device, byte by byte."""

from __future__ import annotations

import errno
import os
import select
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from timevm.errors import HostError

#: of the file: as QEMU has it, since it holds all that the guest knows
MODE = 0o400
_ZEROES = bytes(1 << 20)
#: seconds between two looks at whether to go on, while a reader does not read
_PATIENCE = 0.1


class Target(Protocol):
    """Filled from beginning to end.  ``write`` and ``skip`` raise OSError; then only ``abandon`` follows."""

    def write(self, data: bytes | memoryview) -> None: ...

    def skip(self, size: int) -> None:
        """So many zeroes."""

    def finish(self) -> None:
        """Raises OSError; ``abandon`` then."""

    def abandon(self) -> None:
        """Leave nothing behind that looks like a core file.  Raises nothing."""


class NewFile:
    """A file with holes for zeroes, under another name until it is whole; what was there before is there until then."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._path = path
        self._descriptor, name = tempfile.mkstemp(prefix=".vmcore-", dir=path.parent)
        self._unfinished = Path(name)
        self._size = 0

    def write(self, data: bytes | memoryview) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self._descriptor, data[done:], self._size + done)
        self._size += done

    def skip(self, size: int) -> None:
        self._size += size

    def finish(self) -> None:
        os.ftruncate(self._descriptor, self._size)
        os.fchmod(self._descriptor, MODE)
        self._close()
        self._unfinished.replace(self._path)

    def abandon(self) -> None:
        try:
            self._close()
        except OSError:
            pass  # the file goes
        self._unfinished.unlink(missing_ok=True)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Stream:
    """A pipe or a device.  Whoever reads it slowly is waited for, as long as ``goes_on`` raises nothing."""

    def __init__(self, path: str, goes_on: Callable[[], None]) -> None:
        """Raises OSError, also for a pipe that nobody reads."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._goes_on = goes_on

    def write(self, data: bytes | memoryview) -> None:
        done = 0
        while done < len(data):
            try:
                done += os.write(self._descriptor, data[done:])
            except BlockingIOError:
                self._goes_on()
                select.select((), (self._descriptor,), (), _PATIENCE)

    def skip(self, size: int) -> None:
        while size > 0:
            self.write(_ZEROES[:size])
            size -= len(_ZEROES)

    def finish(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def abandon(self) -> None:
        try:
            self.finish()
        except OSError:
            pass  # nobody waits for the rest


def open_target(name: str, goes_on: Callable[[], None]) -> Target:
    """``name``: of the file as the user said it.  ``goes_on`` raises what shall end a long wait.  Raises HostError."""
    try:
        if not name:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if name.endswith("/"):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        try:
            kind = os.stat(name).st_mode
        except FileNotFoundError:
            kind = stat.S_IFREG
        if stat.S_ISDIR(kind):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(kind):
            return Stream(name, goes_on)
        return NewFile(Path(os.path.realpath(name)))
    except (OSError, ValueError) as failure:
        raise HostError(f"Could not open '{name}': {words(failure)}") from failure


def words(failure: OSError | ValueError) -> str:
    """What the host said."""
    return os.strerror(failure.errno) if isinstance(failure, OSError) and failure.errno else str(failure)
