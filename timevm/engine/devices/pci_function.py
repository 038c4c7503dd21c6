"""One PCI function: configuration header of type 0, base address registers, capabilities (PCI 2.1, chapter 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from timevm.errors import InternalError

SIZE: Final = 256

# offsets of the header
VENDOR_ID, DEVICE_ID, COMMAND, STATUS, REVISION, PROGRAMMING, SUBCLASS, CLASS = 0, 2, 4, 6, 8, 9, 0xA, 0xB
HEADER_TYPE, BARS, SUBSYSTEM_VENDOR, SUBSYSTEM, CAPABILITIES, INTERRUPT_LINE, INTERRUPT_PIN = (
    0x0E, 0x10, 0x2C, 0x2E, 0x34, 0x3C, 0x3D
)  # fmt: skip
FIRST_CAPABILITY: Final = 0x40
MULTIFUNCTION: Final = 0x80

COMMAND_IO, COMMAND_MEMORY, COMMAND_MASTER, COMMAND_NO_INTERRUPT = 0x001, 0x002, 0x004, 0x400
COMMAND_WRITABLE: Final = 0x0547  # also parity, SERR
STATUS_INTERRUPT, STATUS_CAPABILITIES = 0x0008, 0x0010
BAR_IO: Final = 0x1


class BarHandler(Protocol):
    """The registers behind a base address register; offsets are relative to it."""

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Bar:
    """Base address register ``index`` (0 to 5) with ``size`` bytes (a power of two) of ports or memory."""

    index: int
    size: int
    is_io: bool
    handler: BarHandler


@dataclass(frozen=True, slots=True)
class Identity:
    """``class_code``: class, subclass and programming interface as one number of 24 bits."""

    vendor: int
    device: int
    class_code: int
    revision: int = 0
    subsystem_vendor: int = 0
    subsystem: int = 0
    multifunction: bool = False


@dataclass(frozen=True, slots=True)
class PciWindow:
    """Where the registers of a function are at present."""

    base: int
    size: int
    is_io: bool
    handler: BarHandler


def _nothing() -> None:
    """What ``moved`` is until the function is on a bus."""


class PciFunction:
    """Stateful.  Subclasses add registers by ``allow`` and hear of writes by ``config_written``.

    ``moved`` is called when windows may have moved.  ``pin``: 0 for none, 1 for INTA.
    """

    def __init__(self, name: str, identity: Identity, bars: Sequence[Bar] = (), pin: int = 0) -> None:
        self.name = name
        #: of the command line, for people
        self.identifier = ""
        self.moved: Callable[[], None] = _nothing
        self.bars = tuple(bars)
        initial, writable = bytearray(SIZE), bytearray(SIZE)
        self._initial, self._writable = initial, writable
        self._next_capability = FIRST_CAPABILITY
        self._last_link = CAPABILITIES
        self.set_initial(VENDOR_ID, 2, identity.vendor)
        self.set_initial(DEVICE_ID, 2, identity.device)
        self.set_initial(REVISION, 1, identity.revision)
        self.set_initial(PROGRAMMING, 3, identity.class_code)
        self.set_initial(HEADER_TYPE, 1, MULTIFUNCTION * identity.multifunction)
        self.set_initial(SUBSYSTEM_VENDOR, 2, identity.subsystem_vendor)
        self.set_initial(SUBSYSTEM, 2, identity.subsystem)
        self.set_initial(INTERRUPT_PIN, 1, pin)
        self.allow(COMMAND, 2, COMMAND_WRITABLE)
        self.allow(0x0C, 1, 0xFF)  # cache line size
        self.allow(0x0D, 1, 0xFF)  # latency timer
        self.allow(INTERRUPT_LINE, 1, 0xFF)
        for bar in self.bars:
            if bar.size & bar.size - 1 or bar.size < (4 if bar.is_io else 16):
                raise InternalError(f"{name}: a base address register cannot have {bar.size} bytes")
            self.set_initial(BARS + 4 * bar.index, 4, BAR_IO if bar.is_io else 0)
            self.allow(BARS + 4 * bar.index, 4, (1 << 32) - bar.size)
        self.config = bytearray(initial)

    # ---- construction

    def set_initial(self, offset: int, size: int, value: int) -> None:
        self._initial[offset : offset + size] = value.to_bytes(size, "little")

    def allow(self, offset: int, size: int, mask: int) -> None:
        """Bits that configuration writes change."""
        self._writable[offset : offset + size] = mask.to_bytes(size, "little")

    def add_capability(self, identifier: int, body: bytes) -> int:
        """``body`` follows the two bytes of the list; gives the offset of the capability."""
        offset, size = self._next_capability, 2 + len(body)
        self.set_initial(STATUS, 2, STATUS_CAPABILITIES)
        self._initial[self._last_link] = offset
        self._initial[offset : offset + size] = bytes((identifier, 0)) + body
        self._last_link = offset + 1
        self._next_capability = (offset + size + 3) // 4 * 4
        self.config = bytearray(self._initial)
        return offset

    # ---- Stateful

    def reset(self) -> None:
        self.config = bytearray(self._initial)
        self.moved()

    def traits(self) -> dict[str, Any]:
        return {"bars": [[bar.index, bar.size, bar.is_io] for bar in self.bars]}

    def state(self) -> dict[str, Any]:
        return {"config": bytes(self.config)}

    def restore(self, state: dict[str, Any]) -> None:
        self.config = bytearray(state["config"])
        self.moved()

    # ---- the bus

    def config_read(self, offset: int, size: int) -> int:
        """Within the 256 bytes, not across them."""
        return int.from_bytes(self.config[offset : offset + size], "little")

    def config_write(self, offset: int, size: int, value: int) -> None:
        for index in range(size):
            at = offset + index
            mask = self._writable[at]
            self.config[at] = self.config[at] & ~mask | value >> 8 * index & mask
        self.moved()
        self.config_written(offset, size)

    def config_written(self, offset: int, size: int) -> None:
        """Something in ``size`` bytes from ``offset`` on may have another value."""

    @property
    def command(self) -> int:
        return self.config_read(COMMAND, 2)

    @property
    def is_master(self) -> bool:
        """Whether the function may reach RAM."""
        return bool(self.command & COMMAND_MASTER)

    def windows(self) -> list[PciWindow]:
        """What answers now."""
        placed = [(bar, self.base_of(bar)) for bar in self.bars]
        return [PciWindow(base, bar.size, bar.is_io, bar.handler) for bar, base in placed if base is not None]

    def base_of(self, bar: Bar) -> int | None:
        """Where it answers, by the command register and its base address; an address of zero means nowhere."""
        if not self.command & (COMMAND_IO if bar.is_io else COMMAND_MEMORY):
            return None
        base = self.config_read(BARS + 4 * bar.index, 4) & (1 << 32) - bar.size
        return base if base and not (bar.is_io and base + bar.size > 0x1_0000) else None
