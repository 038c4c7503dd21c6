"""The texts of ``-h``, ``-version``, ``-M help``, ``-cpu help``, ``-object help`` and ``-d help``."""

from __future__ import annotations

import textwrap

from timevm import __version__
from timevm.config.architectures import Vocabulary
from timevm.config.machine_options import OBJECTS
from timevm.config.table import LOG_ITEMS, OPTIONS

_EXAMPLES = """\
Examples
  Boot a kernel on this terminal (Ctrl-A x leaves, Ctrl-A c is the monitor):
    {program} {boot}

  Record it, and replay the recording bit for bit:
    {program} … -icount shift=auto,rr=record,rrfile=run.tvm
    {program} … -icount shift=auto,rr=replay,rrfile=run.tvm

  Replay under gdb, which can then go backwards, with a monitor for programs beside it:
    {program} … -icount shift=auto,rr=replay,rrfile=run.tvm -s -S -qmp unix:qmp.sock,server=on,wait=off
"""


def version(program: str) -> str:
    return f"timevm {__version__} ({program})\nIt counts, records and replays; free software, GPL-2.0-or-later."


def usage(program: str, vocabulary: Vocabulary) -> str:
    lines = [f"usage: {program} [options]", ""]
    group = None
    for option in OPTIONS:
        if option.group != group:
            group = option.group
            lines += ([] if len(lines) == 2 else [""]) + [group]
        names = ", ".join(f"-{name}" for name in (option.name, *option.aliases))
        heading = f"  {names} {option.argument}".rstrip()
        if len(heading) <= 29 and len(option.help) <= 88:
            lines.append(f"{heading:<30}{option.help}")
        else:
            lines.append(heading)
            lines += textwrap.wrap(option.help, width=88, initial_indent=" " * 30, subsequent_indent=" " * 30)
    lines += ["", _EXAMPLES.format(program=program, boot=vocabulary.boot_example)]
    return "\n".join(lines).rstrip()


def machines(vocabulary: Vocabulary) -> str:
    lines = []
    for _, board, description in vocabulary.machines:
        default = " (default)" if board == vocabulary.default_machine else ""
        lines.append(f"{board:<20} {description}{default}")
    return "Supported machines are:\n" + "\n".join(lines)


def processors(vocabulary: Vocabulary) -> str:
    return "Available CPUs:\n" + "\n".join(f"  {name}" for name in sorted(vocabulary.processors))


def objects() -> str:
    return "List of user creatable objects:\n" + "\n".join(f"  {name}" for name in sorted(OBJECTS))


def log_items() -> str:
    return "Log items (comma separated):\n" + "\n".join(f"{name:<15} {text}" for name, text in LOG_ITEMS.items())
