"""The ``info`` commands about what never changes."""

from __future__ import annotations

from timevm.monitor.commands.dispatch import execute
from timevm.monitor.hmp.table import Call, HmpCommand
from timevm.qmp_schema.facts import MemoryInfo, UuidInfo


async def info_uuid(call: Call) -> str:
    found: UuidInfo = await execute(call.context, "query-uuid", {})
    return f"{found.UUID}\n"


async def info_memory_size_summary(call: Call) -> str:
    found: MemoryInfo = await execute(call.context, "query-memory-size-summary", {})
    return f"base memory: {found.base_memory}\nplugged memory: {found.plugged_memory}\n"


async def info_iothreads(call: Call) -> str:
    """There are none."""
    return ""


FACTS: tuple[HmpCommand, ...] = (
    HmpCommand(("iothreads",), "threads of -object iothread: there are none", info_iothreads),
    HmpCommand(("memory_size_summary",), "how much RAM the guest has", info_memory_size_summary),
    HmpCommand(("uuid",), "the machine's UUID", info_uuid),
)
