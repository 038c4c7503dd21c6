"""What a run of the machine ends with, and what one may ask it: plain data, shared with the floors above."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from timevm.engine.cpu.base import Watchpoint


class RunEnd(Enum):
    """Why ``MachinePort.run`` came back."""

    LIMIT = auto()  # at the icount asked for
    KICKED = auto()  # somebody called kick(): look at the inbox, then run again
    POWERED_OFF = auto()  # by the guest
    RESET = auto()  # asked for by the guest or the user; the machine has not reset itself yet
    QUIT = auto()  # a recorded QUIT request was replayed
    RECORDING_ENDED = auto()  # replay: nothing more is known; `detail` says whether in order or by damage
    DEBUG = auto()  # break- or watchpoint: see `stop`
    GUEST_PANICKED = auto()
    GUEST_ERROR = auto()  # the guest did what cannot go on


@dataclass(frozen=True, slots=True)
class DebugStop:
    """What a debugger's stop was: at ``pc``; a watchpoint also has the address accessed and whether it was written.

    ``device``: it was no instruction that wrote, but this device, by itself (DMA).
    """

    pc: int
    watch: Watchpoint | None = None
    address: int | None = None
    is_write: bool = False
    device: str = ""


@dataclass(frozen=True, slots=True)
class RunResult:
    end: RunEnd
    icount: int
    detail: str = ""
    stop: DebugStop | None = None
    #: POWERED_OFF by a device that ends the process: with this
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Stops:
    """Where a debugger wants to stop: guest virtual addresses of instructions, and watched ranges."""

    breakpoints: frozenset[int] = frozenset()
    watchpoints: frozenset[Watchpoint] = frozenset()

    def watchpoint_at(self, address: int | None) -> Watchpoint | None:
        """Which one the CPU means by this address."""
        if address is None:
            return None
        hit = [watch for watch in self.watchpoints if watch.address - 16 < address < watch.address + watch.length]
        return min(hit, key=lambda watch: watch.address, default=None)


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A named VM snapshot: ``date`` in seconds (epoch), ``vm_clock_ns`` virtual time, ``icount`` -1 if unknown."""

    identifier: str
    tag: str
    vm_state_size: int
    date: float
    vm_clock_ns: int
    icount: int


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """One range of the physical address space; ``kind`` is ``ram`` or ``io``; sizes in bytes."""

    name: str
    base: int
    size: int
    kind: str


@dataclass(frozen=True, slots=True)
class PciRegion:
    """Base address register ``bar``: ``size`` bytes of ports or memory at ``address`` (None: it does not answer)."""

    bar: int
    is_io: bool
    address: int | None
    size: int


@dataclass(frozen=True, slots=True)
class PciFunctionInfo:
    """A function on the PCI bus as its configuration header is now.

    ``identifier``: of the command line, or empty.  ``class_code``: class and subclass.  ``interrupt_pin``: 0 for none.
    """

    slot: int
    function: int
    identifier: str
    class_code: int
    vendor: int
    device: int
    subsystem_vendor: int
    subsystem: int
    interrupt_line: int
    interrupt_pin: int
    regions: tuple[PciRegion, ...]


@dataclass(frozen=True, slots=True)
class InterruptController:
    """Sets of interrupts as integers, bit N for interrupt N; ``wires`` are those whose input is up.

    ``lines``: what it is set to, a line of text for each part.  ``is_whole``: they say all of it, as QEMU's do.
    """

    name: str
    lines: tuple[str, ...]
    enabled: int
    pending: int
    active: int
    wires: int
    priorities: bytes | None = None
    is_whole: bool = False


class ReplayMode(Enum):
    """QAPI ``ReplayMode``."""

    NONE = "none"
    RECORD = "record"
    PLAY = "play"


@dataclass(frozen=True, slots=True)
class ReplayInfo:
    """``query-replay``."""

    mode: ReplayMode
    icount: int
    filename: str | None = None
    #: icount of the recording's end, known in replay only
    end: int | None = None
