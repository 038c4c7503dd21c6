"""The ``info`` commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from timevm.engine.control.port import MemoryRegion, ReplayMode
from timevm.monitor.commands.context import NetworkClient
from timevm.monitor.commands.control_commands import version
from timevm.monitor.commands.dispatch import execute
from timevm.monitor.hmp.dumping import info_dump
from timevm.monitor.hmp.errors import HmpError
from timevm.monitor.hmp.facts import FACTS
from timevm.monitor.hmp.interrupts import info_irq, info_pic
from timevm.monitor.hmp.mappings import info_mem, info_tlb
from timevm.monitor.hmp.parameters import Kind, Parameter
from timevm.monitor.hmp.registers import read_registers, render_registers
from timevm.monitor.hmp.snapshot_table import human_size, render_snapshots
from timevm.monitor.hmp.table import Call, HmpCommand
from timevm.qmp_schema.block import BlockInfo
from timevm.qmp_schema.extension import TimevmCheckpoints
from timevm.qmp_schema.pci import PciDeviceInfo, PciInfo, PciMemoryRegion

#: of names of regions that are I/O ports
_PORT = "port-"


async def info_replay(call: Call) -> str:
    info = await call.context.vm.replay_info()
    if info.mode is ReplayMode.NONE:
        return "Record/replay is not active\n"
    verb = "Recording" if info.mode is ReplayMode.RECORD else "Replaying"
    return f"{verb} execution '{info.filename}': instruction count = {info.icount}\n"


async def info_status(call: Call) -> str:
    state = call.context.vm.run_state.value
    if state == "running":
        return "VM status: running\n"
    return "VM status: paused" + (f" ({state})\n" if state != "paused" else "\n")


async def info_version(call: Call) -> str:
    found = version()
    triple = found.qemu
    return f"{triple.major}.{triple.minor}.{triple.micro} ({found.package})\n"


async def info_name(call: Call) -> str:
    name = call.context.vm.name
    return f"{name}\n" if name is not None else ""


async def info_kvm(call: Call) -> str:
    return "kvm support: not compiled\n"


async def info_chardev(call: Call) -> str:
    return "".join(f"{chardev.label}: filename={chardev.filename}\n" for chardev in call.context.chardevs)


async def info_cpus(call: Call) -> str:
    (cpu,) = await execute(call.context, "query-cpus-fast", {})
    return f"* CPU #0: thread_id={cpu.thread_id}\n"


async def info_registers(call: Call) -> str:
    index = call.values.get("vcpu", 0)
    if index != 0:
        return f"CPU#{index} not available\n"
    values = await call.context.vm.inspect(read_registers)
    return f"\nCPU#0\n{render_registers(values, call.context.vm.architecture)}"


async def info_mtree(call: Call) -> str:
    regions = await call.context.vm.inspect(lambda machine: machine.memory_map())
    regions = sorted(regions, key=lambda region: region.base)
    ports = [region for region in regions if region.name.startswith(_PORT)]
    memory = [region for region in regions if region not in ports]
    ports = [replace(region, name=region.name.removeprefix(_PORT)) for region in ports]
    if call.values["f"]:
        spaces = [("memory", "system", memory)] + ([("I/O", "io", ports)] if ports else [])
        return "".join(_flat_view(number, *space) for number, space in enumerate(spaces))
    text = _address_space("memory", "system", (1 << 64) - 1, memory)
    if ports:
        text += "\n" + _address_space("I/O", "io", 0xFFFF, ports)
    return text


def _flat_view(number: int, name: str, root: str, regions: Sequence[MemoryRegion]) -> str:
    text = f'FlatView #{number}\n AS "{name}", root: {root}\n Root memory region: {root}\n'
    return text + "".join(_region("  ", region) for region in regions) + "\n"


def _region(before: str, region: MemoryRegion) -> str:
    kind = "i/o" if region.kind == "io" else region.kind
    return f"{before}{region.base:016x}-{region.base + region.size - 1:016x} (prio 0, {kind}): {region.name}\n"


def _address_space(name: str, root: str, last: int, regions: Sequence[MemoryRegion]) -> str:
    text = f"address-space: {name}\n  0000000000000000-{last:016x} (prio 0, i/o): {root}\n"
    return text + "".join(_region("    ", region) for region in regions)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value} ({value:#x})"
    if isinstance(value, bytes):
        return f"{len(value)} bytes" + (f": {value[:32].hex(' ')}" if value else "")
    if value is None:
        return "none"
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "..."


async def info_qtree(call: Call) -> str:
    devices = await call.context.vm.inspect(lambda machine: machine.device_states())
    text = "bus: main-system-bus\n  type System\n"
    for name, state in devices.items():
        text += f'  dev: {name}, id ""\n' + "".join(f"    {key} = {_plain(value)}\n" for key, value in state.items())
    return text


async def info_snapshots(call: Call) -> str:
    snapshots = await call.context.vm.snapshots()
    if not snapshots:
        return "There is no snapshot available.\n"
    return "List of snapshots present on all disks:\n" + render_snapshots(snapshots)


async def info_jobs(call: Call) -> str:
    jobs = call.context.jobs.information()
    if not jobs:
        return "No active jobs\n"
    return "".join(
        f"{job.id}: {job.type.value}, {job.status.value}" + (f": {job.error}\n" if job.error else "\n") for job in jobs
    )


async def info_history(call: Call) -> str:
    return "".join(f"{number}: '{line}'\n" for number, line in enumerate(call.state.history))


async def info_block(call: Call) -> str:
    disks: list[BlockInfo] = await execute(call.context, "query-block", {})
    wanted = call.values.get("device")
    shown = []
    for disk in disks:
        node = disk.inserted
        if wanted is not None and wanted not in (disk.device, disk.qdev, node.node_name if node else None):
            continue
        if node is None:
            shown.append(f"{disk.device}: [not inserted]\n")
            continue
        name = f"{disk.device} ({node.node_name})" if disk.device and node.node_name else disk.device or node.node_name
        text = f"{name}: {node.file} ({node.drv}{', read-only' if node.ro else ''})\n"
        if disk.qdev:
            text += f"    Attached to:      {disk.qdev}\n"
        if disk.removable:
            text += f"    Removable device: {'' if disk.locked else 'not '}locked, tray closed\n"
        text += f"    Cache mode:       {'writeback' if node.cache.writeback else 'writethrough'}\n"
        if node.backing_file:
            text += f"    Backing file:     {node.backing_file} (chain depth: {node.backing_file_depth})\n"
        if call.values.get("verbose"):
            size = node.image.virtual_size
            text += f"\nImages:\nimage: {node.image.filename}\nfile format: {node.image.format}\n"
            text += f"virtual size: {human_size(size)} ({size} bytes)\n"
        shown.append(text)
    if wanted is not None and not shown:
        raise HmpError(f"Device '{wanted}' not found")
    return "\n".join(shown)


#: in QEMU's order
_STATISTICS = (
    "rd_bytes",
    "wr_bytes",
    "rd_operations",
    "wr_operations",
    "flush_operations",
    "wr_total_time_ns",
    "rd_total_time_ns",
    "flush_total_time_ns",
    "rd_merged",
    "wr_merged",
    "idle_time_ns",
)


async def info_blockstats(call: Call) -> str:
    lines = []
    for disk in await execute(call.context, "query-blockstats", {}):
        stats = disk.stats.on_wire() | {"idle_time_ns": 0}
        numbers = " ".join(f"{name}={stats[name]}" for name in _STATISTICS)
        lines.append(f"{disk.device or ''}: {numbers}\n")
    return "".join(lines)


def _network_lines(client: NetworkClient, before: str = "") -> Iterator[str]:
    yield f"{before}{client.name}: index=0,type={client.kind},{client.details}\n"
    if client.filters:
        yield "filters:\n"
        yield from (f"  - {each}\n" for each in client.filters)
    if client.peer is not None:
        yield from _network_lines(client.peer, " \\ ")


async def info_network(call: Call) -> str:
    return "".join(line for client in call.context.networks for line in _network_lines(client))


_ADDRESS_MASK = (1 << 64) - 1


def _pci_region(region: PciMemoryRegion) -> str:
    """One that answers nowhere is at the highest address, and so is where it would end: as QEMU says it."""
    first, last = region.address & _ADDRESS_MASK, region.address + region.size - 1 & _ADDRESS_MASK
    if region.type == "io":
        return f"      BAR{region.bar}: I/O at 0x{first:04x} [0x{last:04x}].\n"
    kind = f"{64 if region.mem_type_64 else 32} bit{' prefetchable' if region.prefetch else ''} memory"
    return f"      BAR{region.bar}: {kind} at 0x{first:08x} [0x{last:08x}].\n"


def _pci_device(device: PciDeviceInfo) -> str:
    kind, identity = device.class_info, device.id
    text = f"  Bus {device.bus:2}, device {device.slot:3}, function {device.function}:\n"
    text += f"    {kind.desc or f'Class {kind.class_:04}'}: PCI device {identity.vendor:04x}:{identity.device:04x}\n"
    if identity.subsystem is not None and identity.subsystem_vendor is not None:
        text += f"      PCI subsystem {identity.subsystem_vendor:04x}:{identity.subsystem:04x}\n"
    if device.irq is not None:
        text += f"      IRQ {device.irq}, pin {'ABCD'[device.irq_pin - 1]}\n"
    return text + "".join(map(_pci_region, device.regions)) + f'      id "{device.qdev_id}"\n'


async def info_pci(call: Call) -> str:
    buses: list[PciInfo] = await execute(call.context, "query-pci", {})
    if not buses:
        return "PCI devices not supported\n"
    return "".join(_pci_device(device) for bus in buses for device in bus.devices)


async def info_roms(call: Call) -> str:
    regions = await call.context.vm.inspect(lambda machine: machine.memory_map())
    return "".join(
        f'addr={region.base:016x} size={region.size:#08x} mem=rom name="{region.name}"\n'
        for region in regions
        if region.kind == "rom"
    )


async def info_checkpoints(call: Call) -> str:
    found: TimevmCheckpoints = await execute(call.context, "x-timevm-query-checkpoints", {})
    checkpoints = found.checkpoints
    if not checkpoints:
        return "There are no checkpoints in memory.\n"
    lines = [f"{'ICOUNT':>20} {'MEMORY':>10}"]
    lines += [f"{checkpoint.icount:>20} {human_size(checkpoint.bytes):>10}" for checkpoint in checkpoints]
    lines.append(f"{len(checkpoints)} checkpoints in {human_size(found.bytes)} of {human_size(found.budget)}")
    lines.append(
        f"taken {found.taken} in {found.taking_seconds:.3f} s, "
        f"gone back to {found.restored} in {found.restoring_seconds:.3f} s"
    )
    return "".join(f"{line}\n" for line in lines)


_COMMANDS: tuple[HmpCommand, ...] = (
    HmpCommand(
        ("block",),
        "the disks and their images",
        info_block,
        (Parameter("verbose", Kind.FLAG, flag="v"), Parameter("device", Kind.STRING, optional=True)),
        "[-v] [device]",
        ("info block", "info block -v disk0"),
    ),
    HmpCommand(("blockstats",), "what the disks have done", info_blockstats),
    HmpCommand(("chardev",), "where serial ports and monitors are connected", info_chardev),
    HmpCommand(("checkpoints",), "checkpoints in memory and what they cost", info_checkpoints),
    HmpCommand(("cpus",), "the CPU and its host thread", info_cpus),
    HmpCommand(("dump",), "how far the latest dump of memory is", info_dump),
    HmpCommand(("history",), "the lines typed so far", info_history),
    HmpCommand(("irq",), "interrupts that are enabled, pending or active", info_irq),
    HmpCommand(("jobs",), "jobs started over QMP", info_jobs),
    HmpCommand(("kvm",), "whether KVM is used: it is not", info_kvm),
    HmpCommand(("mem",), "what is mapped: ranges of virtual memory", info_mem, examples=("info mem",)),
    HmpCommand(
        ("mtree",),
        "the physical address space (-f: as a flat view)",
        info_mtree,
        tuple(Parameter(name, Kind.FLAG, flag=name) for name in "fdoD"),
        "[-f][-d][-o][-D]",
        ("info mtree", "info mtree -f"),
    ),
    HmpCommand(("name",), "the machine's name", info_name),
    HmpCommand(("network",), "network connections", info_network),
    HmpCommand(("pci",), "what is on the PCI bus", info_pci),
    HmpCommand(("pic",), "the interrupt controllers", info_pic),
    HmpCommand(("qtree",), "the devices and their state", info_qtree),
    HmpCommand(
        ("registers",),
        "the CPU's registers",
        info_registers,
        (Parameter("all", Kind.FLAG, flag="a"), Parameter("vcpu", Kind.SMALL, optional=True)),
        "[-a|vcpu]",
    ),
    HmpCommand(("replay",), "position in the recording", info_replay),
    HmpCommand(("roms",), "read-only memory", info_roms),
    HmpCommand(("snapshots",), "saved snapshots of the machine", info_snapshots, prefix=False),
    HmpCommand(("status",), "whether the machine runs", info_status),
    HmpCommand(("tlb",), "what is mapped: each page and its place", info_tlb, examples=("info tlb",)),
    HmpCommand(("version",), "QEMU version whose monitor this is, and timevm's", info_version),
)
INFORMATION: tuple[HmpCommand, ...] = tuple(sorted((*_COMMANDS, *FACTS), key=lambda command: command.names[0]))
