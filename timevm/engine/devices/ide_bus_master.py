"""Bus-master DMA of one IDE channel (Intel, "Programming Interface for Bus Master IDE Controller", revision 1.0).

A transfer happens in one moment: the descriptor table is walked when the data are there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from timevm.engine.devices.base import DmaError, GuestMemory
from timevm.engine.devices.byte_access import ByteRegisters

# register offsets
COMMAND, STATUS, TABLE = 0, 2, 4
COMMAND_START, COMMAND_TO_MEMORY = 0x01, 0x08
STATUS_ACTIVE, STATUS_ERROR, STATUS_INTERRUPT, STATUS_DRIVES = 0x01, 0x02, 0x04, 0x60
#: one entry of the table: address, bytes (0: 64 KiB), flags
DESCRIPTOR: Final = struct.Struct("<IHH")
END_OF_TABLE: Final = 0x8000
#: entries of a table, which may not cross a boundary of 64 KiB
MOST_DESCRIPTORS: Final = 0x1_0000 // DESCRIPTOR.size


def _nothing() -> None:
    """What ``started`` is until a channel listens."""


class BusMaster(ByteRegisters):
    """A Device (8 ports) and Stateful.  ``started`` is called when the driver sets the start bit.

    ``is_master``: whether the function may reach RAM at present (PCI command register).
    """

    window = 8

    def __init__(self, name: str, memory: GuestMemory, is_master: Callable[[], bool]) -> None:
        self.name = name
        self.started: Callable[[], None] = _nothing
        self.stopped: Callable[[], None] = _nothing
        self._memory = memory
        self._is_master = is_master
        self.reset()

    def reset(self) -> None:
        self._command = 0
        self._status = 0
        self._table = 0

    def state(self) -> dict[str, Any]:
        return {"command": self._command, "status": self._status, "table": self._table}

    def restore(self, state: dict[str, Any]) -> None:
        self._command = state["command"]
        self._status = state["status"]
        self._table = state["table"]

    # the channel

    @property
    def is_running(self) -> bool:
        return bool(self._command & COMMAND_START)

    def interrupt(self) -> None:
        """The drive's interrupt rose."""
        self._status |= STATUS_INTERRUPT

    def to_memory(self, data: bytes) -> bool:
        """What a drive has read goes where the table says; False: the table has no room for it, or is nonsense."""
        done = 0
        exhausted = True
        try:
            for address, size, last in self._descriptors():
                part = data[done : done + size]
                self._memory.write(address, part)
                done += len(part)
                if done == len(data):
                    exhausted = last and len(part) == size
                    break
        except DmaError:
            self._end(error=True)
            return False
        self._end(active=not exhausted)
        return done == len(data)

    def from_memory(self, size: int) -> bytes | None:
        """``size`` bytes from where the table says; None: it has fewer, or is nonsense."""
        parts: list[bytes] = []
        left = size
        try:
            for address, length, _ in self._descriptors():
                part = min(left, length)
                parts.append(self._memory.read(address, part))
                left -= part
                if not left:
                    return b"".join(parts)
        except DmaError:
            self._end(error=True)
            return None
        self._end()
        return None

    def finish_write(self) -> None:
        """What ``from_memory`` gave is on the disk."""
        self._end()

    def fail(self) -> None:
        """The drive ended the command with an error."""
        self._end()

    def _end(self, *, active: bool = False, error: bool = False) -> None:
        """``active`` stays when the table has more room than the drive had data."""
        self._status &= ~STATUS_ACTIVE
        self._status |= STATUS_ACTIVE * active | STATUS_ERROR * error

    def _descriptors(self) -> Iterator[tuple[int, int, bool]]:
        """(address, bytes, whether it is the last).  Raises DmaError."""
        if not self._is_master():
            raise DmaError("the controller may not reach memory")
        for number in range(MOST_DESCRIPTORS):
            entry = self._memory.read(self._table + DESCRIPTOR.size * number, DESCRIPTOR.size)
            address, size, flags = DESCRIPTOR.unpack(entry)
            last = bool(flags & END_OF_TABLE)
            yield address & ~1, (size & ~1) or 0x1_0000, last
            if last:
                return

    # the guest

    def read_byte(self, offset: int) -> int:
        if offset == COMMAND:
            return self._command
        if offset == STATUS:
            return self._status
        if offset >= TABLE:
            return self._table >> 8 * (offset - TABLE) & 0xFF
        return 0

    def write_byte(self, offset: int, value: int) -> None:
        if offset == COMMAND:
            rising, falling = value & ~self._command, self._command & ~value
            self._command = value & (COMMAND_START | COMMAND_TO_MEMORY)
            if rising & COMMAND_START:
                self._status |= STATUS_ACTIVE
                self.started()
            elif falling & COMMAND_START:
                self._status &= ~STATUS_ACTIVE
                self.stopped()
        elif offset == STATUS:
            self._status = value & STATUS_DRIVES | self._status & ~(value & (STATUS_ERROR | STATUS_INTERRUPT)) & 0x07
        elif offset >= TABLE:
            shift = 8 * (offset - TABLE)
            self._table = (self._table & ~(0xFF << shift) | value << shift) & 0xFFFFFFFC
