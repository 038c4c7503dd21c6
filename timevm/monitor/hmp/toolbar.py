"""The console's bottom line: run state, instruction count, virtual time, and in a replay where in the recording."""

from __future__ import annotations

from dataclasses import dataclass

from timevm.engine.control.port import MachinePort, ReplayInfo, ReplayMode
from timevm.monitor.commands.context import MonitorContext

_BAR = 30
_MARK, _HERE = "◆", "█"


@dataclass(frozen=True, slots=True)
class Position:
    """What the toolbar shows."""

    state: str
    replay: ReplayInfo
    virtual_ns: int
    #: icounts of snapshots
    marks: tuple[int, ...] = ()
    tags: tuple[str, ...] = ()


async def look(context: MonitorContext) -> Position:
    """All of one moment, except the list of snapshots."""

    def here(machine: MachinePort) -> tuple[ReplayInfo, int]:
        return machine.replay_info(), machine.now_ns()

    vm = context.vm
    snapshots = await context.known_snapshots()
    info, now = await vm.inspect(here)
    marks = tuple(snapshot.icount for snapshot in snapshots if snapshot.icount >= 0)
    return Position(vm.run_state.value, info, now, marks, tuple(snapshot.tag for snapshot in snapshots))


def bar(done: int, total: int, marks: tuple[int, ...] = (), width: int = _BAR) -> str:
    """``[███◆──]``: how far, and where the marks are."""
    if total <= 0:
        return ""
    filled = min(width, done * width // total)
    cells = [_HERE if cell < filled else "─" for cell in range(width)]
    for mark in marks:
        if 0 <= mark <= total:
            cells[min(width - 1, mark * width // total)] = _MARK
    return f"[{''.join(cells)}]"


def toolbar(position: Position | None) -> str:
    """One line."""
    if position is None:
        return ""
    info = position.replay
    verb = {ReplayMode.NONE: "", ReplayMode.RECORD: " ● recording", ReplayMode.PLAY: " ▶ replaying"}[info.mode]
    text = f" {position.state}{verb} │ icount {info.icount:,} │ {position.virtual_ns / 1e9:.6f} s"
    if info.end:
        text += f" │ {bar(info.icount, info.end, position.marks)} {info.icount * 100 // info.end} %"
    return text
