"""Every write of an image, so that a test can look at the file as any crash would have left it."""

from __future__ import annotations

import random
from pathlib import Path

from timevm.blkreplay.host_file import HostFile

#: writes are cut at pages, as a kill cuts them
_PAGE = 4096


class LoggedFile(HostFile):
    """A HostFile that keeps what it did: ("write", offset, data), ("truncate", size), ("sync",)."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, read_only=False)
        self.log: list[tuple[str, int, bytes]] = []

    def write(self, offset: int, *buffers: bytes | bytearray | memoryview) -> None:
        data = b"".join(buffers)
        at = 0
        while at < len(data):
            step = _PAGE - (offset + at) % _PAGE
            self.log.append(("write", offset + at, data[at : at + step]))
            at += step
        super().write(offset, *buffers)

    def truncate(self, size: int) -> None:
        self.log.append(("truncate", size, b""))
        super().truncate(size)

    def sync(self) -> None:
        self.log.append(("sync", 0, b""))
        super().sync()


def apply_log(base: bytes, log: list[tuple[str, int, bytes]]) -> bytearray:
    """The file after these."""
    data = bytearray(base)
    for what, offset, part in log:
        if what == "write":
            if len(data) < offset + len(part):
                data.extend(bytes(offset + len(part) - len(data)))
            data[offset : offset + len(part)] = part
        elif what == "truncate":
            del data[offset:]
            data.extend(bytes(offset - len(data)))
    return data


def after_kill(base: bytes, log: list[tuple[str, int, bytes]], count: int) -> bytearray:
    """The process was killed after ``count`` of its page writes: the kernel has them all."""
    return apply_log(base, log[:count])


def after_power_loss(base: bytes, log: list[tuple[str, int, bytes]], count: int, seed: int) -> bytearray:
    """The host lost its power: what was synced is there, of the rest anything (but a page is written or not)."""
    synced = max((number for number, entry in enumerate(log[:count]) if entry[0] == "sync"), default=-1)
    rng = random.Random(seed)
    rest = [entry for entry in log[synced + 1 : count] if rng.random() < 0.5]
    return apply_log(base, [*log[: synced + 1], *rest])
