"""QMP's view of the disks of a real machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.guests import bare
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.engine.control.port import VmPort
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.spec import MIB, DeviceOption, Drive, MachineSpec
from timevm.errors import UserError
from timevm.system.block_monitor import BlockMonitor


class StandingVm:
    """Only ``inspect``, on a machine that nobody runs."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    async def inspect(self, look: Callable[[Any], Any]) -> Any:
        return look(self.machine)


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[BlockMonitor]:
    for name in ("disk", "vm"):
        create_image(tmp_path / f"{name}.qcow2", CreateOptions(4 * MIB))
    spec = MachineSpec(
        kernel=bare("disk"),
        ram_bytes=16 * MIB,
        sleep=False,
        shift=3,
        drives=(
            Drive("direct", tmp_path / "disk.qcow2", snapshot=True),
            Drive("disk", driver="blkreplay", image="direct"),
            Drive("vm", tmp_path / "vm.qcow2"),
        ),
        devices=(DeviceOption("virtio-blk-device", "first", (("drive", "disk"),)),),
    )
    machine = build_machine(spec, lambda port, data: None)
    machine.run(2_000_000)
    yield BlockMonitor(cast(VmPort, StandingVm(machine)))
    machine.close()


async def test_devices_nodes_and_statistics(monitor: BlockMonitor) -> None:
    devices = await monitor.devices()
    assert [(one.device, one.qdev, one.removable) for one in devices] == [
        ("direct", None, True),
        ("disk", "first", False),
        ("vm", None, True),
    ]
    assert devices[1].inserted is not None and devices[1].inserted.drv == "blkreplay"
    drivers = [node.drv for node in await monitor.nodes()]
    assert sorted(drivers) == ["blkreplay", "file", "file", "qcow2", "qcow2"]
    counted = {one.device: one.stats for one in await monitor.statistics()}
    assert counted["disk"].rd_operations > 0 and counted["disk"].wr_bytes > 0
    assert counted["vm"].rd_operations == counted["direct"].wr_bytes == 0


async def test_internal_snapshots_of_one_disk(monitor: BlockMonitor) -> None:
    await monitor.save_snapshot("vm", "one")
    with pytest.raises(UserError, match="Snapshot with name 'one' already exists on device 'vm'"):
        await monitor.save_snapshot("vm", "one")
    await monitor.save_snapshot("vm", "two")
    info = await monitor.delete_snapshot("vm", None, "one")
    assert (info.id, info.name, info.vm_state_size) == ("1", "one", 0) and info.icount is not None
    with pytest.raises(UserError, match="Snapshot with id '2' and name 'one' does not exist on device 'vm'"):
        await monitor.delete_snapshot("vm", "2", "one")
    assert (await monitor.delete_snapshot("vm", "2", None)).name == "two"


async def test_what_has_no_place_for_snapshots_says_why(monitor: BlockMonitor) -> None:
    for device in ("disk", "direct"):
        with pytest.raises(UserError, match=f"device '{device}' does not support internal snapshots: .*snapshot=on"):
            await monitor.save_snapshot(device, "one")
    with pytest.raises(UserError, match="Cannot find device='gone' nor node-name='gone'"):
        await monitor.save_snapshot("gone", "one")
