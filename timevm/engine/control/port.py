"""The two sides of the control floor as Protocols: the machine below it (CPU thread), the ``Vm`` above (event loop).

QMP, HMP and gdb see ``VmPort`` only.  Whatever looks into the machine does so through ``VmPort.inspect``, which
runs a function on the CPU thread between two instructions; nothing else ever touches the machine (rule 6).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from timevm.engine.control.run_state import RunState
from timevm.engine.cpu.base import Register, WatchKind, Watchpoint
from timevm.engine.machine.outcome import (
    DebugStop,
    InterruptController,
    MemoryRegion,
    PciFunctionInfo,
    PciRegion,
    ReplayInfo,
    ReplayMode,
    RunEnd,
    RunResult,
    SnapshotInfo,
    Stops,
)
from timevm.engine.replay.events import Event

if TYPE_CHECKING:
    from timevm.engine.cpu.mappings import Mappings
    from timevm.engine.machine.memory_image import MemoryImage

__all__ = [
    "DebugStop",
    "InterruptController",
    "MachinePort",
    "MemoryRegion",
    "PciFunctionInfo",
    "PciRegion",
    "Register",
    "ReplayInfo",
    "ReplayMode",
    "RunEnd",
    "RunResult",
    "SnapshotInfo",
    "Stops",
    "VmEvent",
    "VmPort",
    "WatchKind",
    "Watchpoint",
]

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class VmEvent:
    """What happened, named as QMP's events are (``STOP``, ``RESUME``, ``RESET``, ``SHUTDOWN``, ``POWERDOWN``,
    ``GUEST_PANICKED``, ``JOB_STATUS_CHANGE``, ``TIMEVM_PROGRESS``) with their ``data``; ``seconds`` is host time.

    ``result`` is there with a ``STOP`` that ended a run: why it ended.
    """

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    result: RunResult | None = None


class MachinePort(Protocol):
    """The machine as the CPU thread sees it.  All but ``kick`` and ``inject`` is called on the CPU thread only."""

    name: str
    #: of the CPU, in the order in which a debugger lists them
    registers: Sequence[Register]
    #: watchpoints may be of physical addresses
    watches_physical: bool
    #: the board has an input for non-maskable interrupts
    takes_nmi: bool

    @property
    def icount(self) -> int: ...

    def now_ns(self) -> int:
        """Virtual time in ns."""

    def run(self, limit: int) -> RunResult:
        """Run until ``icount == limit`` at the latest."""

    def kick(self) -> None:
        """Any thread; also wakes an idle wait."""

    def inject(self, event: Event) -> None:
        """Any thread: hand something from outside to the gate (refused in a replay)."""

    def reset(self) -> None: ...

    def finish(self, reason: str) -> None:
        """The machine is done (``shutdown``, ``quit``): end mark, close the recording.  Idempotent."""

    def replay_info(self) -> ReplayInfo: ...

    def set_stops(self, stops: Stops) -> None:
        """Replaces all break- and watchpoints; they never change what the guest does, nor end up in checkpoints."""

    def pass_breakpoint(self) -> None:
        """Who lets it go on from here has seen the breakpoint here: the next ``run`` passes it (not a watchpoint)."""

    def read_register(self, name: str) -> int: ...

    def write_register(self, name: str, value: int) -> None: ...

    def translate(self, address: int) -> int | None:
        """Physical address of a guest virtual one, without side effects; None if unmapped."""

    def mappings(self) -> Mappings:
        """All that the page tables map now, without side effects.  Some ms for a Linux guest (``table_walk``)."""

    def read_memory(self, address: int, size: int, *, physical: bool = False) -> bytes:
        """RAM only (no device register is touched); shorter than ``size`` where the mapping ends, b'' if nothing."""

    def write_memory(self, address: int, data: bytes, *, physical: bool = False) -> int:
        """Bytes written (0 if nothing is mapped); drops translated code."""

    def memory_map(self) -> list[MemoryRegion]: ...

    def pci_functions(self) -> list[PciFunctionInfo]:
        """In order; empty where there is no PCI bus."""

    def interrupt_controllers(self) -> list[InterruptController]: ...

    def memory_image(self) -> MemoryImage:
        """All memory that a debugger may want, not copied: to be read while the machine stands."""

    def device_states(self) -> dict[str, dict[str, Any]]:
        """Each device's plain state record by its name, for people to look at."""


class VmPort(Protocol):
    """The machine as monitors and debuggers see it.  Everything here is called on the event loop.

    Requests are carried out in order by the CPU thread.  Errors are of timevm.errors: ``UserError`` for a request that
    is wrong now (message in QEMU's words), others as they come.
    """

    name: str | None
    #: gdb's architecture name, e.g. ``aarch64``
    architecture: str
    #: of the command line, e.g. ``virt`` and ``cortex-a57``
    machine_type: str
    cpu_type: str
    ram_size: int

    @property
    def run_state(self) -> RunState: ...

    @property
    def mode(self) -> ReplayMode:
        """Changes once at most, from RECORD to PLAY."""

    async def cont(self, limit: int | None = None) -> None:
        """Let it run (to ``limit`` at most); returns at once.  Its end is a ``STOP`` event."""

    async def stop(self) -> None:
        """Returns when it stands between two instructions."""

    async def step(self, count: int = 1, further: Callable[[MachinePort], bool] | None = None) -> RunResult:
        """``count`` instructions forward, then paused again (run state ``paused`` or ``debug``).

        ``further`` is asked on the CPU thread after them, and after each one more while it says True.
        """

    async def seek(self, icount: int) -> RunResult:
        """Replay only: to exactly ``icount``, either way.  Cancelled by ``stop``: then it is where it started."""

    async def reverse_step(self, count: int = 1) -> RunResult: ...

    async def reverse_continue(self) -> RunResult:
        """Back to the last stop before now; at the start of history ``RunResult.end`` is LIMIT and icount the start."""

    async def find_last(self, stops: Stops) -> RunResult:
        """What a reverse run with these stops would answer; the machine is afterwards exactly where it was."""

    async def review(self, count: int, look: Callable[[MachinePort, int], Answer]) -> list[Answer]:
        """What ``look`` says of each of the last ``count`` instructions (or of all) just before it is executed.

        It gets the instruction's address, on the CPU thread; the machine stays where it is.  30 us an instruction.
        Raises UserError if it does not replay, or is interrupted.
        """

    async def look_back(self) -> RunResult:
        """Recording only: end it here; the machine stands where it stood, and replays from now on.

        May take as long as the recording did, if nothing is remembered of it; ``stop`` ends that at its start.
        """

    async def system_reset(self) -> None: ...

    async def system_powerdown(self) -> None: ...

    async def inject_nmi(self) -> None:
        """Raises UserError where the board takes none."""

    async def quit(self) -> None:
        """Ask the process to end in order."""

    @property
    def stops(self) -> Stops:
        """What ``set_stops`` was last given (none at first): who borrows the stops gives them back."""

    async def set_stops(self, stops: Stops) -> None: ...

    async def set_replay_breakpoint(self, icount: int | None) -> None:
        """``replay-break`` (None: ``replay-delete-break``): running stops there."""

    async def replay_info(self) -> ReplayInfo:
        """Exact, also while running."""

    async def inspect(self, look: Callable[[MachinePort], Answer], *, arrived: bool = False) -> Answer:
        """Run ``look`` on the CPU thread between two instructions; the machine goes on afterwards as it was.

        ``arrived``: not in the middle of a seek or a way back, but where that ends.
        """

    async def save_snapshot(self, tag: str | None) -> SnapshotInfo: ...

    async def load_snapshot(self, tag: str) -> None: ...

    async def delete_snapshot(self, tag: str) -> None: ...

    async def snapshots(self) -> list[SnapshotInfo]:
        """Raises UserError if there is no place for snapshots."""

    def subscribe(self) -> AbstractContextManager[AsyncIterator[VmEvent]]:
        """Events from now on, one bounded queue a subscriber (use ``with``)."""
