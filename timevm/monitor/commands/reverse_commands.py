"""timevm's own: steps, the ways back, and questions about history."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from timevm.engine.control.port import MachinePort, ReplayMode, RunEnd, RunResult, Stops, WatchKind, Watchpoint
from timevm.monitor.commands.context import Handler, MonitorContext
from timevm.monitor.commands.disassembly import Disassembly, disassembly
from timevm.monitor.commands.errors import CommandError
from timevm.qmp_schema.base import Empty
from timevm.qmp_schema.extension import (
    LOOK_BACK,
    MOST_REVIEWED,
    REPLAY_ONLY,
    TimevmCheckpoints,
    TimevmCount,
    TimevmInstruction,
    TimevmMark,
    TimevmRange,
    TimevmReview,
    TimevmStopped,
    TimevmStopReason,
    TimevmStops,
    TimevmTimeline,
)
from timevm.qmp_schema.run_state import RunState

PAGE = 4096
#: bytes of memory that is looked for by the pages that it is mapped to now
LONGEST = 32 * PAGE
#: instructions that are disassembled in one turn of the event loop: 5 ms
ROUND = 256

_REASONS = {
    RunEnd.LIMIT: TimevmStopReason.ARRIVED,
    RunEnd.KICKED: TimevmStopReason.INTERRUPTED,
    RunEnd.RECORDING_ENDED: TimevmStopReason.RECORDING_ENDED,
    RunEnd.POWERED_OFF: TimevmStopReason.GUEST_ENDED,
    RunEnd.RESET: TimevmStopReason.GUEST_ENDED,
    RunEnd.QUIT: TimevmStopReason.GUEST_ENDED,
    RunEnd.GUEST_PANICKED: TimevmStopReason.GUEST_ENDED,
    RunEnd.GUEST_ERROR: TimevmStopReason.GUEST_ENDED,
}


async def _program_counter(context: MonitorContext) -> int:
    def read(machine: MachinePort) -> int:
        names = {register.name for register in machine.registers}
        return machine.read_register(next(name for name in ("pc", "rip", "eip") if name in names))

    return await context.vm.inspect(read)


async def stopped(context: MonitorContext, result: RunResult, *, arrived: TimevmStopReason) -> TimevmStopped:
    """``result`` for a script; ``arrived`` is what reaching the limit means for this command."""
    stop = result.stop
    if stop is not None:
        return TimevmStopped(
            icount=result.icount,
            reason=TimevmStopReason.BREAKPOINT if stop.watch is None else TimevmStopReason.WATCHPOINT,
            pc=stop.pc,
            address=stop.address,
            write=None if stop.watch is None else stop.is_write,
            device=stop.device or None,
        )
    return TimevmStopped(
        icount=result.icount,
        reason=arrived if result.end is RunEnd.LIMIT else _REASONS.get(result.end, TimevmStopReason.ARRIVED),
        pc=await _program_counter(context),
        detail=result.detail or None,
    )


async def _must_replay(context: MonitorContext) -> None:
    if context.vm.mode is ReplayMode.RECORD:
        raise CommandError(f"{REPLAY_ONLY}: {LOOK_BACK}")
    if context.vm.mode is not ReplayMode.PLAY:
        raise CommandError(REPLAY_ONLY)


async def look_back(context: MonitorContext, arguments: Empty) -> TimevmStopped:
    result = await context.vm.look_back()
    return await stopped(context, result, arrived=TimevmStopReason.RECORDING_ENDED)


async def step(context: MonitorContext, arguments: TimevmCount) -> TimevmStopped:
    if arguments.count < 1:
        raise CommandError("count must be at least 1")
    result = await context.vm.step(arguments.count)
    return await stopped(context, result, arrived=TimevmStopReason.ARRIVED)


async def reverse_step(context: MonitorContext, arguments: TimevmCount) -> TimevmStopped:
    await _must_replay(context)
    if arguments.count < 1:
        raise CommandError("count must be at least 1")
    before = (await context.vm.replay_info()).icount
    result = await context.vm.reverse_step(arguments.count)
    whole = before - result.icount >= arguments.count
    arrived = TimevmStopReason.ARRIVED if whole else TimevmStopReason.HISTORY_BEGAN
    return await stopped(context, result, arrived=arrived)


async def reverse_continue(context: MonitorContext, arguments: TimevmStops) -> TimevmStopped:
    await _must_replay(context)
    if not arguments.breakpoints and not arguments.writes:
        result = await context.vm.reverse_continue()
        return await stopped(context, result, arrived=TimevmStopReason.HISTORY_BEGAN)
    return await _reverse_with(context, _stops(arguments))


def _stops(arguments: TimevmStops) -> Stops:
    return Stops(
        frozenset(arguments.breakpoints),
        frozenset(Watchpoint(address, 1, WatchKind.WRITE) for address in arguments.writes),
    )


async def _reverse_with(context: MonitorContext, stops: Stops) -> TimevmStopped:
    """A reverse run with stops of its own; those of a debugger are in force again afterwards."""
    debugger = context.vm.stops
    await context.vm.set_stops(stops)
    try:
        result = await context.vm.reverse_continue()
        return await stopped(context, result, arrived=TimevmStopReason.HISTORY_BEGAN)
    finally:
        await context.vm.set_stops(debugger)


async def _find(context: MonitorContext, stops: Stops) -> TimevmStopped:
    """The machine stays where it is."""
    result = await context.vm.find_last(stops)
    if result.end is RunEnd.LIMIT:
        return TimevmStopped(icount=result.icount, reason=TimevmStopReason.HISTORY_BEGAN)
    return await stopped(context, result, arrived=TimevmStopReason.HISTORY_BEGAN)


async def last_write(context: MonitorContext, arguments: TimevmRange) -> TimevmStopped:
    await _must_replay(context)
    if arguments.length < 1:
        raise CommandError("length must be at least 1")
    pieces = await context.vm.inspect(lambda machine: written_memory(machine, arguments))
    found = await _find(context, Stops(watchpoints=frozenset(watch for watch, _ in pieces)))
    for watch, address in pieces:
        if found.address is not None and watch.address <= found.address < watch.address + watch.length:
            return found.model_copy(update={"address": found.address - watch.address + address})
    return found


def written_memory(machine: MachinePort, asked: TimevmRange) -> list[tuple[Watchpoint, int]]:
    """What to watch, and where each piece begins as the user says it.  Raises CommandError."""
    as_said = [(Watchpoint(asked.address, asked.length, WatchKind.WRITE, asked.physical), asked.address)]
    if asked.physical and not machine.watches_physical:
        raise CommandError("this processor's writes can be looked for by virtual address only")
    if asked.physical or not machine.watches_physical or asked.length > LONGEST:
        return as_said
    pieces = []
    at, end = asked.address, asked.address + asked.length
    while at < end:
        length = min(end, (at // PAGE + 1) * PAGE) - at
        physical = machine.translate(at)
        if physical is None:
            return as_said
        pieces.append((Watchpoint(physical, length, WatchKind.WRITE, physical=True), at))
        at += length
    return pieces


async def find(context: MonitorContext, arguments: TimevmStops) -> TimevmStopped:
    await _must_replay(context)
    if not arguments.breakpoints and not arguments.writes:
        raise CommandError("name a breakpoint or a write to look for")
    return await _find(context, _stops(arguments))


@dataclass(frozen=True, slots=True)
class _Executed:
    """``window``: bytes from ``pc`` on, of which the first are the instruction."""

    icount: int
    pc: int
    window: bytes
    disassembly: Disassembly | None


async def instructions(context: MonitorContext, arguments: TimevmReview) -> list[TimevmInstruction]:
    await _must_replay(context)
    if arguments.count < 1:
        raise CommandError("count must be at least 1")
    if arguments.count > MOST_REVIEWED:
        raise CommandError(f"at most {MOST_REVIEWED} instructions at once")
    architecture = context.vm.architecture

    def look(machine: MachinePort, pc: int) -> _Executed:
        found = disassembly(architecture, machine)
        return _Executed(machine.icount, pc, machine.read_memory(pc, found.longest if found else 16), found)

    answer = []
    for number, executed in enumerate(await context.vm.review(arguments.count, look)):
        if number % ROUND == ROUND - 1:
            await asyncio.sleep(0)  # others have their turn
        answer.append(_instruction(executed))
    return answer


def _instruction(executed: _Executed) -> TimevmInstruction:
    code, text = executed.window, None
    if executed.disassembly is not None and len(code) >= executed.disassembly.shortest:
        code, text = executed.disassembly.first(code, executed.pc)
    return TimevmInstruction(
        icount=executed.icount, pc=executed.pc, code=code.hex(), text=text and " ".join(text.split())
    )


async def timeline(context: MonitorContext, arguments: Empty) -> TimevmTimeline:
    info = await context.vm.replay_info()
    marks = [TimevmMark(kind="now", icount=info.icount)]
    if info.mode is not ReplayMode.NONE:
        marks.append(TimevmMark(kind="start", icount=0))
    if info.end is not None:
        marks.append(TimevmMark(kind="end", icount=info.end))
    for snapshot in await context.known_snapshots():
        if snapshot.icount >= 0:
            marks.append(TimevmMark(kind="snapshot", icount=snapshot.icount, name=snapshot.tag))
    order = {"start": 0, "snapshot": 1, "now": 2, "end": 3}
    return TimevmTimeline(
        status=RunState(context.vm.run_state.value),
        icount=info.icount,
        virtual_time_ns=await context.vm.inspect(lambda machine: machine.now_ns()),
        marks=sorted(marks, key=lambda mark: (mark.icount, order[mark.kind])),
    )


_NO_CHECKPOINTS = TimevmCheckpoints(
    checkpoints=[], bytes=0, budget=0, taken=0, taking_seconds=0.0, restored=0, restoring_seconds=0.0
)


async def query_checkpoints(context: MonitorContext, arguments: Empty) -> TimevmCheckpoints:
    return _NO_CHECKPOINTS if context.checkpoints is None else await context.checkpoints()


async def cancel(context: MonitorContext, arguments: Empty) -> None:
    await context.vm.stop()


HANDLERS: dict[str, Handler] = {
    "x-timevm-step": step,
    "x-timevm-reverse-step": reverse_step,
    "x-timevm-reverse-continue": reverse_continue,
    "x-timevm-last-write": last_write,
    "x-timevm-find": find,
    "x-timevm-instructions": instructions,
    "x-timevm-timeline": timeline,
    "x-timevm-query-checkpoints": query_checkpoints,
    "x-timevm-cancel": cancel,
    "x-timevm-look-back": look_back,
}
