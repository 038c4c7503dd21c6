"""Commands of the protocol itself.  ``qmp_capabilities`` is executed by the session: here it comes too late."""

from __future__ import annotations

from functools import cache

from timevm.monitor.commands.context import PACKAGE, QEMU_VERSION, Handler, MonitorContext
from timevm.monitor.commands.errors import COMMAND_NOT_FOUND, CommandError
from timevm.qmp_schema.base import Empty
from timevm.qmp_schema.control import CapabilitiesArguments, CommandInfo, EventInfo, VersionInfo, VersionTriple
from timevm.qmp_schema.introspection import SchemaInfo, schema
from timevm.qmp_schema.registry import COMMANDS, EVENTS


class NegotiationError(CommandError):
    """``qmp_capabilities`` at the wrong time, or another command before it."""

    qmp_class = COMMAND_NOT_FOUND


def version() -> VersionInfo:
    major, minor, micro = QEMU_VERSION
    return VersionInfo(qemu=VersionTriple(major=major, minor=minor, micro=micro), package=PACKAGE)


async def qmp_capabilities(context: MonitorContext, arguments: CapabilitiesArguments) -> None:
    raise NegotiationError("Capabilities negotiation is already complete, command ignored")


async def query_version(context: MonitorContext, arguments: Empty) -> VersionInfo:
    return version()


async def query_commands(context: MonitorContext, arguments: Empty) -> list[CommandInfo]:
    return [CommandInfo(name=name) for name in COMMANDS]


async def query_events(context: MonitorContext, arguments: Empty) -> list[EventInfo]:
    return [EventInfo(name=name) for name in EVENTS]


@cache
def _schema() -> list[SchemaInfo]:
    return schema(COMMANDS.values(), EVENTS.values())


async def query_qmp_schema(context: MonitorContext, arguments: Empty) -> list[SchemaInfo]:
    return _schema()


HANDLERS: dict[str, Handler] = {
    "qmp_capabilities": qmp_capabilities,
    "query-version": query_version,
    "query-commands": query_commands,
    "query-events": query_events,
    "query-qmp-schema": query_qmp_schema,
}
