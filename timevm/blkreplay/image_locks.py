"""One writer an image: byte-range locks that qemu-img and QEMU take too, so each refuses what the other has open.

QEMU's convention (its ``block/file-posix.c``): byte 100 + p is locked by whoever uses permission p, byte 200 + p by
whoever lets nobody else use it.  Both are shared locks; a test for the opposite byte finds a conflict.  They are OFD
locks: they belong to the open file, and vanish when the process is killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from enum import IntEnum
from pathlib import Path

from timevm.errors import HostError, UserError

USED, UNSHARED = 100, 200
#: struct flock of Linux on 64 bits: type, whence, start, length, pid (must be 0 for OFD locks)
_FLOCK = struct.Struct("@hhqqi4x")


class Permission(IntEnum):
    """What somebody does with an image; the value is the byte's place."""

    CONSISTENT_READ = 0
    WRITE = 1
    RESIZE = 3


_NAMES = {Permission.CONSISTENT_READ: "consistent read", Permission.WRITE: "write", Permission.RESIZE: "resize"}
#: a reader bears no writer, a writer no second one
_NEVER_SHARED = (Permission.WRITE, Permission.RESIZE)


class LockedImageError(UserError):
    """Another program has the image open."""


def lock_image(descriptor: int, path: Path, *, writing: bool) -> None:
    """Held until the last copy of ``descriptor`` is closed.  Raises LockedImageError, in QEMU's words.

    On a file system without locks nothing happens, as with QEMU.
    """
    used = tuple(Permission) if writing else (Permission.CONSISTENT_READ,)
    try:
        for permission in used:
            _lock(descriptor, USED + permission)
        for permission in _NEVER_SHARED:
            _lock(descriptor, UNSHARED + permission)
        for permission in used:
            if _is_locked(descriptor, UNSHARED + permission):
                raise _refusal(path, f'"{_NAMES[permission]}"')
        for permission in _NEVER_SHARED:
            if _is_locked(descriptor, USED + permission):
                raise _refusal(path, f'shared "{_NAMES[permission]}"')
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS):
            return
        raise HostError(f"could not lock the image {path}: {os.strerror(error.errno or 0)}") from error


def _refusal(path: Path, what: str) -> LockedImageError:
    return LockedImageError(f"Failed to get {what} lock\nIs another process using the image [{path}]?")


def _lock(descriptor: int, at: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, at, 1, 0))


def _is_locked(descriptor: int, at: int) -> bool:
    """By another open file than this one."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
