"""timevm's own commands: the ways back, for scripts.  Every one has a twin in the human monitor."""

from __future__ import annotations

from pydantic import Field

from timevm.qmp_schema.base import Address, Bool, Command, Example, Int, Number, QapiEnum, QapiModel, Str
from timevm.qmp_schema.run_state import RunState

REPLAY_ONLY = "going back is allowed only in play mode"
#: what else there is while recording
LOOK_BACK = "look_back (QMP: x-timevm-look-back) ends the recording here, and then one can"
#: instructions that one command shows
MOST_REVIEWED = 100_000


class TimevmStopReason(QapiEnum):
    """Why a run ended: at the place asked for, at a stop, at one end of history, or because somebody said stop."""

    ARRIVED = "arrived"
    BREAKPOINT = "breakpoint"
    WATCHPOINT = "watchpoint"
    RECORDING_ENDED = "recording-ended"
    HISTORY_BEGAN = "history-began"
    INTERRUPTED = "interrupted"
    GUEST_ENDED = "guest-ended"


class TimevmCount(QapiModel):
    """``count``: instructions, 1 if absent."""

    count: Int = 1


class TimevmStopped(QapiModel):
    """Where the machine stands now.  ``address`` and ``write`` tell of a watchpoint's access; ``detail`` is prose.

    ``device``: it was no instruction that wrote, but this device, by itself (DMA).
    """

    icount: Int
    reason: TimevmStopReason
    pc: Address | None = None
    address: Address | None = None
    write: Bool | None = None
    device: Str | None = None
    detail: Str | None = None


class TimevmStops(QapiModel):
    """Guest virtual addresses of instructions, and of bytes whose writes are watched."""

    breakpoints: list[Address] = Field(default_factory=list)
    writes: list[Address] = Field(default_factory=list)


class TimevmRange(QapiModel):
    """``address``: guest virtual, or ``physical``; ``length`` in bytes, 8 if absent."""

    address: Address
    length: Int = 8
    physical: Bool = False


class TimevmReview(QapiModel):
    """``count``: instructions, 20 if absent."""

    count: Int = 20


class TimevmInstruction(QapiModel):
    """``icount``: of the moment before it.  ``code``: its bytes in hexadecimal; ``text``: in assembly language."""

    icount: Int
    pc: Address
    code: Str
    text: Str | None = None


class TimevmMark(QapiModel):
    """A named moment.  ``kind`` is ``start``, ``now``, ``end``, ``snapshot`` or ``breakpoint``."""

    kind: Str
    icount: Int
    name: Str | None = None


class TimevmTimeline(QapiModel):
    """``virtual-time-ns``: of the guest, now."""

    status: RunState
    icount: Int
    virtual_time_ns: Int
    marks: list[TimevmMark]


class TimevmCheckpoint(QapiModel):
    """A place in memory from which the machine can run again; ``bytes``: what would be free without it."""

    icount: Int
    bytes: Int


class TimevmCheckpoints(QapiModel):
    """``bytes`` of host memory, of ``budget`` (``rrmem``); host time spent on all ``taken`` and all ``restored``."""

    checkpoints: list[TimevmCheckpoint]
    bytes: Int
    budget: Int
    taken: Int
    taking_seconds: Number
    restored: Int
    restoring_seconds: Number


COMMANDS = (
    Command(
        name="x-timevm-step",
        documentation="Execute `count` instructions and pause.  Answers when the machine stands.",
        arguments=TimevmCount,
        result=TimevmStopped,
        example=Example({"count": 3}, {"icount": 1003, "reason": "arrived", "pc": 0x40000010}),
        errors=("count must be at least 1",),
        hmp="stepi",
    ),
    Command(
        name="x-timevm-reverse-step",
        documentation="Go back `count` instructions.  Answers when the machine stands there.",
        arguments=TimevmCount,
        result=TimevmStopped,
        example=Example({"count": 1}, {"icount": 999, "reason": "arrived", "pc": 0x40000000}),
        errors=(REPLAY_ONLY, "count must be at least 1"),
        hmp="reverse_stepi",
    ),
    Command(
        name="x-timevm-reverse-continue",
        documentation=(
            "Go back to the last moment before now at which one of the stops was hit.  Without arguments the stops are "
            "those that a debugger has set; otherwise they are the ones given, for this run only.  With none hit, the "
            "machine stands at the start of history."
        ),
        arguments=TimevmStops,
        result=TimevmStopped,
        example=Example(
            {"writes": [0x40200000]},
            {"icount": 51200, "reason": "watchpoint", "pc": 0x40000120, "address": 0x40200000, "write": True},
        ),
        errors=(REPLAY_ONLY,),
        hmp="reverse_continue",
    ),
    Command(
        name="x-timevm-last-write",
        documentation=(
            "Find the last write to memory before now, by the guest or a device.  The machine comes back to where it "
            "was; the answer says where the write is: `replay-seek` goes there.  What is meant is the memory that the "
            "range is mapped to now, by whatever address it was written; where it is not mapped now, writes by this "
            "very address.  `physical`: the address is a physical one."
        ),
        arguments=TimevmRange,
        result=TimevmStopped,
        example=Example(
            {"address": 0x40200000, "length": 4},
            {"icount": 51200, "reason": "watchpoint", "pc": 0x40000120, "address": 0x40200000, "write": True},
        ),
        errors=(REPLAY_ONLY, "length must be at least 1"),
        hmp="last_write",
    ),
    Command(
        name="x-timevm-find",
        documentation=(
            "Find the last moment before now at which one of the stops was hit: what `x-timevm-reverse-continue` would "
            "answer.  The machine comes back to where it was; `replay-seek` goes there."
        ),
        arguments=TimevmStops,
        result=TimevmStopped,
        example=Example({"breakpoints": [0x40000120]}, {"icount": 51200, "reason": "breakpoint", "pc": 0x40000120}),
        errors=(REPLAY_ONLY, "name a breakpoint or a write to look for"),
        hmp="find",
    ),
    Command(
        name="x-timevm-instructions",
        documentation=(
            "The last `count` instructions that were executed before now, in their order.  An exception or interrupt "
            "shows as the handler's first instruction.  The machine comes back to where it was.  Takes about a second "
            f"for 20,000; at most {MOST_REVIEWED:,} at once."
        ),
        arguments=TimevmReview,
        result=list[TimevmInstruction],
        example=Example(
            {"count": 2},
            [
                {"icount": 51198, "pc": 0x40000120, "code": "410400b9", "text": "str w1, [x2, #4]"},
                {"icount": 51199, "pc": 0x40000124, "code": "42040091", "text": "add x2, x2, #1"},
            ],
        ),
        errors=(REPLAY_ONLY, "count must be at least 1", f"at most {MOST_REVIEWED} instructions at once"),
        hmp="instructions",
    ),
    Command(
        name="x-timevm-timeline",
        documentation="Where the machine stands, and the named moments of its history, in order.",
        result=TimevmTimeline,
        example=Example(
            None,
            {
                "status": "paused",
                "icount": 51200,
                "virtual-time-ns": 51200,
                "marks": [
                    {"kind": "start", "icount": 0},
                    {"kind": "snapshot", "icount": 40000, "name": "before-crash"},
                    {"kind": "now", "icount": 51200},
                    {"kind": "end", "icount": 90000},
                ],
            },
        ),
        hmp="timeline",
    ),
    Command(
        name="x-timevm-query-checkpoints",
        documentation="The checkpoints in memory from which the machine can run again, and what they cost.",
        result=TimevmCheckpoints,
        example=Example(
            None,
            {
                "checkpoints": [{"icount": 0, "bytes": 134217728}, {"icount": 1000000, "bytes": 659456}],
                "bytes": 134877184,
                "budget": 536870912,
                "taken": 2,
                "taking-seconds": 0.012,
                "restored": 0,
                "restoring-seconds": 0.0,
            },
        ),
        hmp="info checkpoints",
    ),
    Command(
        name="x-timevm-cancel",
        documentation=(
            "Cancel a seek or a reverse run under way: the machine is then where that began.  May be executed out of "
            "band, so that it overtakes the command that it cancels."
        ),
        example=Example(None, {}),
        allow_oob=True,
        hmp="stop",
    ),
    Command(
        name="x-timevm-look-back",
        documentation=(
            "End the recording here, in order, and go on as its replay: the machine stands where it stood, can go back "
            "at once (checkpoints were taken while it was recorded), and takes no input any more.  The file is a whole "
            "recording.  Answers when one can go back: after 256 MiB of writes to a disk, or a snapshot loaded while "
            "recording, that takes a run from the start, which `x-timevm-cancel` ends there."
        ),
        result=TimevmStopped,
        example=Example(None, {"icount": 90000, "reason": "recording-ended", "pc": 0x40000120}),
        errors=(
            "the machine is replaying already: it can go back as it is",
            "there is nothing to look back at: start timevm with -icount shift=…,rr=record,rrfile=…",
        ),
        hmp="look_back",
    ),
)
