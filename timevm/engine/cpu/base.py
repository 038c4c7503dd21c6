"""The ``Cpu`` protocol: what the rest of timevm knows of a processor.  Nothing here is of one architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from timevm.engine.cpu.code_trace import CodeTrace

if TYPE_CHECKING:  # who asks for these imports them, and the first instruction need not wait for that
    from timevm.engine.cpu.core_image import CoreImage
    from timevm.engine.cpu.mappings import Mappings, ReadMemory


class StopKind(Enum):
    """Why ``Cpu.run`` came back."""

    LIMIT = auto()  # exactly `limit` instructions are done
    KICK = auto()  # kick() was called, or a device asked for attention; between two instructions
    IDLE = auto()  # the CPU waits for an interrupt (WFI, HLT); the instruction is done
    POWER_OFF = auto()  # the guest switched the machine off (PSCI, ...)
    RESET = auto()  # the guest asked for a reset
    BREAKPOINT = auto()  # before the instruction at Stop.pc
    WATCHPOINT = auto()  # before the access (the instruction at Stop.pc is not done)
    GUEST_ERROR = auto()  # the CPU cannot go on; Stop.detail says why


@dataclass(frozen=True, slots=True)
class Stop:
    kind: StopKind
    icount: int
    pc: int
    #: the watched address that was hit, and whether by a write
    address: int | None = None
    is_write: bool = False
    detail: str = ""
    #: of a POWER_OFF: what the process is to end with, if the guest said it
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Collected:
    """How a run ended that passed by all stops, and the stops.

    ``passed`` ascends.  At one icount the last one counts: a breakpoint comes first, then watchpoints in the order of
    their addresses.  Not ``complete``: there were more before these.
    """

    stop: Stop
    passed: list[Stop]
    complete: bool


class WatchKind(Enum):
    READ = auto()
    WRITE = auto()
    ACCESS = auto()


@dataclass(frozen=True, slots=True)
class Watchpoint:
    """A range of guest virtual addresses, any length (bytes, > 0) and alignment.

    ``physical``: of physical ones, whoever maps them where; WRITE only, and where the CPU can
    (``Cpu.watches_physical``).  A store that begins on the page before may go unseen.
    """

    address: int
    length: int
    kind: WatchKind
    physical: bool = False


@dataclass(frozen=True, slots=True)
class Register:
    """One register as debuggers and monitors see it; ``group`` is ``general``, ``float`` or ``system``."""

    name: str
    bits: int
    group: str


@runtime_checkable
class Traceable(Protocol):
    """A CPU that can note which code runs."""

    def trace_code(self) -> CodeTrace:
        """From now on."""


class MmioHandler(Protocol):
    """A window of device registers on the bus; called on the CPU thread, between whole instructions."""

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


class Cpu(Protocol):
    """One processor with its RAM and MMIO windows mapped.  All methods but ``kick`` belong to the CPU thread."""

    #: physical watchpoints are known
    watches_physical: bool

    @property
    def registers(self) -> Sequence[Register]: ...

    def features(self) -> dict[str, int]:
        """What the processor tells a guest about itself, before it has run: the same for each machine of this model."""

    @property
    def icount(self) -> int:
        """Instructions since reset; exact inside a device access too (the accessing instruction not counted yet)."""

    @property
    def pc(self) -> int:
        """Of the next instruction, as stops name it; inside a device access of the accessing one."""

    def map_ram(self, base: int, host_address: int, size: int) -> None: ...

    def map_mmio(self, base: int, size: int, handler: MmioHandler) -> object: ...

    def run(self, limit: int) -> Stop:
        """Run until ``icount == limit`` at the latest; never past it.  O(1) native calls a slice, none per block."""

    def run_collecting(self, limit: int) -> Collected:
        """Like ``run``, but pass by break- and watchpoints, those of this very instruction included, and list them."""

    def settle(self) -> Stop:
        """Take the interrupt that is due, if one is, and stand before the next instruction: LIMIT at this icount.

        IDLE if there is no next instruction: the CPU waits.
        """

    def kick(self) -> None:
        """Any thread: make ``run`` return soon, between two instructions."""

    def ask_attention(self) -> None:
        """CPU thread, also in a device access: ``run`` returns with KICK before the next instruction (or has LIMIT)."""

    def set_interrupt(self, line: str, level: bool) -> None:
        """Drive an interrupt input; seen before the next instruction, also when called inside a device access."""

    def interrupt_pending(self) -> bool:
        """True if an interrupt input is active, masked or not: an idle CPU wakes up."""

    def set_warp(self, ns: int) -> None:
        """Virtual time is ``(icount << shift) + ns`` from now on (idle jumps, summed up)."""

    def next_timer(self) -> int | None:
        """Deadline of the CPU's own timers in ns of virtual time (None: no one armed)."""

    def fire_timers(self) -> None:
        """Drive the lines of the CPU's own timers according to virtual time now."""

    def read_register(self, name: str) -> int: ...

    def write_register(self, name: str, value: int) -> None: ...

    def core_image(self) -> CoreImage:
        """What a core file of now says of it.  About 0.3 ms."""

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """A stop that ``run`` has reported is passed by the next ``run`` from there; any other one is met."""

    def pass_breakpoint(self) -> None:
        """The breakpoint here, if there is one, counts as reported."""

    def set_watchpoints(self, watchpoints: frozenset[Watchpoint]) -> None: ...

    def translate(self, address: int) -> int | None:
        """Physical address of a guest virtual one, without side effects; None if unmapped."""

    def mappings(self, read: ReadMemory) -> Mappings:
        """All that its page tables map now; ``read`` gives physical memory.  Without side effects (``table_walk``)."""

    def code_changed(self, base: int, size: int) -> None:
        """RAM in this physical range was written by someone else than the CPU (DMA, restore, debugger)."""

    def reset(self, pc: int, arguments: Sequence[int]) -> None:
        """Power-on state, first instruction at ``pc``, ``arguments`` in the ABI's argument registers.  icount stays."""

    def state(self) -> dict[str, Any]:
        """Everything of the CPU that a snapshot holds, as a plain record (icount included)."""

    def restore(self, state: dict[str, Any]) -> None: ...
