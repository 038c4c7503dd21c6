"""What the machine is, what is in its memory, and the human monitor's line."""

from __future__ import annotations

import os
import threading

import aiofiles

from timevm.engine.control.port import MachinePort
from timevm.monitor.commands.context import Handler, MonitorContext
from timevm.monitor.commands.errors import CommandError
from timevm.qmp_schema.base import Empty
from timevm.qmp_schema.chardev import ChardevInfo
from timevm.qmp_schema.machine import (
    CpuInfoFast,
    CpuInstanceProperties,
    HumanMonitorArguments,
    KvmInfo,
    MachineInfo,
    MemorySaveArguments,
    NameInfo,
    PhysicalMemorySaveArguments,
    SysEmuTarget,
)

#: bytes copied between two looks at the machine, so that it is not held up for long
_CHUNK = 1 << 20
_ADDRESS_MASK = (1 << 64) - 1


async def query_name(context: MonitorContext, arguments: Empty) -> NameInfo:
    return NameInfo(name=context.vm.name)


async def query_kvm(context: MonitorContext, arguments: Empty) -> KvmInfo:
    return KvmInfo(enabled=False, present=False)


#: by architecture: where QEMU has the first CPU in its object tree, and how it counts it
_PC_CPU = ("/machine/unattached/device[0]", CpuInstanceProperties(socket_id=0, core_id=0, thread_id=0))
_CPUS = {
    "aarch64": (_PC_CPU[0], CpuInstanceProperties(socket_id=0, cluster_id=0, core_id=0, thread_id=0)),
    "riscv64": ("/machine/soc0/harts[0]", CpuInstanceProperties(core_id=0)),
}


async def query_cpus_fast(context: MonitorContext, arguments: Empty) -> list[CpuInfoFast]:
    thread = await context.vm.inspect(lambda machine: threading.get_native_id())
    path, properties = _CPUS.get(context.vm.architecture, _PC_CPU)
    return [
        CpuInfoFast(
            cpu_index=0,
            qom_path=path,
            thread_id=thread,
            props=properties,
            target=SysEmuTarget(context.vm.architecture),
        )
    ]


async def query_machines(context: MonitorContext, arguments: Empty) -> list[MachineInfo]:
    if context.machines:
        return list(context.machines)
    own = MachineInfo(
        name=context.vm.machine_type,
        cpu_max=1,
        hotpluggable_cpus=False,
        numa_mem_supported=False,
        deprecated=False,
    )
    return [own]


async def query_chardev(context: MonitorContext, arguments: Empty) -> list[ChardevInfo]:
    return [
        ChardevInfo(label=chardev.label, filename=chardev.filename, frontend_open=chardev.frontend_open)
        for chardev in context.chardevs
    ]


def check_cpu_index(index: int | None) -> None:
    """Raises CommandError unless ``index`` is that of the only CPU."""
    if index not in (None, 0):
        raise CommandError("Parameter 'cpu-index' expects a CPU number")


async def _save(context: MonitorContext, address: int, size: int, filename: str, *, physical: bool) -> None:
    address &= _ADDRESS_MASK
    invalid = CommandError(f"Invalid addr 0x{address:016x}/size {size} specified")
    if size < 0:
        raise invalid
    try:
        async with aiofiles.open(filename, "wb") as file:
            for start in range(address, address + size, _CHUNK):
                length = min(_CHUNK, address + size - start)

                def look(machine: MachinePort, start: int = start, length: int = length) -> bytes:
                    return machine.read_memory(start, length, physical=physical)

                data = await context.vm.inspect(look)
                if len(data) != length:
                    raise invalid
                await file.write(data)
    except OSError as failure:
        raise CommandError(f"Could not open '{filename}': {os.strerror(failure.errno or 0)}") from failure


async def memsave(context: MonitorContext, arguments: MemorySaveArguments) -> None:
    check_cpu_index(arguments.cpu_index)
    await _save(context, arguments.val, arguments.size, arguments.filename, physical=False)


async def pmemsave(context: MonitorContext, arguments: PhysicalMemorySaveArguments) -> None:
    await _save(context, arguments.val, arguments.size, arguments.filename, physical=True)


async def inject_nmi(context: MonitorContext, arguments: Empty) -> None:
    await context.vm.inject_nmi()


async def human_monitor_command(context: MonitorContext, arguments: HumanMonitorArguments) -> str:
    check_cpu_index(arguments.cpu_index)
    if context.human_monitor is None:
        raise CommandError("this timevm was started without a human monitor")
    printed = await context.human_monitor(arguments.command_line, context)
    return printed.replace("\n", "\r\n")


HANDLERS: dict[str, Handler] = {
    "query-name": query_name,
    "query-kvm": query_kvm,
    "query-cpus-fast": query_cpus_fast,
    "query-machines": query_machines,
    "query-chardev": query_chardev,
    "memsave": memsave,
    "pmemsave": pmemsave,
    "inject-nmi": inject_nmi,
    "human-monitor-command": human_monitor_command,
}
