"""QEMU's run states (QAPI ``RunState``) and the moves between them as one table (QEMU: ``softmmu/runstate.c``)."""

from __future__ import annotations

from enum import Enum


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
