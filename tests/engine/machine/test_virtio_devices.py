"""Options of the virtio devices, and where on the virt board they go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.devices.virtio_driver import Memory
from tests.engine.devices.wires import Wire
from timevm.engine.devices.virtio_blk import VirtioBlk
from timevm.engine.devices.virtio_mmio import Register
from timevm.engine.devices.virtio_rng import VirtioRng
from timevm.engine.machine.boards.virt import VIRTIO
from timevm.engine.machine.boards.virtio_slots import fill_slots
from timevm.engine.machine.disks import Disks, open_disks
from timevm.engine.machine.network_cards import Cables
from timevm.engine.machine.spec import Blockdev, DeviceOption, Drive, MachineSpec
from timevm.engine.machine.virtio_devices import make_devices
from timevm.errors import UserError


def null(name: str, size: str = "1M") -> Blockdev:
    return Blockdev("null-co", name, (("size", size),))


def disk(name: str, **properties: str) -> DeviceOption:
    pairs = tuple((key.replace("__", "-"), value) for key, value in properties.items())
    return DeviceOption("virtio-blk-device", f"dev-{name}", (("drive", name), *pairs))


ENTROPY = DeviceOption("virtio-rng-device")


@pytest.fixture
def disks_of() -> Iterator[list[Disks]]:
    opened: list[Disks] = []
    yield opened
    for disks in opened:
        disks.close()


def devices(spec: MachineSpec, opened: list[Disks]) -> list[VirtioBlk | VirtioRng]:
    opened.append(open_disks(spec))
    found = list(make_devices(spec, opened[-1], Cables.of(spec), lambda name: Memory(), b"seed", "device"))
    assert all(isinstance(one, VirtioBlk | VirtioRng) for one in found)
    return found  # type: ignore[return-value]  # just checked


def test_devices_come_in_the_order_of_the_command_line(tmp_path: Path, disks_of: list[Disks]) -> None:
    path = tmp_path / "raw"
    path.write_bytes(bytes(4096))
    spec = MachineSpec(
        drives=(Drive(None, path, "raw", interface="virtio"),),
        blockdevs=(null("a"), null("b")),
        devices=(disk("a"), ENTROPY, disk("b"), ENTROPY),
    )
    found = devices(spec, disks_of)
    assert [one.name for one in found] == ["dev-a", "virtio-rng0", "dev-b", "virtio-rng1", "virtio-blk virtio0"]
    slots = fill_slots(found, VIRTIO, lambda number: Wire())
    assert list(slots.devices) == [f"virtio-mmio.{number}" for number in range(27, 32)]
    assert len(slots.windows) == len(slots.nodes) == VIRTIO.count
    ids = [window.handler.read(Register.DEVICE_ID, 4) for window in slots.windows]
    assert ids == [0] * 27 + [2, 4, 2, 4, 2], "QEMU fills the slots from the last one on"
    assert slots.windows[31].base == VIRTIO.base + 31 * VIRTIO.size == 0x0A003E00
    assert slots.nodes[31].interrupt == VIRTIO.first_interrupt + 31 and slots.nodes[31].trigger == 1


def test_two_entropy_sources_give_different_bytes(disks_of: list[Disks]) -> None:
    first, second = devices(MachineSpec(devices=(ENTROPY, ENTROPY)), disks_of)
    assert isinstance(first, VirtioRng) and isinstance(second, VirtioRng)
    assert first._bytes(16) != second._bytes(16)


def test_more_devices_than_slots_are_refused(disks_of: list[Disks]) -> None:
    found = devices(MachineSpec(devices=(ENTROPY,) * 33), disks_of)
    with pytest.raises(UserError, match="32 places for virtio devices, 33 are asked for"):
        fill_slots(found, VIRTIO, lambda number: Wire())


def test_options_of_a_disk(disks_of: list[Disks]) -> None:
    option = disk(
        "a",
        serial="XYZ",
        logical_block_size="4k",
        physical_block_size="4096",
        opt_io_size="64k",
        num__queues="2",
        queue__size="128",
        write__cache="off",
        bootindex="1",
        discard="off",
    )
    [device] = devices(MachineSpec(blockdevs=(null("a"),), devices=(option,)), disks_of)
    assert isinstance(device, VirtioBlk)
    options = device._options
    assert (options.serial, options.logical_block_size, options.queues, options.queue_size) == ("XYZ", 4096, 2, 128)
    assert not options.write_cache and not options.discard and options.write_zeroes
    assert [queue.largest for queue in device.queues] == [128, 128]


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"colour": "red"}, "Property 'virtio-blk-device.colour' not found"),
        ({"logical_block_size": "100"}, "logical_block_size doesn't take value '100'"),
        ({"logical_block_size": "4096", "physical_block_size": "512"}, "not supported"),
        ({"queue__size": "100"}, "invalid queue-size property (100)"),
        ({"queue__size": "2048"}, "invalid queue-size property (2048)"),
        ({"num__queues": "0"}, "num-queues property must be larger than 0"),
        ({"min_io_size": "100"}, "min_io_size must be a multiple of logical_block_size"),
        ({"opt_io_size": "many"}, "Parameter 'opt_io_size' expects a number"),
        ({"write__cache": "perhaps"}, "Parameter 'write-cache' expects 'on' or 'off'"),
    ],
)
def test_wrong_options_are_named(properties: dict[str, str], message: str, disks_of: list[Disks]) -> None:
    with pytest.raises(UserError) as caught:
        devices(MachineSpec(blockdevs=(null("a"),), devices=(disk("a", **properties),)), disks_of)
    assert message in str(caught.value)


def test_a_disk_is_a_whole_number_of_its_blocks(disks_of: list[Disks]) -> None:
    spec = MachineSpec(blockdevs=(null("a", "1049088"),), devices=(disk("a", logical_block_size="4096"),))
    with pytest.raises(UserError, match="no whole number of blocks"):
        devices(spec, disks_of)
