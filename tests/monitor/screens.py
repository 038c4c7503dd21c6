"""The pictures of ``docs/console.md`` and ``README.md``: ``python -m tests.monitor.screens`` takes them anew.

They stand between ``<!-- screen NAME -->`` and the end of the block of code behind it; the words around stay.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path

from tests.daemon import command, run
from tests.guests import ROOT
from tests.tmux import Tmux
from timevm.guests import DEMO_AARCH64

DOCUMENTS = (ROOT / "docs" / "console.md", ROOT / "README.md")
_DEMO = ["-M", "virt", "-m", "16", "-kernel", str(DEMO_AARCH64), "-display", "none", "-serial", "null"]
#: some seconds of work; the guest drops what was typed before it is ready
_LONG = b"\rprimes 5000000\rbye\r"
_PLACE = re.compile(r"(<!-- screen (\w+) -->\n```text\n).*?(\n```)", re.DOTALL)
_RR = "shift=3,rr={},rrfile={}"


def _console(folder: Path, arguments: list[str], recording: str, rows: int) -> Tmux:
    words = command([*arguments, "-monitor", "stdio", "-icount", _RR.format("replay", recording)])
    quoted = " ".join(f"'{word}'" for word in words)
    return Tmux(f"cd {folder} && exec env TERM=xterm-256color {quoted}", columns=96, rows=rows)


def _picture(screen: str) -> str:
    """Without empty lines at the end, and between the text and the toolbar."""
    lines = [line.rstrip() for line in screen.rstrip().splitlines()]
    return re.sub(r"\n\n+", "\n\n", "\n".join(lines))


async def _typed(terminal: Tmux, line: str, shows: str) -> None:
    terminal.type(line, "Enter")
    await terminal.shows(shows)


async def take(folder: Path) -> dict[str, str]:
    pictures = {}
    assert run(["demo", "--keep", str(folder / "demo.rr")], "main").returncode == 0
    terminal = _console(folder, _DEMO, "demo.rr", rows=10)
    await terminal.shows("100 %")
    await _typed(terminal, "info replay", "instruction count = ")
    terminal.type("rep", "Tab")
    await terminal.shows("replay_delete_break  ")
    pictures["completion"] = _picture(terminal.screen())
    terminal.close()
    terminal = _console(folder, _DEMO, "demo.rr", rows=30)
    await terminal.shows("100 %")
    await _typed(terminal, "reverse_stepi 3", "arrived")
    await _typed(terminal, "x/3i $pc", "hvc")
    await _typed(terminal, "timeline", "end\n")
    await _typed(terminal, "info checkpoints", "taken")
    await _typed(terminal, "replay_seek nowhere", "Try ")
    pictures["back"] = _picture(terminal.screen())
    terminal.close()
    typing = [*_DEMO[:-1], "stdio", "-monitor", "none", "-icount", _RR.format("record", "long.rr")]
    assert run(typing, typed=_LONG, cwd=folder).returncode == 0
    terminal = _console(folder, [*_DEMO, "-S"], "long.rr", rows=6)
    await terminal.shows("prelaunch")
    terminal.type("replay_seek end", "Enter")
    pictures["progress"] = _picture(await terminal.shows(r"seek \[█{8,}"))
    terminal.close()
    return pictures


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pictures = asyncio.run(take(Path(folder)))
    for document in DOCUMENTS:
        document.write_text(_PLACE.sub(lambda place: place[1] + pictures[place[2]] + place[3], document.read_text()))


if __name__ == "__main__":
    main()
