"""From a row and validated arguments to a result as plain JSON values."""

from __future__ import annotations

from typing import Any

from timevm.monitor.commands import (
    block_commands,
    control_commands,
    dump_commands,
    fact_commands,
    machine_commands,
    pci_commands,
    replay_commands,
    reverse_commands,
    run_state_commands,
    snapshot_commands,
)
from timevm.monitor.commands.context import Handler, MonitorContext
from timevm.monitor.commands.errors import CommandError, CommandNotFound
from timevm.qmp_schema.arguments import ArgumentError, parse_arguments
from timevm.qmp_schema.base import Command, QapiModel
from timevm.qmp_schema.registry import COMMANDS

HANDLERS: dict[str, Handler] = {
    **control_commands.HANDLERS,
    **run_state_commands.HANDLERS,
    **replay_commands.HANDLERS,
    **reverse_commands.HANDLERS,
    **snapshot_commands.HANDLERS,
    **machine_commands.HANDLERS,
    **fact_commands.HANDLERS,
    **pci_commands.HANDLERS,
    **dump_commands.HANDLERS,
    **block_commands.HANDLERS,
}


def find_command(name: str) -> Command:
    """Raises CommandNotFound."""
    try:
        return COMMANDS[name]
    except KeyError:
        raise CommandNotFound(name) from None


async def execute(context: MonitorContext, name: str, arguments: dict[str, Any]) -> Any:
    """The command's result as models.  Raises CommandError, or another TimevmError from the machine."""
    command = find_command(name)
    try:
        parsed = parse_arguments(command.arguments, arguments)
    except ArgumentError as wrong:
        raise CommandError(str(wrong)) from wrong
    if command.run_states is not None and context.vm.run_state.value not in command.run_states:
        raise CommandError(command.refusal)
    return await HANDLERS[name](context, parsed)


def on_wire(result: Any) -> Any:
    """A result as JSON values; no result is the empty object."""
    if result is None:
        return {}
    if isinstance(result, QapiModel):
        return result.on_wire()
    if isinstance(result, list):
        return [on_wire(element) for element in result]
    return result
