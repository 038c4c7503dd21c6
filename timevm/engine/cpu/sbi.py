"""The RISC-V Supervisor Binary Interface, version 2.0, for a machine with one hart and no M-mode firmware.

A CPU in S-mode asks by ECALL: the extension in a7, the function in a6, arguments in a0 to a5.  What a call does to the
machine goes through ``Platform``; what it does to the CPU is the ``SbiOutcome``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from timevm.engine.cpu.base import StopKind

#: six registers, as unsigned 64-bit numbers
Arguments = tuple[int, int, int, int, int, int]

SPECIFICATION_2_0: Final = 2 << 24
#: who we are; the list of implementations in the specification has no number for us
IMPLEMENTATION, IMPLEMENTATION_VERSION = 0x74_696D_65, 0x0001_0000

HART: Final = 0
#: hart_mask_base of a call that means all harts; a deadline that means never
ALL: Final = (1 << 64) - 1
HART_STARTED: Final = 0
RETENTIVE, NON_RETENTIVE, PLATFORM_SUSPENDS = 0, 0x8000_0000, (0x1000_0000, 0x9000_0000)
SHUTDOWN, COLD_REBOOT, WARM_REBOOT, VENDOR_RESETS = 0, 1, 2, 0xF000_0000
NO_REASON, SYSTEM_FAILURE, IMPLEMENTATION_REASONS = 0, 1, 0xE000_0000
#: bytes that one call of the debug console moves; more take more calls (section 12.1 allows it)
CONSOLE_MOST: Final = 4096
NO_CHARACTER: Final = -1


class Error(IntEnum):
    """Section 3, table 1."""

    SUCCESS = 0
    FAILED = -1
    NOT_SUPPORTED = -2
    INVALID_PARAM = -3
    DENIED = -4
    INVALID_ADDRESS = -5
    ALREADY_AVAILABLE = -6


class Extension(IntEnum):
    """The legacy calls are extensions of their own, with nothing in a6."""

    SET_TIMER = 0x00
    CONSOLE_PUTCHAR = 0x01
    CONSOLE_GETCHAR = 0x02
    CLEAR_IPI = 0x03
    SEND_IPI = 0x04
    REMOTE_FENCE_I = 0x05
    REMOTE_SFENCE_VMA = 0x06
    REMOTE_SFENCE_VMA_ASID = 0x07
    SHUTDOWN = 0x08
    BASE = 0x10
    TIME = 0x5449_4D45
    IPI = 0x73_5049
    RFENCE = 0x5246_4E43
    HSM = 0x48_534D
    SRST = 0x5352_5354
    DBCN = 0x4442_434E


@dataclass(frozen=True, slots=True)
class SbiOutcome:
    """``error`` goes to a0 and ``value`` to a1, both signed; ``value`` None (legacy calls): a1 stays as it is.

    ``stop`` ends the run; ``wait`` suspends the hart until an interrupt; ``fence`` drops what it knows of page tables
    and of instructions in memory.
    """

    error: int = Error.SUCCESS
    value: int | None = 0
    stop: StopKind | None = None
    wait: bool = False
    fence: bool = False


class Platform(Protocol):
    """What the firmware asks of the machine.  Times are in ticks of the ``time`` register."""

    def set_timer(self, ticks: int) -> None:
        """Lower the supervisor's timer interrupt, and raise it when ``time`` reaches ``ticks``; at once if it has."""

    def set_software_interrupt(self, level: bool) -> None:
        """The supervisor's; the guest lowers it by itself too."""

    def write_console(self, data: bytes) -> None: ...

    def read_console(self, most: int) -> bytes:
        """What has been typed and not been read yet, up to ``most`` bytes; does not wait."""

    def read_memory(self, address: int, size: int) -> bytes | None:
        """By physical address; None if any of it is not RAM."""

    def write_memory(self, address: int, data: bytes) -> bool:
        """By physical address; False if any of it is not RAM, and then nothing is written."""

    def read_virtual(self, address: int, size: int) -> bytes | None:
        """As the supervisor sees memory now; None if any of it is not mapped to RAM."""


_NOT_SUPPORTED = SbiOutcome(Error.NOT_SUPPORTED)
_INVALID = SbiOutcome(Error.INVALID_PARAM)


class Sbi:
    """The firmware: call it with (extension, function, arguments).  It has no state of its own."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._extensions: dict[int, Callable[[int, Arguments], SbiOutcome]] = {
            Extension.BASE: self._base,
            Extension.TIME: self._time,
            Extension.IPI: self._ipi,
            Extension.RFENCE: self._rfence,
            Extension.HSM: self._hsm,
            Extension.SRST: self._srst,
            Extension.DBCN: self._dbcn,
        }

    def __call__(self, extension: int, function: int, arguments: Arguments) -> SbiOutcome:
        """Both identifiers have 32 bits; every unknown one is NOT_SUPPORTED (section 3)."""
        extension &= 0xFFFF_FFFF
        if extension <= Extension.SHUTDOWN:
            return self._legacy(extension, arguments)
        answer = self._extensions.get(extension)
        return _NOT_SUPPORTED if answer is None else answer(function & 0xFFFF_FFFF, arguments)

    def _base(self, function: int, arguments: Arguments) -> SbiOutcome:
        match function:
            case 0:
                return SbiOutcome(value=SPECIFICATION_2_0)
            case 1:
                return SbiOutcome(value=IMPLEMENTATION)
            case 2:
                return SbiOutcome(value=IMPLEMENTATION_VERSION)
            case 3:
                wanted = arguments[0] & 0xFFFF_FFFF
                return SbiOutcome(value=int(wanted <= Extension.SHUTDOWN or wanted in self._extensions))
            case 4 | 5 | 6:  # mvendorid, marchid, mimpid: "not implemented" in the privileged specification
                return SbiOutcome(value=0)
            case _:
                return _NOT_SUPPORTED

    def _time(self, function: int, arguments: Arguments) -> SbiOutcome:
        if function != 0:
            return _NOT_SUPPORTED
        self._platform.set_timer(arguments[0])
        return SbiOutcome()

    def _ipi(self, function: int, arguments: Arguments) -> SbiOutcome:
        if function != 0:
            return _NOT_SUPPORTED
        meant = _means_us(arguments[0], arguments[1])
        if meant is None:
            return _INVALID
        if meant:
            self._platform.set_software_interrupt(True)
        return SbiOutcome()

    def _rfence(self, function: int, arguments: Arguments) -> SbiOutcome:
        """FENCE.I, SFENCE.VMA with and without an address space; those from 3 on need the hypervisor extension."""
        if function > 2:
            return _NOT_SUPPORTED
        meant = _means_us(arguments[0], arguments[1])
        return _INVALID if meant is None else SbiOutcome(fence=meant)

    def _hsm(self, function: int, arguments: Arguments) -> SbiOutcome:
        match function:
            case 0:
                return SbiOutcome(Error.ALREADY_AVAILABLE if arguments[0] == HART else Error.INVALID_PARAM)
            case 1:
                # the last hart that stops leaves a machine that never goes on
                return SbiOutcome(stop=StopKind.POWER_OFF)
            case 2:
                return SbiOutcome(value=HART_STARTED) if arguments[0] == HART else _INVALID
            case 3:
                return _suspend(arguments[0] & 0xFFFF_FFFF)
            case _:
                return _NOT_SUPPORTED

    def _srst(self, function: int, arguments: Arguments) -> SbiOutcome:
        if function != 0:
            return _NOT_SUPPORTED
        kind, reason = arguments[0] & 0xFFFF_FFFF, arguments[1] & 0xFFFF_FFFF
        if kind >= VENDOR_RESETS:
            return _NOT_SUPPORTED
        if kind > WARM_REBOOT or SYSTEM_FAILURE < reason < IMPLEMENTATION_REASONS:
            return _INVALID
        return SbiOutcome(stop=StopKind.POWER_OFF if kind == SHUTDOWN else StopKind.RESET)

    def _dbcn(self, function: int, arguments: Arguments) -> SbiOutcome:
        platform = self._platform
        size, address = min(arguments[0], CONSOLE_MOST), arguments[1] | arguments[2] << 64
        match function:
            case 0:
                data = platform.read_memory(address, size)
                if data is None:
                    return _INVALID
                platform.write_console(data)
                return SbiOutcome(value=len(data))
            case 1:
                # a bad address must not cost what was typed
                if platform.read_memory(address, size) is None:
                    return _INVALID
                data = platform.read_console(size)
                platform.write_memory(address, data)
                return SbiOutcome(value=len(data))
            case 2:
                platform.write_console(bytes((arguments[0] & 0xFF,)))
                return SbiOutcome()
            case _:
                return _NOT_SUPPORTED

    def _legacy(self, extension: int, arguments: Arguments) -> SbiOutcome:
        """Section 5: the result in a0 and nothing else; harts are a bitmap at an address, 0 for all."""
        platform = self._platform
        match extension:
            case Extension.SET_TIMER:
                platform.set_timer(arguments[0])
            case Extension.CONSOLE_PUTCHAR:
                platform.write_console(bytes((arguments[0] & 0xFF,)))
            case Extension.CONSOLE_GETCHAR:
                typed = platform.read_console(1)
                return SbiOutcome(typed[0] if typed else NO_CHARACTER, None)
            case Extension.CLEAR_IPI:
                platform.set_software_interrupt(False)
            case Extension.SHUTDOWN:
                return SbiOutcome(value=None, stop=StopKind.POWER_OFF)
            case _:
                mask = 1 << HART
                if arguments[0]:
                    found = platform.read_virtual(arguments[0], 8)
                    if found is None:
                        return SbiOutcome(Error.INVALID_ADDRESS, None)
                    mask = int.from_bytes(found, "little")
                meant = bool(mask & 1 << HART)
                if extension != Extension.SEND_IPI:
                    return SbiOutcome(value=None, fence=meant)
                if meant:
                    platform.set_software_interrupt(True)
        return SbiOutcome(value=None)


def _means_us(mask: int, base: int) -> bool | None:
    """Whether the harts ``base + n`` for the bits n of ``mask`` include ours; None: one of them does not exist."""
    if base == ALL:
        return True
    if not mask:
        return False
    return True if (base, mask) == (HART, 1) else None


def _suspend(kind: int) -> SbiOutcome:
    """Section 9.4: the retentive suspend is a wait for an interrupt; no other is there."""
    if kind == RETENTIVE:
        return SbiOutcome(wait=True)
    if kind == NON_RETENTIVE or any(first <= kind < first + 0x7000_0000 for first in PLATFORM_SUSPENDS):
        return _NOT_SUPPORTED
    return _INVALID
