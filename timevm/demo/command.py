"""``timevm demo``: its arguments and its story."""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from timevm.demo import show
from timevm.demo.debugger import PROGRAM, gdb_backtrace
from timevm.demo.runs import SESSION, Outcome, open_replay, record, run_to_end, specification
from timevm.demo.way_back import HEADER, Damage, Replay, damage_on, go_back_to, last_call, replay_at_end, typed_before
from timevm.engine.machine.spec import MachineSpec
from timevm.errors import HostError, UserError
from timevm.guests import DEMO_AARCH64, DEMO_SOURCES
from timevm.guests.backtrace import backtrace
from timevm.guests.source_places import SourcePlaces
from timevm.monitor.hmp.timeline_picture import Moment

#: the guest's function that looks at the heap (examples/guests/demo/main.c)
LOOKS = "check_heap"


async def go_back(screen: Console, spec: MachineSpec, recorded: Outcome, damage: Damage) -> None:
    """The second half of the story: from the end of a replay to the guilty write."""
    places = SourcePlaces(DEMO_AARCH64)
    async with replay_at_end(spec) as replay:
        vm = replay.vm
        show.show_question(screen, damage, HEADER)
        looks = places.function_named(LOOKS)
        discovery = await last_call(vm, looks) if looks is not None else None
        guilty = await go_back_to(vm, damage)
        place = next(iter(places.at(guilty.pc)), None)
        show.show_guilty(screen, guilty, place, recorded.icount, typed_before(spec.rrfile or Path(), guilty.icount))
        if place is not None:
            show.show_source(screen, DEMO_SOURCES, place)
        moments = [Moment(guilty.icount, f"damage: {guilty.icount:,}, the machine is here")]
        if discovery is not None:
            moments.append(Moment(discovery, f"discovery: {discovery:,}"))
        await show_timeline(screen, replay, recorded.icount, moments)
        own = show.backtrace_lines(await vm.inspect(lambda machine: backtrace(machine, places)))
        by_gdb = await gdb_backtrace(vm, DEMO_AARCH64)
        by = f"{PROGRAM} connected to this replay" if by_gdb else f"timevm itself ({PROGRAM} would show arguments too)"
        show.show_backtrace(screen, by_gdb or own, by)


async def show_timeline(screen: Console, replay: Replay, end: int, moments: Sequence[Moment]) -> None:
    checkpoints = replay.history.checkpoints
    if checkpoints is None:
        return
    here, found, cost = await replay.vm.inspect(
        lambda machine: (machine.icount, checkpoints.information(), checkpoints.cost())
    )
    show.show_timeline(screen, end, here, moments, [each.icount for each in found], cost.taking_seconds)


def make_screen() -> Console:
    """Plain where standard output is no terminal; what its encoding has not is shown by a question mark."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    screen = Console(highlight=False, soft_wrap=True)
    screen.width = max(screen.width, 80)
    return screen


def run_demo(argv: Sequence[str]) -> int:
    """The demo with ``argv`` behind ``timevm demo``.  0 if both replays were the same as the recording."""
    parser = argparse.ArgumentParser(
        prog="timevm demo",
        description="Record the shipped guest, replay it, and go back to the write that damaged its memory.",
    )
    parser.add_argument("--input", type=Path, metavar="FILE", help="type its lines instead of the built-in session")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep the recording there (default: it is removed)")
    parser.add_argument("--show-console", action="store_true", help="also print what the guest printed")
    options = parser.parse_args(argv)
    lines = read_lines(options.input) if options.input else SESSION
    try:
        return tell(lines, options.keep, options.show_console)
    except BrokenPipeError:
        raise
    except OSError as failure:
        raise HostError(f"the demo cannot go on: {failure}") from failure


def read_lines(path: Path) -> Sequence[str]:
    """Of any encoding.  Raises UserError."""
    try:
        return path.read_text("utf-8", "surrogateescape").splitlines()
    except OSError as failure:
        raise UserError(f"--input {path}: {failure.strerror}") from failure


def tell(lines: Sequence[str], keep: Path | None, show_console: bool) -> int:
    """The whole story; the exit code."""
    screen, begin = make_screen(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="timevm-demo-") as folder:
        spec = specification(keep or Path(folder) / "demo.rr")
        runs = {"record": record(spec, lines)}
        for name in ("replay", "again"):
            runs[name] = run_to_end(*open_replay(spec))
        recorded = runs["record"]
        if show_console:
            screen.print(escape(recorded.console.decode(errors="replace").replace("\r", "")))
        show.show_runs(screen, runs)
        same = all(run.same_as(recorded) for run in runs.values())
        damage = damage_on(recorded.console)
        if damage is None:
            screen.print("\nThe guest's heap stayed sound with this input.")
        elif same:
            asyncio.run(go_back(screen, spec, recorded, damage))
            screen.print(f"\nRecorded, replayed twice and gone back in {time.monotonic() - begin:.1f} s.")
    return 0 if same else 1
