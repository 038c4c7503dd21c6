"""What every drive on an IDE channel is: its registers, its data port, and how a command's data go through either.

A command moves through phases: IDLE; ASKED (the disk works on request ``_request``); TO_HOST and FROM_HOST (the data
port, in blocks, DRQ set); DMA_TO_HOST and DMA_FROM_HOST (until the bus master is started).  Facts: ATA/ATAPI-7.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, Protocol

from timevm.engine.devices.ide_bus_master import BusMaster

# command block registers
DATA, FEATURES, COUNT, LOW, MID, HIGH, DEVICE, COMMAND = range(8)
ERROR, STATUS = FEATURES, COMMAND
# status
BSY, DRDY, DF, DSC, DRQ, ERR = 0x80, 0x40, 0x20, 0x10, 0x08, 0x01
READY: Final = DRDY | DSC
# error
ABORTED, NOT_FOUND, UNCORRECTABLE = 0x04, 0x10, 0x40
DIAGNOSTICS_PASSED: Final = 0x01
DEVICE_LBA, DEVICE_SELECT, DEVICE_OBSOLETE = 0x40, 0x10, 0xA0


class Phase(IntEnum):
    IDLE = 0
    ASKED = 1
    TO_HOST = 2
    FROM_HOST = 3
    DMA_TO_HOST = 4
    DMA_FROM_HOST = 5


#: looked at for each word of a disk
TO_HOST: Final = Phase.TO_HOST


class Channel(Protocol):
    """What a drive needs of its cable."""

    bus_master: BusMaster

    def interrupt(self) -> None:
        """INTRQ rises."""


_REGISTERS: Final = (
    "status", "error", "count", "low", "mid", "high", "device", "features", "old_count", "old_low", "old_mid",
    "old_high", "phase", "position", "request", "command",
    "by_bus_master",
)  # fmt: skip


class IdeDrive:
    """Stateful.  Subclasses execute commands; ``old_`` registers hold what a 48-bit command's first writes left."""

    def __init__(self, name: str, channel: Channel) -> None:
        self.name = name
        self.channel = channel
        self.clear()

    def clear(self) -> None:
        """Power on, and the first part of every reset."""
        self.status = READY
        self.error = DIAGNOSTICS_PASSED
        self.features = 0
        self.old_count = self.old_low = self.old_mid = self.old_high = 0
        self.count = self.low = 1
        self.mid = self.high = 0
        self.device = 0
        self.command = 0
        self.phase = Phase.IDLE
        self.by_bus_master = False
        self.buffer = bytearray()
        self.position = 0
        self.request: int | None = None
        self.signature()

    def signature(self) -> None:
        """COUNT to HIGH say what kind of drive this is (ATA/ATAPI-7, 9.12)."""

    def reset(self) -> None:
        self.clear()

    def soft_reset(self) -> None:
        self.clear()

    def state(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in _REGISTERS},
            "phase": int(self.phase),
            "buffer": bytes(self.buffer),
        }

    def restore(self, state: dict[str, Any]) -> None:
        for name in _REGISTERS:
            setattr(self, name, state[name])
        self.phase = Phase(state["phase"])
        self.buffer = bytearray(state["buffer"])

    # ---- the channel

    def write_register(self, offset: int, value: int) -> None:
        """COUNT to DEVICE, and FEATURES: ignored while a command runs."""
        if self.status & (BSY | DRQ):
            return
        if offset == FEATURES:
            self.features = value
        elif offset == COUNT:
            self.old_count, self.count = self.count, value
        elif offset == LOW:
            self.old_low, self.low = self.low, value
        elif offset == MID:
            self.old_mid, self.mid = self.mid, value
        elif offset == HIGH:
            self.old_high, self.high = self.high, value

    def read_register(self, offset: int, *, high_order: bool) -> int:
        """ERROR to STATUS; ``high_order`` shows the previous contents (HOB of device control)."""
        shown: dict[int, tuple[int, int]] = {
            ERROR: (self.error, self.error),
            COUNT: (self.count, self.old_count),
            LOW: (self.low, self.old_low),
            MID: (self.mid, self.old_mid),
            HIGH: (self.high, self.old_high),
            DEVICE: (self.device | DEVICE_OBSOLETE,) * 2,
            STATUS: (self.status, self.status),
        }
        return shown[offset][high_order]

    def read_data(self, size: int) -> int:
        if self.phase != TO_HOST:
            return 0
        position = self.position
        end = self.position = position + size
        value = int.from_bytes(self.buffer[position:end], "little")
        if end >= len(self.buffer):
            self.block_taken()
        return value

    def write_data(self, size: int, value: int) -> None:
        if self.phase != Phase.FROM_HOST:
            return
        end = min(self.position + size, len(self.buffer))
        self.buffer[self.position : end] = value.to_bytes(size, "little")[: end - self.position]
        self.position += size
        if self.position >= len(self.buffer):
            self.block_given()

    def execute(self, command: int) -> None:
        """The command register was written."""
        raise NotImplementedError

    def bus_master_started(self) -> None:
        """The driver started the DMA engine; a drive that waits for it goes on."""
        raise NotImplementedError

    def bus_master_stopped(self) -> None:
        """The driver stopped it: a drive that had not ended yet lets its command go."""
        if self.by_bus_master:
            self.fail(ABORTED)

    def block_taken(self) -> None:
        """The host has read all of ``buffer``."""
        raise NotImplementedError

    def block_given(self) -> None:
        """The host has filled ``buffer``."""
        raise NotImplementedError

    # ---- what subclasses do with it

    def ask(self, request: int) -> None:
        """The disk works on ``request`` now."""
        self.phase = Phase.ASKED
        self.request = request
        self.status = BSY

    def offer(self, data: bytes) -> None:
        """The host is to read ``data`` from the data port; interrupts."""
        self.buffer = bytearray(data)
        self.position = 0
        self.phase = Phase.TO_HOST
        self.status = READY | DRQ
        self.channel.interrupt()

    def want(self, size: int, *, interrupt: bool) -> None:
        """The host is to write ``size`` bytes into the data port."""
        self.buffer = bytearray(size)
        self.position = 0
        self.phase = Phase.FROM_HOST
        self.status = READY | DRQ
        if interrupt:
            self.channel.interrupt()

    def wait_for_bus_master(self, phase: Phase) -> None:
        self.phase = phase
        self.by_bus_master = True
        self.status = READY | DRQ
        if self.channel.bus_master.is_running:
            self.bus_master_started()

    def done(self, *, interrupt: bool = True) -> None:
        """The command has ended well."""
        self._end(READY, 0, interrupt)

    def fail(self, error: int) -> None:
        self._end(READY | ERR, error, True)

    def _end(self, status: int, error: int, interrupt: bool) -> None:
        self.phase = Phase.IDLE
        self.by_bus_master = False
        self.request = None
        self.buffer = bytearray()
        self.position = 0
        self.status = status
        self.error = error
        if interrupt:
            self.channel.interrupt()
