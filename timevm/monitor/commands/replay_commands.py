"""Record and replay.  The refusals are QEMU's (QEMU: ``replay/replay-debugging.c``)."""

from __future__ import annotations

from timevm.engine.control.port import ReplayMode as Mode
from timevm.monitor.commands.context import Handler, MonitorContext
from timevm.monitor.commands.errors import CommandError
from timevm.qmp_schema.base import Empty
from timevm.qmp_schema.replay import Position, ReplayInfo, ReplayMode


async def query_replay(context: MonitorContext, arguments: Empty) -> ReplayInfo:
    info = await context.vm.replay_info()
    return ReplayInfo(mode=ReplayMode(info.mode.value), filename=info.filename, icount=info.icount)


async def replay_break(context: MonitorContext, arguments: Position) -> None:
    info = await context.vm.replay_info()
    if info.mode is not Mode.PLAY:
        raise CommandError("setting the breakpoint is allowed only in play mode")
    if arguments.icount < info.icount:
        raise CommandError("cannot set breakpoint at the instruction in the past")
    await context.vm.set_replay_breakpoint(arguments.icount)


async def replay_delete_break(context: MonitorContext, arguments: Empty) -> None:
    if (await context.vm.replay_info()).mode is not Mode.PLAY:
        raise CommandError("replay breakpoints are allowed only in play mode")
    await context.vm.set_replay_breakpoint(None)


async def replay_seek(context: MonitorContext, arguments: Position) -> None:
    info = await context.vm.replay_info()
    if info.mode is not Mode.PLAY:
        raise CommandError("replay must be enabled to seek")
    if arguments.icount < 0 or (info.end is not None and arguments.icount > info.end):
        raise CommandError("cannot seek to the specified instruction count")
    await context.start_seek(arguments.icount)


HANDLERS: dict[str, Handler] = {
    "query-replay": query_replay,
    "replay-break": replay_break,
    "replay-delete-break": replay_delete_break,
    "replay-seek": replay_seek,
}
