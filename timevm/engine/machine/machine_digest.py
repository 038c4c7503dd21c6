"""What the machine looks like at one icount, as three hashes: CPU, RAM, devices (rule 10)."""

from __future__ import annotations

from typing import Any

import xxhash

from timevm.engine.machine.dirty_pages import DirtyPages
from timevm.engine.machine.ram import Ram
from timevm.engine.machine.ram_digest import RamDigest
from timevm.engine.replay.events import Digest


def record_hash(record: Any) -> int:
    """64-bit hash of a plain record; equal records have equal hashes, whatever order their keys were put in."""
    hasher = xxhash.xxh3_64()
    _feed(hasher, record)
    return hasher.intdigest()


def _feed(hasher: xxhash.xxh3_64, value: Any) -> None:
    match value:
        case dict():
            hasher.update(b"{")
            for key in sorted(value):
                _feed(hasher, key)
                _feed(hasher, value[key])
            hasher.update(b"}")
        case list() | tuple():
            hasher.update(b"[")
            for item in value:
                _feed(hasher, item)
            hasher.update(b"]")
        case bytes():
            hasher.update(b"b%d:" % len(value))
            hasher.update(value)
        case _:
            hasher.update(repr(value).encode())
            hasher.update(b";")


class MachineDigest:
    """Costs what was written since the last digest (0.3 us a page) plus about 100 us for CPU and devices."""

    def __init__(self, ram: Ram, dirty: DirtyPages) -> None:
        self._memory, self._dirty = ram, dirty
        self._ram: RamDigest | None = None

    def watch(self) -> None:
        """RAM is untouched, and digests will be wanted.  Without this the first digest begins to watch pages."""
        self._ram = RamDigest(self._memory, self._dirty, untouched=True)

    def take(self, state: dict[str, Any]) -> Digest:
        """``state`` as ``Machine.state`` gives it."""
        if self._ram is None:
            self._ram = RamDigest(self._memory, self._dirty)
        return Digest(
            cpu=record_hash(state["cpu"]),
            ram=self._ram.digest(),
            devices=record_hash([state["clock"], state["devices"]]),
        )
