"""What can come from outside.  An event is applied between two instructions, at one icount, through the gate only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class RequestKind(IntEnum):
    """Requests of the user to the machine itself."""

    RESET = 1
    POWERDOWN = 2
    QUIT = 3
    NMI = 4


@dataclass(frozen=True, slots=True)
class SerialInput:
    """Bytes that arrive at serial port ``port`` (0 is the first UART), all at one icount."""

    port: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Idle:
    """The idle machine's virtual time jumps forward by ``ns`` (> 0)."""

    ns: int


@dataclass(frozen=True, slots=True)
class Request:
    """A reset, power button, quit or non-maskable interrupt asked for from outside."""

    kind: RequestKind


@dataclass(frozen=True, slots=True)
class BlockCompletion:
    """Request number ``request`` (from 0, in the order of issue) of disk number ``drive`` is done: its device is told.

    What a read returned is not here: it follows from the disk.  ``failed``: the host could not do it, and the guest
    was told so.
    """

    drive: int
    request: int
    failed: bool = False


@dataclass(frozen=True, slots=True)
class NetworkInput:
    """A frame (Ethernet, without checksum) arrives at network card number ``card``, 0 being the first."""

    card: int
    frame: bytes

    def __str__(self) -> str:
        """For people: the frame itself is long."""
        target, source = self.frame[:6].hex(":"), self.frame[6:12].hex(":")
        return (
            f"NetworkInput(card={self.card}, {len(self.frame)} bytes from {source or 'nobody'} to {target or 'nobody'})"
        )


@dataclass(frozen=True, slots=True)
class Digest:
    """What the machine looked like: one 64-bit hash per named part (``cpu``, ``ram``, ``devices``).

    Written by the recorder at intervals; verified, never applied.
    """

    cpu: int
    ram: int
    devices: int


@dataclass(frozen=True, slots=True)
class End:
    """The recording ended here in an orderly way; ``reason`` is ``shutdown``, ``quit``, ``reset`` or ``look-back``."""

    reason: str


Event = SerialInput | Idle | Request | BlockCompletion | NetworkInput | Digest | End
#: what waits outside until the guest has room for it
Input = SerialInput | NetworkInput
