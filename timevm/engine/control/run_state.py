"""QEMU's run states (QAPI ``RunState``) and the moves between them as one table (QEMU: ``softmmu/runstate.c``)."""

from __future__ import annotations

from enum import Enum

from timevm.errors import InternalError


class RunState(Enum):
    DEBUG = "debug"
    GUEST_PANICKED = "guest-panicked"
    INTERNAL_ERROR = "internal-error"
    IO_ERROR = "io-error"
    PAUSED = "paused"
    PRELAUNCH = "prelaunch"
    RESTORE_VM = "restore-vm"
    RUNNING = "running"
    SAVE_VM = "save-vm"
    SHUTDOWN = "shutdown"


_STANDING = frozenset(RunState) - {RunState.RUNNING, RunState.SAVE_VM, RunState.RESTORE_VM, RunState.PRELAUNCH}
_SNAPSHOT = frozenset({RunState.SAVE_VM, RunState.RESTORE_VM})

#: from -> to.  More than QEMU's: one can go back in time from every state in which QEMU is stuck (``shutdown``,
#: ``internal-error``), and then it runs or stands again.
MOVES: dict[RunState, frozenset[RunState]] = {
    RunState.PRELAUNCH: _STANDING | _SNAPSHOT | {RunState.RUNNING},
    RunState.RUNNING: _STANDING | _SNAPSHOT,
    RunState.DEBUG: frozenset(RunState),
    RunState.PAUSED: frozenset(RunState),
    RunState.GUEST_PANICKED: frozenset(RunState),
    RunState.IO_ERROR: frozenset(RunState),
    RunState.INTERNAL_ERROR: _STANDING | _SNAPSHOT | {RunState.PRELAUNCH, RunState.RUNNING},
    RunState.SHUTDOWN: _STANDING | _SNAPSHOT | {RunState.PRELAUNCH, RunState.RUNNING},
    RunState.SAVE_VM: _STANDING | {RunState.RUNNING, RunState.PRELAUNCH},
    RunState.RESTORE_VM: _STANDING | {RunState.RUNNING, RunState.PRELAUNCH},
}

#: only a reset, or a way back in time, helps here (QEMU: ``runstate_needs_reset``)
NEEDS_RESET = frozenset({RunState.INTERNAL_ERROR, RunState.SHUTDOWN})


class IllegalRunStateMove(InternalError):
    """A move that is not in the table: timevm is wrong, not its user."""

    def __init__(self, before: RunState, after: RunState) -> None:
        self.before, self.after = before, after
        super().__init__(f"invalid runstate transition: '{before.value}' -> '{after.value}'")


def check_move(before: RunState, after: RunState) -> None:
    """Raises ``IllegalRunStateMove``."""
    if after not in MOVES[before]:
        raise IllegalRunStateMove(before, after)
