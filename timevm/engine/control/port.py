"""The machine as the control floor sees it: what the CPU thread may ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from timevm.engine.replay.events import Event


class RunEnd(Enum):
    """Why ``MachinePort.run`` came back."""

    LIMIT = auto()  # at the icount asked for
    KICKED = auto()  # somebody called kick(): look at the inbox, then run again
    POWERED_OFF = auto()  # by the guest
    RESET = auto()  # asked for by the guest or the user; the machine has not reset itself yet
    QUIT = auto()  # a recorded QUIT request was replayed
    RECORDING_ENDED = auto()  # replay: nothing more is known; `detail` says whether in order or by damage
    DEBUG = auto()  # break- or watchpoint
    GUEST_PANICKED = auto()
    GUEST_ERROR = auto()  # the guest did what cannot go on


@dataclass(frozen=True, slots=True)
class RunResult:
    end: RunEnd
    icount: int
    detail: str = ""


class MachinePort(Protocol):
    """All but ``kick`` and ``inject`` is called on the CPU thread only."""

    @property
    def icount(self) -> int: ...

    def run(self, limit: int) -> RunResult: ...

    def kick(self) -> None:
        """Any thread; also wakes an idle wait."""

    def inject(self, event: Event) -> None:
        """Any thread: hand something from outside to the gate (refused in a replay)."""

    def reset(self) -> None: ...

    def finish(self, reason: str) -> None:
        """The machine is done (``shutdown``, ``quit``): end mark, close the recording.  Idempotent."""
