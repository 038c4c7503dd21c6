"""One line of the human monitor: find the command, read its parameters, execute, render."""

from __future__ import annotations

from timevm.errors import TimevmError
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.hmp.actions import ACTIONS
from timevm.monitor.hmp.dumping import DUMPING
from timevm.monitor.hmp.errors import HmpError, ParameterError, UnknownCommand
from timevm.monitor.hmp.forwarding import FORWARDING
from timevm.monitor.hmp.information import INFORMATION
from timevm.monitor.hmp.parameters import Kind, Parameter, parse_parameters
from timevm.monitor.hmp.refusals import INFORMATION_REFUSALS, REFUSALS
from timevm.monitor.hmp.registers import registers_by_any_name
from timevm.monitor.hmp.table import Call, HmpCommand, HmpState, find


async def _help(call: Call) -> str:
    words = call.values["name"].split()
    if not words:
        return "".join(command.help_line() for command in TOP)
    if words[0] == "info":
        if len(words) == 1:
            return _information_list()
        found = find(INFORMATION, words[1]) or find(INFORMATION_REFUSALS, words[1])
        group = "info "
    else:
        found = find(TOP, words[0]) or find(REFUSALS, words[0])
        group = ""
    if found is None:
        raise UnknownCommand(" ".join(words[:2]) if group else words[0])
    return found.help_text(group)


def _information_list() -> str:
    return "".join(command.help_line("info ") for command in INFORMATION)


async def _info(call: Call) -> str:
    return _information_list()


_HELP = HmpCommand(
    ("help", "?"),
    "the commands, or one of them with examples",
    _help,
    (Parameter("name", Kind.REST),),
    "[cmd]",
    ("help replay_seek",),
)
_INFO = HmpCommand(("info",), "what is known about the machine", _info, syntax="[subcommand]")
#: every command, by name
TOP: tuple[HmpCommand, ...] = tuple(
    sorted((*ACTIONS, *DUMPING, *FORWARDING, _HELP, _INFO), key=lambda command: command.names[0])
)

#: names of parameters that are snapshot tags, for completion
SNAPSHOT_COMMANDS = frozenset({"loadvm", "delvm", "savevm"})


def _name_end(line: str) -> int:
    """Names end at a space or at the slash of a format."""
    for position, character in enumerate(line):
        if character.isspace() or character == "/":
            return position
    return len(line)


def split_command(line: str) -> tuple[HmpCommand, str, str, str]:
    """The command, what it is typed as (``info replay``), its name in messages, and the rest of the line.

    Raises UnknownCommand.
    """
    line = line.strip()
    end = _name_end(line)
    name, rest = line[:end], line[end:]
    if name == "info" and rest.strip():
        rest = rest.lstrip()
        end = _name_end(rest)
        sub, rest = rest[:end], rest[end:]
        found = find(INFORMATION, sub) or find(INFORMATION_REFUSALS, sub)
        if found is None:
            raise UnknownCommand(f"info {sub}")
        return found, f"info {sub}", found.title, rest
    found = find(TOP, name) or find(REFUSALS, name)
    if found is None:
        raise UnknownCommand(name)
    return found, name, found.title, rest


async def execute_line(line: str, context: MonitorContext, state: HmpState) -> str:
    """What the line prints.  Raises HmpError with the text to print."""
    command, typed, title, rest = split_command(line)
    registers = await context.vm.inspect(registers_by_any_name) if "$" in rest else {}
    try:
        values = parse_parameters(rest, command.parameters, title, registers, state.formats)
    except ParameterError as wrong:
        raise HmpError(f'{wrong}\nTry "help {typed}" for more information') from wrong
    try:
        return await command.run(Call(context, state, values))
    except UnknownCommand:
        raise
    except TimevmError as failure:
        raise HmpError(f"{'Error: ' if command.prefix else ''}{failure}") from failure


async def run_hmp_line(line: str, context: MonitorContext, state: HmpState | None = None) -> str:
    """Execute a line and return what it prints, errors included (lines end with ``\\n``).

    ``human-monitor-command`` and gdb's ``monitor`` use it without a ``state``.
    """
    if not line.strip():
        return ""
    if state is None:
        state = HmpState()
    try:
        return await execute_line(line, context, state)
    except HmpError as failure:
        return f"{failure}\n"
