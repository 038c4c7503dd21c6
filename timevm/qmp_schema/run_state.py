"""QAPI module ``run-state``: what the machine is doing, and its events (QEMU: ``qapi/run-state.json``)."""

from __future__ import annotations

from timevm.qmp_schema.base import Bool, Command, Event, Example, Int, QapiEnum, QapiModel, Str


class RunState(QapiEnum):
    """All of QEMU's names; timevm's machines are never in those of migration and COLO."""

    DEBUG = "debug"
    INMIGRATE = "inmigrate"
    INTERNAL_ERROR = "internal-error"
    IO_ERROR = "io-error"
    PAUSED = "paused"
    POSTMIGRATE = "postmigrate"
    PRELAUNCH = "prelaunch"
    FINISH_MIGRATE = "finish-migrate"
    RESTORE_VM = "restore-vm"
    RUNNING = "running"
    SAVE_VM = "save-vm"
    SHUTDOWN = "shutdown"
    SUSPENDED = "suspended"
    WATCHDOG = "watchdog"
    GUEST_PANICKED = "guest-panicked"
    COLO = "colo"


class ShutdownCause(QapiEnum):
    """Why the machine was reset or shut down."""

    NONE = "none"
    HOST_ERROR = "host-error"
    HOST_QMP_QUIT = "host-qmp-quit"
    HOST_QMP_SYSTEM_RESET = "host-qmp-system-reset"
    HOST_SIGNAL = "host-signal"
    HOST_UI = "host-ui"
    GUEST_SHUTDOWN = "guest-shutdown"
    GUEST_RESET = "guest-reset"
    GUEST_PANIC = "guest-panic"
    SUBSYSTEM_RESET = "subsystem-reset"
    SNAPSHOT_LOAD = "snapshot-load"


class GuestPanicAction(QapiEnum):
    PAUSE = "pause"
    POWEROFF = "poweroff"
    RUN = "run"


class StatusInfo(QapiModel):
    """``running`` is true in the run state ``running`` only; ``singlestep`` is QEMU's, always false here."""

    running: Bool
    singlestep: Bool
    status: RunState


class ShutdownData(QapiModel):
    """``guest``: whether the guest asked for it."""

    guest: Bool
    reason: ShutdownCause


class GuestPanickedData(QapiModel):
    action: GuestPanicAction


class ProgressData(QapiModel):
    """``done`` of ``total`` instructions of the journey to the place asked for; both grow in steps."""

    operation: Str
    done: Int
    total: Int


#: run states in which only a reset helps (QEMU: ``runstate_needs_reset``)
NEEDS_RESET = frozenset({"internal-error", "shutdown"})

COMMANDS = (
    Command(
        name="query-status",
        documentation="What the machine is doing.",
        result=StatusInfo,
        example=Example(None, {"running": True, "singlestep": False, "status": "running"}),
        allow_preconfig=True,
        hmp="info status",
    ),
    Command(
        name="stop",
        documentation=(
            "Pause the machine between two instructions.  Does nothing if it stands already; it is an error in no "
            "run state.  A seek or reverse run under way is cancelled: the machine is then where that began."
        ),
        example=Example(None, {}, events=(("STOP", {}),)),
        hmp="stop",
    ),
    Command(
        name="cont",
        documentation="Let the machine run.  Does nothing if it runs already.",
        example=Example(None, {}, events=(("RESUME", {}),)),
        errors=("Resetting the Virtual Machine is required",),
        run_states=frozenset(state.value for state in RunState) - NEEDS_RESET,
        refusal="Resetting the Virtual Machine is required",
        hmp="cont",
    ),
    Command(
        name="system_reset",
        documentation="Press the reset button.  Recorded when recording; refused in a replay.",
        example=Example(None, {}, events=(("RESET", {"guest": False, "reason": "host-qmp-system-reset"}),)),
        hmp="system_reset",
    ),
    Command(
        name="system_powerdown",
        documentation=(
            "Press the power button.  The guest decides what to do with it.  Recorded when recording; refused in a "
            "replay."
        ),
        example=Example(None, {}, events=(("POWERDOWN", {}),)),
        hmp="system_powerdown",
    ),
    Command(
        name="quit",
        documentation="End timevm in order: the recording is closed first, then the disks, then the connections.",
        example=Example(None, {}, events=(("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"}),)),
        allow_preconfig=True,
        hmp="quit",
    ),
)

EVENTS = (
    Event("STOP", "The machine stands."),
    Event("RESUME", "The machine runs."),
    Event(
        "RESET",
        "The machine was reset.",
        ShutdownData,
        {"guest": False, "reason": "host-qmp-system-reset"},
    ),
    Event(
        "SHUTDOWN",
        "The machine is switched off, or timevm was asked to end.",
        ShutdownData,
        {"guest": True, "reason": "guest-shutdown"},
    ),
    Event("POWERDOWN", "The power button was pressed."),
    Event("GUEST_PANICKED", "The guest's kernel panicked.", GuestPanickedData, {"action": "pause"}),
    Event(
        "TIMEVM_PROGRESS",
        "A seek or a reverse run takes longer than a second (timevm's own).",
        ProgressData,
        {"operation": "seek", "done": 250000000, "total": 1000000000},
    ),
)
