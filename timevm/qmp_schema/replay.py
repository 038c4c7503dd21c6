"""QAPI module ``replay``: positions in a recording (QEMU: ``qapi/replay.json``)."""

from __future__ import annotations

from timevm.qmp_schema.base import Command, Example, Int, QapiEnum, QapiModel, Str


class ReplayMode(QapiEnum):
    NONE = "none"
    RECORD = "record"
    PLAY = "play"


class ReplayInfo(QapiModel):
    """``icount``: instructions executed since reset; ``filename``: of the recording, absent in mode ``none``."""

    mode: ReplayMode
    filename: Str | None = None
    icount: Int


class Position(QapiModel):
    """``icount``: instructions executed since reset."""

    icount: Int


COMMANDS = (
    Command(
        name="query-replay",
        documentation=(
            "Whether the machine records or replays, and how many instructions it has executed since reset.  Exact at "
            "any moment, also while it runs."
        ),
        result=ReplayInfo,
        example=Example(None, {"mode": "play", "filename": "boot.rr", "icount": 220414}),
        hmp="info replay",
    ),
    Command(
        name="replay-break",
        documentation=(
            "Stop the replay when `icount` instructions are done.  There is one such breakpoint; a new one replaces it."
        ),
        arguments=Position,
        example=Example({"icount": 220414}, {}),
        errors=(
            "setting the breakpoint is allowed only in play mode",
            "cannot set breakpoint at the instruction in the past",
        ),
        hmp="replay_break",
    ),
    Command(
        name="replay-delete-break",
        documentation="Remove the breakpoint set with `replay-break`, if there is one.",
        example=Example(None, {}),
        errors=("replay breakpoints are allowed only in play mode",),
        hmp="replay_delete_break",
    ),
    Command(
        name="replay-seek",
        documentation=(
            "Go to the moment when `icount` instructions are done, forward or back.  Answers at once; `RESUME`, then "
            "`STOP` on arrival.  Breakpoints do not stop it on its way; a second seek replaces it, `stop` cancels it."
        ),
        arguments=Position,
        example=Example({"icount": 220414}, {}, events=(("RESUME", {}), ("STOP", {}))),
        errors=("replay must be enabled to seek", "cannot seek to the specified instruction count"),
        hmp="replay_seek",
    ),
)
