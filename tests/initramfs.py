"""An initramfs: a cpio archive of the ``newc`` format (Linux: driver-api/early-userspace/buffer-format.rst).

The same entries give the same bytes: no times, owner 0, inode numbers in order.
"""

from __future__ import annotations

import gzip
import stat
from dataclasses import dataclass

ALIGNMENT = 4
#: the kernel wants archives that follow each other to begin at a multiple of 4; cpio pads to whole blocks
BLOCK = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: ``path`` without a leading slash; ``mode`` with the type bits; ``data`` is a symlink's target too."""

    path: str
    mode: int
    data: bytes = b""

    @classmethod
    def folder(cls, path: str) -> Entry:
        return cls(path, stat.S_IFDIR | 0o755)

    @classmethod
    def file(cls, path: str, data: bytes, permissions: int = 0o644) -> Entry:
        return cls(path, stat.S_IFREG | permissions, data)

    @classmethod
    def symlink(cls, path: str, target: str) -> Entry:
        return cls(path, stat.S_IFLNK | 0o777, target.encode())


def padded(data: bytes, multiple: int) -> bytes:
    return data + bytes(-len(data) % multiple)


def record(entry: Entry, inode: int) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # magic, then: inode, mode, uid, gid, links, mtime, size, device (2), special device (2), name size, check
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return padded(header + name, ALIGNMENT) + padded(entry.data, ALIGNMENT)


def cpio(entries: list[Entry]) -> bytes:
    """The archive; folders must come before what is in them."""
    records = [record(entry, inode) for inode, entry in enumerate(entries, 1)]
    return padded(b"".join(records) + record(Entry("TRAILER!!!", 0), 0), BLOCK)


def compressed(entries: list[Entry]) -> bytes:
    return gzip.compress(cpio(entries), 9, mtime=0)
