"""What the demo prints: at most 80 columns where it has the choice."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from timevm.demo.runs import Outcome
from timevm.demo.way_back import Damage, GuiltyWrite
from timevm.guests.backtrace import Call
from timevm.guests.source_places import SourcePlace
from timevm.monitor.hmp.timeline_picture import ASCII, UNICODE, Moment, draw

#: lines of source shown before and behind the one in question
AROUND = 3
#: columns of a picture at most
WIDEST = 118


def show_runs(screen: Console, runs: dict[str, Outcome]) -> None:
    recorded = next(iter(runs.values()))
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("run", no_wrap=True)
    for heading in ("instructions", "virtual", "console", "state digest", "host"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("same", no_wrap=True)
    for name, run in runs.items():
        same = run.same_as(recorded)
        table.add_row(
            name,
            f"{run.icount:,}",
            f"{run.virtual_ns / 1e6:.3f} ms",
            f"{len(run.console)} bytes",
            f"{run.digest.cpu ^ run.digest.ram ^ run.digest.devices:016x}",
            f"{run.seconds * 1e3:.0f} ms",
            "" if run is recorded else "[green]yes[/]" if same else "[bold red]NO[/]",
        )
    screen.print("One guest, three times:\n")
    screen.print(table)


def show_question(screen: Console, damage: Damage, size: int) -> None:
    screen.print(
        f"\nThe guest found cell {damage.cell} of its heap damaged, and gave up.  Who did it?\n"
        f"A watchpoint on the cell's header, {size} bytes at {damage.address:#x}, and reverse-continue:"
    )


def show_guilty(screen: Console, guilty: GuiltyWrite, place: SourcePlace | None, end: int, typed: str) -> None:
    times = "once" if guilty.stops == 1 else f"{guilty.stops} times"
    screen.print(f"  stopped {times}, {end - guilty.icount:,} instructions earlier, after {_duration(guilty.seconds)}")
    screen.print(f"  before instruction {guilty.icount:,}:  [bold]{escape(guilty.instruction)}[/]")
    screen.print(f"  in [bold red]{escape(str(place or hex(guilty.pc)))}[/]")
    screen.print(f"  the header {guilty.before.hex(' ', 4)} becomes {guilty.after.hex(' ', 4)}")
    screen.print(f"  while the guest works on:  {escape(typed)}")


def _duration(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def show_source(screen: Console, folder: Path, place: SourcePlace) -> None:
    """Nothing if the source is not there."""
    try:
        lines = (folder / place.file).read_text().splitlines()
    except OSError:
        return
    screen.print()
    for number in range(max(1, place.line - AROUND), min(len(lines), place.line + AROUND) + 1):
        text = escape(f"{number:>5}  {lines[number - 1]}")
        screen.print(f"[bold red]->{text}[/]" if number == place.line else f"[dim]  {text}[/]")


def show_backtrace(screen: Console, lines: Sequence[str], by: str) -> None:
    screen.print(f"\nBacktrace, by {by}:")
    for line in lines:
        wrapped = textwrap.wrap(line, min(screen.width, WIDEST) - 4, subsequent_indent="      ")
        for part in wrapped:
            screen.print(f"  {escape(part)}")


def backtrace_lines(calls: Sequence[Call]) -> list[str]:
    return [
        f"#{number:<2} {call.place.function} at {call.place.file}:{call.place.line}"
        + (" (inlined)" if call.is_inlined else "")
        for number, call in enumerate(calls)
    ]


def show_timeline(
    screen: Console, end: int, here: int, moments: Sequence[Moment], checkpoints: Sequence[int], seconds: float
) -> None:
    """``seconds``: of the host, for all checkpoints."""
    symbols = ASCII if screen.options.ascii_only else UNICODE
    tick, place = symbols.past_checkpoint, symbols.here
    cost = f"{len(checkpoints)} checkpoints ({tick}, {_duration(seconds)} in all)"
    screen.print(f"\nThe recording, its {cost} and the machine ({place}):")
    for row in draw((0, end), here, moments, checkpoints, min(screen.width - 2, WIDEST), symbols):
        screen.print(f"  {escape(row).replace(place, f'[bold cyan]{place}[/]')}")
