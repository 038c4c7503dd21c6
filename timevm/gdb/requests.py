"""What a client may ask, one type each.  ``parse.py`` makes them from packets; the session carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Ask(Enum):
    """Requests without arguments; the value is the packet, or the word by which it is known."""

    WHY_STOPPED = "?"
    EXTENDED_MODE = "!"
    READ_REGISTERS = "g"
    REVERSE_STEP = "bs"
    REVERSE_CONTINUE = "bc"
    KILL = "k"
    KILL_AND_ANSWER = "vKill"
    DETACH = "D"
    ATTACH = "vAttach"
    RESUME_KINDS = "vCont?"
    STAY = "vCont;t"
    INTERRUPT = "vCtrlC"
    CURRENT_THREAD = "qC"
    FIRST_THREADS = "qfThreadInfo"
    MORE_THREADS = "qsThreadInfo"
    THREAD_DESCRIPTION = "qThreadExtraInfo"
    ATTACHED = "qAttached"
    SYMBOLS = "qSymbol"
    NO_ACKNOWLEDGEMENTS = "QStartNoAckMode"
    THREAD_SUFFIX = "QThreadSuffixSupported"
    PHYSICAL_MEMORY = "qqemu.PhyMemMode"
    STEP_BITS = "qqemu.sstepbits"
    STEP_FLAGS = "qqemu.sstep"
    QEMU_SUPPORTED = "qqemu.Supported"
    ICOUNT = "qTimevm.Icount"
    REFRESHES = "QTimevm.Refreshes"


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nothing that we know: the answer is an empty packet."""


@dataclass(frozen=True, slots=True)
class Supported:
    """``qSupported``: what the client can do, e.g. ``swbreak+``."""

    features: frozenset[str]


@dataclass(frozen=True, slots=True)
class WriteRegisters:
    """``G``: the first of the registers, as ``g`` gives them."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ReadRegister:
    number: int


@dataclass(frozen=True, slots=True)
class WriteRegister:
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ReadMemory:
    """``length`` in bytes; the address is a virtual one, unless the client chose ``qqemu.PhyMemMode``."""

    address: int
    length: int


@dataclass(frozen=True, slots=True)
class WriteMemory:
    """``M`` and ``X``."""

    address: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SelectThread:
    """``H``; ``thread`` 0 is any, -1 all of them."""

    operation: str
    thread: int


@dataclass(frozen=True, slots=True)
class ThreadAlive:
    thread: int


@dataclass(frozen=True, slots=True)
class Continue:
    """``c``, ``C`` and their ``vCont``; from ``address`` if there is one.  Signals mean nothing to a machine."""

    address: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """``s``, ``S`` and their ``vCont``."""

    address: int | None = None


@dataclass(frozen=True, slots=True)
class StepRange:
    """``vCont;r``: steps while pc is in ``start`` … ``end - 1``, one at least."""

    start: int
    end: int


class StopKind(Enum):
    """The digit of ``Z`` and ``z``."""

    SOFTWARE = 0
    HARDWARE = 1
    WRITE = 2
    READ = 3
    ACCESS = 4


@dataclass(frozen=True, slots=True)
class InsertStop:
    """``size``: bytes watched; for breakpoints the kind of instruction there."""

    kind: StopKind
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class RemoveStop:
    kind: StopKind
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """``qXfer:NAME:read:ANNEX:offset,length``: a part of a document."""

    name: str
    annex: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class MemoryRegionAt:
    """``qMemoryRegionInfo:address``"""

    address: int


@dataclass(frozen=True, slots=True)
class Monitor:
    """``qRcmd``: a line for the human monitor."""

    line: str


@dataclass(frozen=True, slots=True)
class SetPhysicalMemory:
    """``Qqemu.PhyMemMode``"""

    on: bool


@dataclass(frozen=True, slots=True)
class SetStepFlags:
    """``Qqemu.sstep``: QEMU's bits; 1 is a step with interrupts and timers, which is all we do."""

    flags: int


Request = (
    Ask
    | Unknown
    | Supported
    | WriteRegisters
    | ReadRegister
    | WriteRegister
    | ReadMemory
    | WriteMemory
    | SelectThread
    | ThreadAlive
    | Continue
    | Step
    | StepRange
    | InsertStop
    | RemoveStop
    | Transfer
    | MemoryRegionAt
    | Monitor
    | SetPhysicalMemory
    | SetStepFlags
)

_WAYS_BACK = (Ask.REVERSE_STEP, Ask.REVERSE_CONTINUE)


def lets_go(request: Request) -> bool:
    """The machine moves for it; the answer is a stop reply, whenever that may be."""
    return isinstance(request, Continue | Step | StepRange) or request in _WAYS_BACK
