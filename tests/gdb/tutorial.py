"""The sessions of ``docs/reverse-debugging.md``: carried out again, they say the same.

A session is a fenced block behind a line ``<!-- session: NAME -->``; what stands behind ``(gdb) `` in it is typed.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

from tests.gdb.replays import DEMO_SOURCES, Session, output_of
from tests.guests import ROOT
from tests.peers import need

DOCUMENT = ROOT / "docs" / "reverse-debugging.md"
PROMPT = "(gdb) "
_BLOCK = re.compile(r"<!-- session: ([\w-]+) -->\n```\w*\n(.*?)```", re.DOTALL)
#: what depends on the day and the machine: instruction counts, times, and, of Linux, addresses
_NUMBER = re.compile(r"\b\d{4,}\b|\b\d+\.\d{3,}\b|0x[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Tutorial:
    """One session: the whole text of its block."""

    text: str

    @property
    def commands(self) -> list[str]:
        return [line.removeprefix(PROMPT) for line in self.text.splitlines() if line.startswith(PROMPT)]


def sessions(path: Path = DOCUMENT) -> dict[str, Tutorial]:
    return {name: Tutorial(text) for name, text in _BLOCK.findall(path.read_text())}


def normalized(text: str) -> list[str]:
    """The lines that are not empty, without what differs from run to run."""
    lines = (re.sub(r"\s+", " ", _NUMBER.sub("#", line)).strip() for line in text.splitlines())
    return [line for line in lines if line]


async def carry_out(session: Session, commands: list[str], program: Path) -> str:
    """What the screen of a user of gdb shows who types ``commands``; ``target remote …`` goes to ``session``."""
    setup = ["set width 0", "set pagination off", "set confirm off", f"directory {DEMO_SOURCES}"]
    arguments = [need("gdb-multiarch"), "-nx", "-batch", str(program)]
    for command in setup:
        arguments += ["-ex", command]
    for command in commands:
        typed = command.replace("\\", "\\\\")
        done = f"target remote 127.0.0.1:{session.server.port}" if command.startswith("target remote") else command
        done = re.sub(r"^source \S*?(timevm/gdb/gdbinit.py)$", rf"source {ROOT}/\1", done)
        arguments += ["-ex", f"echo {PROMPT}{typed}\\n", "-ex", done]
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output = await output_of(process)
    return re.sub(r"\[Inferior 1 \(process 1\) detached\]\n$", "", output)
