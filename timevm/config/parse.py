"""``argv`` → ``Config``.  Whatever is wrong is a ``UserError`` in QEMU's words; no file is opened."""

from __future__ import annotations

from collections.abc import Sequence

from timevm.config.architectures import vocabulary_of
from timevm.config.keyvalue import hint
from timevm.config.machine_options import SHORT_DRIVES
from timevm.config.model import Config, Information
from timevm.config.options import CommandLine
from timevm.config.table import ABSENT, BY_NAME
from timevm.errors import UserError


def parse_command_line(program: str, arguments: Sequence[str], architecture: str = "aarch64") -> Config | Information:
    """What ``program ARGUMENTS…`` asks for.  Raises ``UserError``; its text goes behind ``program: ``."""
    command_line = CommandLine(program, vocabulary_of(architecture))
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if not argument.startswith("-") or argument == "-":
            raise UserError(f"{argument}: a disk image alone is not taken: use -drive file={argument},if=none,id=ID")
        name = argument[2:] if argument.startswith("--") else argument[1:]
        option = BY_NAME.get(name)
        if option is None and name not in ABSENT:
            raise UserError(f"{argument}: invalid option{hint(name, (*BY_NAME, *ABSENT))}")
        takes_value = bool(option.argument) if option is not None else ABSENT[name][0]
        value = ""
        if takes_value:
            if position == len(arguments):
                raise UserError(f"{argument}: requires an argument")
            value = arguments[position]
            position += 1
        if option is None and name in SHORT_DRIVES and "ide" in command_line.vocabulary.interfaces:
            command_line.take_short_drive(name, value)
            continue
        if option is None:
            shown = f"{argument} {value}".rstrip()
            reason = ABSENT[name][1].format(disk=command_line.vocabulary.disk_example)
            raise UserError(f"{shown}: QEMU's option -{name} is known, but not done: {reason}")
        command_line.take(option.name, value)
        if command_line.information is not None:
            return Information(command_line.information)
    return command_line.finish()
