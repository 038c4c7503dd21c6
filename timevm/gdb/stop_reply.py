"""Why the machine stands → a stop reply (gdb manual, "Stop Reply Packets")."""

from __future__ import annotations

from enum import IntEnum

from timevm.engine.control.port import DebugStop, RunEnd, RunResult
from timevm.gdb.client import Client, console
from timevm.gdb.requests import StopKind
from timevm.gdb.stop_table import StopTable, watch_field


class Signal(IntEnum):
    """gdb's numbers (``include/gdb/signals.def``); which one for what is QEMU's choice."""

    NONE = 0
    INTERRUPT = 2
    QUIT = 3
    TRAP = 5
    ABORT = 6


#: the machine is gone
EXITED = b"W00"

#: how a forward run that was no step ends
_SIGNALS = {
    RunEnd.LIMIT: Signal.INTERRUPT,  # replay-break: QEMU pauses there
    RunEnd.KICKED: Signal.INTERRUPT,
    RunEnd.GUEST_PANICKED: Signal.ABORT,
    RunEnd.GUEST_ERROR: Signal.ABORT,
}
#: behind these there is nothing to go on with
_ENDS = frozenset({RunEnd.RECORDING_ENDED, RunEnd.POWERED_OFF, RunEnd.RESET, RunEnd.QUIT})


def stopped(client: Client, signal: Signal = Signal.TRAP, reason: bytes = b"") -> bytes:
    return b"T%02x%sthread:%s;" % (signal, reason, client.thread())


def history_begins(client: Client) -> bytes:
    return stopped(client, reason=b"replaylog:begin;")


def history_ends(client: Client, told: str) -> bytes:
    """LLDB 14 does not know ``replaylog``: to it this is a step that has not arrived yet, and it steps again, for ever.

    An exception ends whatever it is doing.  ``replaylog`` comes last, for one that knows both.
    """
    reason = b"replaylog:end;"
    if client.is_lldb:
        reason = b"reason:exception;description:%b;%b" % (told.encode().hex().encode(), reason)
    return stopped(client, reason=reason)


def _breakpoint(client: Client, stop: DebugStop, table: StopTable) -> bytes:
    kinds = table.kinds_at(stop.pc)
    if StopKind.SOFTWARE in kinds and client.announced("swbreak"):
        return stopped(client, reason=b"swbreak:;")
    if StopKind.HARDWARE in kinds and client.announced("hwbreak"):
        return stopped(client, reason=b"hwbreak:;")
    return stopped(client)


def debug_reply(client: Client, stop: DebugStop, table: StopTable) -> bytes:
    watch = table.watch_of(stop)
    if watch is None:
        return _breakpoint(client, stop, table)
    return stopped(client, reason=watch_field(watch, stop.address))


def forward_reply(client: Client, result: RunResult, table: StopTable, *, step: bool, replaying: bool) -> list[bytes]:
    """``step``: the limit was what the client asked for."""
    if result.stop is not None:
        return [debug_reply(client, result.stop, table)]
    if result.end in _ENDS:
        end = history_ends(client, result.detail or "the recording ends here") if replaying else None
        return [*_told(result), end or stopped(client, Signal.QUIT)]
    if step and result.end is RunEnd.LIMIT:
        return [stopped(client)]
    return [*_told(result), stopped(client, _SIGNALS.get(result.end, Signal.TRAP))]


def backward_reply(client: Client, result: RunResult, table: StopTable) -> bytes:
    """Of a ``bc``; where it may go no further is the start of history."""
    if result.stop is not None:
        return debug_reply(client, result.stop, table)
    if result.end is RunEnd.KICKED:
        return stopped(client, Signal.INTERRUPT)
    return history_begins(client)


def _told(result: RunResult) -> list[bytes]:
    return console(f"{result.detail}\n") if result.detail else []
