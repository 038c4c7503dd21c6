"""What ends the process, and what only ends a run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class VmPolicy:
    """``stays``: a replay that is over pauses (somebody can talk to it) and does not end the process."""

    no_reboot: bool = False
    no_shutdown: bool = False
    stays: bool = True


class OverReason(Enum):
    """Why the process shall end."""

    QUIT = "quit"
    GUEST = "guest"
    REPLAY_ENDED = "replay ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Over:
    """The end of the run: the reason, and a sentence if something went wrong.

    ``exit_code``: the process's, where the guest has a say in it.
    """

    reason: OverReason
    detail: str = ""
    exit_code: int = 0
