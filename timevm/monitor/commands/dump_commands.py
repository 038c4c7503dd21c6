"""``dump-guest-memory`` and what there is to ask about it."""

from __future__ import annotations

from timevm.engine.control.looks import DumpRequest
from timevm.monitor.commands.context import Handler, MonitorContext
from timevm.monitor.commands.errors import CommandError
from timevm.qmp_schema.base import Empty
from timevm.qmp_schema.dump import DumpArguments, DumpGuestMemoryCapability, DumpGuestMemoryFormat, DumpQueryResult

_FILE, _DESCRIPTOR = "file:", "fd:"


def _chosen(arguments: DumpArguments) -> range | None:
    """Raises CommandError in QEMU's words."""
    begin, length = arguments.begin, arguments.length
    if begin is None and length is None:
        return None
    if length is None:
        raise CommandError("Parameter 'length' is missing")
    if begin is None:
        raise CommandError("Parameter 'begin' is missing")
    if begin < 0:
        raise CommandError("Invalid parameter 'begin'")
    if length == 0:
        raise CommandError("Invalid parameter 'length'")
    return range(begin, begin + length)


def _filename(protocol: str) -> str:
    """Raises CommandError in QEMU's words: nobody can pass descriptors to a monitor of timevm."""
    if protocol.startswith(_DESCRIPTOR):
        raise CommandError(f"File descriptor named '{protocol.removeprefix(_DESCRIPTOR)}' has not been found")
    if not protocol.startswith(_FILE):
        raise CommandError("Invalid parameter 'protocol'")
    return protocol.removeprefix(_FILE)


async def dump_guest_memory(context: MonitorContext, arguments: DumpArguments) -> None:
    context.dumps.check_idle()
    form = arguments.format or DumpGuestMemoryFormat.ELF
    if form is not DumpGuestMemoryFormat.ELF:
        if arguments.paging or arguments.begin is not None or arguments.length is not None:
            raise CommandError("kdump-compressed format doesn't support paging or filter")
        raise CommandError(f"{form.value} is not available now")
    request = DumpRequest(_filename(arguments.protocol), _chosen(arguments), arguments.paging)
    await context.dumps.take(request, detach=bool(arguments.detach))


async def query_dump(context: MonitorContext, arguments: Empty) -> DumpQueryResult:
    return context.dumps.information()


async def query_dump_guest_memory_capability(context: MonitorContext, arguments: Empty) -> DumpGuestMemoryCapability:
    return DumpGuestMemoryCapability(formats=[DumpGuestMemoryFormat.ELF])


HANDLERS: dict[str, Handler] = {
    "dump-guest-memory": dump_guest_memory,
    "query-dump": query_dump,
    "query-dump-guest-memory-capability": query_dump_guest_memory_capability,
}
