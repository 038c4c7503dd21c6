"""The disks for QMP and the human monitor: plain data of the machine becomes QAPI's structs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.blkreplay.qcow2.snapshot_table import SnapshotRecord
from timevm.engine.control.port import MachinePort, VmPort
from timevm.engine.machine.disk_info import DriveInfo, NodeInfo, drive_infos, nodes
from timevm.engine.machine.disks import Disk, OpenImage
from timevm.engine.machine.machine import Machine
from timevm.errors import InternalError, UserError
from timevm.qmp_schema.block import (
    BlockdevCacheInfo,
    BlockdevDetectZeroesOptions,
    BlockDeviceInfo,
    BlockDeviceStats,
    BlockInfo,
    BlockStats,
    ImageInfo,
    SnapshotInfo,
)

Answer = TypeVar("Answer")


class BlockMonitor:
    """``monitor.commands.context.BlockPort``; looks at the disks between two instructions."""

    def __init__(self, vm: VmPort) -> None:
        self._vm = vm

    async def _look(self, look: Callable[[Machine], Answer]) -> Answer:
        def with_machine(port: MachinePort) -> Answer:
            if not isinstance(port, Machine):
                raise InternalError("the machine has no disks to look at")
            return look(port)

        return await self._vm.inspect(with_machine)

    async def devices(self) -> list[BlockInfo]:
        return [_block_info(info) for info in await self._look(lambda machine: drive_infos(machine.disks))]

    async def nodes(self) -> list[BlockDeviceInfo]:
        return [_node_info(info) for info in await self._look(lambda machine: nodes(machine.disks))]

    async def statistics(self) -> list[BlockStats]:
        infos = await self._look(lambda machine: drive_infos(machine.disks))
        return [
            BlockStats(
                device=info.device,
                qdev=info.attached,
                node_name=info.node.name,
                stats=BlockDeviceStats.of(info.statistics),
            )
            for info in infos
        ]

    async def save_snapshot(self, device: str, name: str) -> None:
        """Of the disk alone; replaying, of the disk as the replay has it, beside what the image holds."""

        def save(machine: Machine) -> None:
            image, disk = _find(machine, device)
            node = _snapshotable(image, device)
            if any(record.tag == name for record in node.snapshots()):
                raise UserError(f"Snapshot with name '{name}' already exists on device '{device}'")
            machine.disks.drain()
            node.save_snapshot(
                name,
                date=time.time(),
                vm_clock_ns=machine.now_ns(),
                icount=machine.icount,
                overlay=disk.snapshot_overlay() if disk is not None else None,
            )

        await self._look(save)

    async def delete_snapshot(self, device: str, identifier: str | None, name: str | None) -> SnapshotInfo:
        def delete(machine: Machine) -> SnapshotRecord:
            node = _snapshotable(_find(machine, device)[0], device)
            if identifier is None and name is None:
                raise UserError("Name or id must be provided")
            for record in node.snapshots():
                if identifier in (None, record.id) and name in (None, record.tag):
                    machine.disks.drain()
                    node.delete_snapshot(record.id)
                    return record
            wanted = f"id '{identifier or 'null'}' and name '{name or 'null'}'"
            raise UserError(f"Snapshot with {wanted} does not exist on device '{device}'")

        return _snapshot_info(await self._look(delete))


def _find(machine: Machine, device: str) -> tuple[OpenImage, Disk | None]:
    for disk in machine.disks.disks:
        if device in (disk.name, disk.image.name, *disk.plan.filters):
            return disk.image, disk
    image = machine.disks.images.get(device)
    if image is None:
        raise UserError(f"Cannot find device='{device}' nor node-name='{device}'")
    return image, None


def _snapshotable(image: OpenImage, device: str) -> Qcow2Image:
    refusal = image.snapshot_refusal
    if refusal is not None or not isinstance(image.node, Qcow2Image):
        raise UserError(f"Block format of device '{device}' does not support internal snapshots: {refusal}")
    return image.node


def _block_info(info: DriveInfo) -> BlockInfo:
    return BlockInfo(
        device=info.device,
        qdev=info.attached,
        type="unknown",
        removable=info.attached is None,  # as QEMU says of a drive without a device
        locked=False,
        inserted=_node_info(info.node),
    )


def _node_info(node: NodeInfo) -> BlockDeviceInfo:
    return BlockDeviceInfo(
        file=node.file,
        node_name=node.name,
        ro=node.read_only,
        drv=node.driver,
        backing_file=node.backing_file,
        backing_file_depth=node.backing_depth,
        encrypted=False,
        detect_zeroes=BlockdevDetectZeroesOptions.OFF,
        bps=0,
        bps_rd=0,
        bps_wr=0,
        iops=0,
        iops_rd=0,
        iops_wr=0,
        image=ImageInfo(
            filename=node.file,
            format=node.driver,
            dirty_flag=bool(node.dirty),
            actual_size=node.allocated,
            virtual_size=(node.size + 511) // 512 * 512,
            cluster_size=node.cluster_size,
            backing_filename=node.backing_file,
        ),
        cache=BlockdevCacheInfo(writeback=node.write_cache, direct=False, no_flush=node.no_flush),
        write_threshold=0,
    )


def _snapshot_info(record: SnapshotRecord) -> SnapshotInfo:
    return SnapshotInfo(
        id=record.id,
        name=record.tag,
        vm_state_size=record.vm_state_size,
        date_sec=record.date_seconds,
        date_nsec=record.date_nanoseconds,
        vm_clock_sec=record.vm_clock_ns // 10**9,
        vm_clock_nsec=record.vm_clock_ns % 10**9,
        icount=record.icount if record.icount >= 0 else None,
    )
