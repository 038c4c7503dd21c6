"""What the event loop and the CPU thread tell each other.  Every message is one of these types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from timevm.engine.control.port import MachinePort, RunResult, Stops
from timevm.engine.control.time_travel import Journey
from timevm.errors import TimevmError


class Reply(Protocol):
    """Where the answer to a request goes; any thread may call it, once."""

    def answer(self, value: Any) -> None: ...

    def fail(self, error: BaseException) -> None: ...


class Motion(Enum):
    """What sets the machine in motion; decides the run state in which it stands afterwards."""

    RUN = auto()
    STEP = auto()
    SEEK = auto()
    REVERSE = auto()


# -- to the CPU thread


@dataclass(frozen=True, slots=True)
class Run:
    """Let it run, to ``limit`` at most."""

    limit: int | None


@dataclass(frozen=True, slots=True)
class Halt:
    """Stand still; answered when it does."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Step:
    """``count`` instructions, then one by one while ``further`` says True; answered with the RunResult."""

    count: int
    reply: Reply
    further: Callable[[MachinePort], bool] | None = None


@dataclass(frozen=True, slots=True)
class Travel:
    """A journey of the timeline; answered with the RunResult."""

    motion: Motion
    travel: Callable[[Journey], RunResult]
    reply: Reply


@dataclass(frozen=True, slots=True)
class Inspect:
    """Look at the machine between two instructions, also in mid-journey; answered with what ``look`` returns."""

    look: Callable[[MachinePort], Any]
    reply: Reply


@dataclass(frozen=True, slots=True)
class Alter:
    """As ``Inspect``, but it waits for a journey to end: snapshots, resets, core files."""

    change: Callable[[MachinePort], Any]
    reply: Reply


@dataclass(frozen=True, slots=True)
class SetStops:
    stops: Stops
    reply: Reply


@dataclass(frozen=True, slots=True)
class SetReplayBreakpoint:
    icount: int | None
    reply: Reply


@dataclass(frozen=True, slots=True)
class Leave:
    """The last message: end the recording for ``reason`` (None: it is over, or is left as it is) and the thread."""

    reason: str | None
    reply: Reply


Message = Run | Halt | Step | Travel | Inspect | Alter | SetStops | SetReplayBreakpoint | Leave


# -- from the CPU thread


@dataclass(frozen=True, slots=True)
class Began:
    """The machine is in motion."""

    motion: Motion


@dataclass(frozen=True, slots=True)
class Ended:
    """The machine stands."""

    motion: Motion
    result: RunResult


@dataclass(frozen=True, slots=True)
class Failed:
    """The machine stands because it, or timevm, cannot go on."""

    error: TimevmError
    icount: int


@dataclass(frozen=True, slots=True)
class WasReset:
    """The guest was reset and goes on."""


@dataclass(frozen=True, slots=True)
class Progressed:
    operation: str
    done: int
    total: int


Report = Began | Ended | Failed | WasReset | Progressed
