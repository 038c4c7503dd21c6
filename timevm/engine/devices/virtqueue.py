"""A split virtqueue from the device's side (Virtual I/O Device 1.2, sections 2.7 and 2.6.8).

The driver may be hostile: whatever it wrote into the rings, an answer costs at most LONGEST_CHAIN descriptors, and what
makes no sense raises RingError.  The CPU does not run meanwhile, so nothing changes between two looks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from timevm.engine.devices.base import DmaError, GuestMemory
from timevm.errors import GuestError

#: entries of a queue at most, and descriptors of one chain, as in QEMU
LARGEST_QUEUE: Final = 1024
LONGEST_CHAIN: Final = 1024
#: of the rings in memory, bytes
DESCRIPTOR: Final = struct.Struct("<QIHH")
USED_ELEMENT: Final = struct.Struct("<II")
RING_HEADER: Final = 4
# flags of a descriptor, of the available ring
NEXT, WRITE, INDIRECT = 1, 2, 4
NO_INTERRUPT = 1

#: guest physical address and length in bytes (> 0)
Segment = tuple[int, int]


class RingError(GuestError):
    """The driver's rings make no sense: the device wants to be reset."""


@dataclass(frozen=True, slots=True)
class Chain:
    """One buffer of the driver: ``head`` names it; the device reads ``readable`` and writes ``writable``."""

    head: int
    readable: tuple[Segment, ...]
    writable: tuple[Segment, ...]


def total(segments: tuple[Segment, ...]) -> int:
    """Bytes."""
    return sum(length for _, length in segments)


def gather(memory: GuestMemory, segments: tuple[Segment, ...], start: int, size: int) -> bytes:
    """``size`` bytes of ``segments`` from byte ``start`` on; fewer where they end.  Raises DmaError."""
    return b"".join(memory.read(address, length) for address, length in _window(segments, start, size))


def scatter(memory: GuestMemory, segments: tuple[Segment, ...], start: int, data: bytes) -> None:
    """Write ``data`` from byte ``start`` of ``segments`` on (it must fit).  Raises DmaError."""
    done = 0
    for address, length in _window(segments, start, len(data)):
        memory.write(address, data[done : done + length])
        done += length


def _window(segments: tuple[Segment, ...], start: int, size: int) -> Iterator[Segment]:
    for address, length in segments:
        if size <= 0:
            return
        if start >= length:
            start -= length
            continue
        part = min(length - start, size)
        yield address + start, part
        size -= part
        start = 0


class Virtqueue:
    """``largest``: entries that the driver may ask for.  The driver sets the rest through its transport."""

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.reset()

    def reset(self) -> None:
        self.size = self.largest
        self.ready = False
        self.descriptors = self.available = self.used = 0  # physical addresses of the three parts
        self._next_available = 0  # 16-bit indexes, as the rings have them
        self._next_used = 0
        self._signalled: int | None = None  # used index when the driver was last interrupted

    def state(self) -> dict[str, Any]:
        return {
            "size": self.size,
            "ready": self.ready,
            "descriptors": self.descriptors,
            "available": self.available,
            "used": self.used,
            "next_available": self._next_available,
            "next_used": self._next_used,
            "signalled": self._signalled,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.size, self.ready = state["size"], state["ready"]
        self.descriptors, self.available, self.used = state["descriptors"], state["available"], state["used"]
        self._next_available, self._next_used = state["next_available"], state["next_used"]
        self._signalled = state["signalled"]

    # what a device does with it; all raise RingError, and DmaError for rings that are not in RAM

    def pop(self, memory: GuestMemory) -> Chain | None:
        """The next buffer that the driver made available.  Costs 2.5 us and 0.6 us a descriptor, and reading them."""
        if not self.ready:
            return None
        index = _word(memory, self.available + 2)
        waiting = (index - self._next_available) & 0xFFFF
        if waiting > self.size:
            raise RingError(f"the driver made {waiting} buffers available in a queue of {self.size}")
        if not waiting:
            return None
        slot = self._next_available % self.size
        head = _word(memory, self.available + RING_HEADER + 2 * slot)
        chain = self._chain(memory, head)
        self._next_available = (self._next_available + 1) & 0xFFFF
        return chain

    def push_back(self, count: int) -> None:
        """The last ``count`` buffers that were popped are available again, as if nobody had looked."""
        self._next_available = (self._next_available - count) & 0xFFFF

    def push(self, memory: GuestMemory, head: int, written: int) -> None:
        """The device is done with the buffer ``head`` and wrote ``written`` bytes into it."""
        slot = self._next_used % self.size
        memory.write(self.used + RING_HEADER + USED_ELEMENT.size * slot, USED_ELEMENT.pack(head, written))
        self._next_used = (self._next_used + 1) & 0xFFFF
        memory.write(self.used + 2, self._next_used.to_bytes(2, "little"))

    def wants_interrupt(self, memory: GuestMemory, event_index: bool) -> bool:
        """Whether the driver asked to be told of what was pushed since the last time."""
        if not event_index:
            return not _word(memory, self.available) & NO_INTERRUPT
        before, self._signalled = self._signalled, self._next_used
        if before is None:
            return True
        event = _word(memory, self.available + RING_HEADER + 2 * self.size)
        return (self._next_used - event - 1) & 0xFFFF < (self._next_used - before) & 0xFFFF

    def ask_for_notification(self, memory: GuestMemory, event_index: bool) -> None:
        """The driver is to notify when it adds the next buffer."""
        if self.ready and event_index:
            where = self.used + RING_HEADER + USED_ELEMENT.size * self.size
            memory.write(where, self._next_available.to_bytes(2, "little"))

    def _chain(self, memory: GuestMemory, head: int) -> Chain:
        readable: list[Segment] = []
        writable: list[Segment] = []
        for address, length, flags in self._walk(memory, head):
            if not length:
                raise RingError("a buffer of no bytes")
            if flags & WRITE:
                writable.append((address, length))
            elif writable:
                raise RingError("a buffer to read from behind one to write to")
            else:
                readable.append((address, length))
        return Chain(head, tuple(readable), tuple(writable))

    def _walk(self, memory: GuestMemory, head: int) -> Iterator[tuple[int, int, int]]:
        """(address, length, flags) of each descriptor, those of an indirect table in its place."""
        index = head
        for _ in range(self.size):
            if index >= self.size:
                raise RingError(f"descriptor {index} of a queue of {self.size}")
            where = self.descriptors + DESCRIPTOR.size * index
            address, length, flags, following = DESCRIPTOR.unpack(memory.read(where, DESCRIPTOR.size))
            if flags & INDIRECT:
                if flags & NEXT:
                    raise RingError("a descriptor behind an indirect table")
                yield from _indirect(memory, address, length)
                return
            yield address, length, flags
            if not flags & NEXT:
                return
            index = following
        raise RingError("a chain of descriptors that goes in a circle")


def _indirect(memory: GuestMemory, address: int, length: int) -> Iterator[tuple[int, int, int]]:
    if not length or length % DESCRIPTOR.size:
        raise RingError(f"an indirect table of {length} bytes")
    table = memory.read(address, min(length, LONGEST_CHAIN * DESCRIPTOR.size))
    count = len(table) // DESCRIPTOR.size
    index = 0
    for _ in range(count):
        if index >= count:
            raise RingError(f"descriptor {index} of an indirect table of {count}")
        where, size, flags, following = DESCRIPTOR.unpack_from(table, DESCRIPTOR.size * index)
        if flags & INDIRECT:
            raise RingError("an indirect table inside another")
        yield where, size, flags
        if not flags & NEXT:
            return
        index = following
    raise RingError("a chain of descriptors that goes in a circle")


def _word(memory: GuestMemory, address: int) -> int:
    return int.from_bytes(memory.read(address, 2), "little")


__all__ = ["Chain", "DmaError", "RingError", "Segment", "Virtqueue", "gather", "scatter", "total"]
