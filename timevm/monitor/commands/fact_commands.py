"""What QEMU can be asked of a machine that never changes."""

from __future__ import annotations

from timevm.monitor.commands.context import Handler, MonitorContext
from timevm.qmp_schema.base import Empty
from timevm.qmp_schema.facts import CurrentMachineParams, IOThreadInfo, MemoryInfo, TargetInfo, UuidInfo
from timevm.qmp_schema.machine import SysEmuTarget


async def query_target(context: MonitorContext, arguments: Empty) -> TargetInfo:
    return TargetInfo(arch=SysEmuTarget(context.vm.architecture))


async def query_uuid(context: MonitorContext, arguments: Empty) -> UuidInfo:
    return UuidInfo(UUID=str(context.uuid))


async def query_memory_size_summary(context: MonitorContext, arguments: Empty) -> MemoryInfo:
    return MemoryInfo(base_memory=context.vm.ram_size, plugged_memory=0)


async def query_iothreads(context: MonitorContext, arguments: Empty) -> list[IOThreadInfo]:
    return []


async def query_current_machine(context: MonitorContext, arguments: Empty) -> CurrentMachineParams:
    return CurrentMachineParams(wakeup_suspend_support=False)


HANDLERS: dict[str, Handler] = {
    "query-target": query_target,
    "query-uuid": query_uuid,
    "query-memory-size-summary": query_memory_size_summary,
    "query-iothreads": query_iothreads,
    "query-current-machine": query_current_machine,
}
