"""From the command line to images and disks; what is wrong is said in QEMU's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from timevm.config import Config, parse_command_line
from timevm.engine.machine.block_graph import ImagePlan, plan_disks
from timevm.engine.machine.spec import Blockdev, DeviceOption, Drive, MachineSpec
from timevm.errors import UserError


def spec_of(line: str) -> MachineSpec:
    config = parse_command_line("timevm-system-aarch64", ["-M", "virt", *line.split()])
    assert isinstance(config, Config)
    return config.machine


def test_the_command_line_of_qemus_documentation() -> None:
    images, disks = plan_disks(
        spec_of(
            "-drive file=disk.qcow2,if=none,snapshot=on,id=img-direct "
            "-drive driver=blkreplay,if=none,image=img-direct,id=img-blkreplay "
            "-device virtio-blk-device,drive=img-blkreplay"
        )
    )
    assert images == [ImagePlan("img-direct", Path("disk.qcow2"), snapshot=True)]
    [disk] = disks
    assert (disk.name, disk.filters, disk.image) == ("img-blkreplay", ("img-blkreplay",), images[0])


def test_an_image_that_no_device_has() -> None:
    images, disks = plan_disks(spec_of("-drive file=vm.qcow2,if=none,id=vm,readonly=on,format=qcow2"))
    assert images == [ImagePlan("vm", Path("vm.qcow2"), "qcow2", readonly=True)] and disks == []


def test_if_virtio_is_a_device_of_its_own_behind_the_others() -> None:
    images, disks = plan_disks(
        spec_of("-drive file=a,format=raw -drive file=b,if=none,id=b,format=raw -device virtio-blk-device,drive=b")
    )
    assert [image.name for image in images] == ["virtio0", "b"]
    assert [disk.name for disk in disks] == ["b", "virtio0"]
    assert disks[1].device.driver == "virtio-blk-device"


def test_blockdev() -> None:
    images, disks = plan_disks(
        spec_of(
            "-blockdev driver=file,node-name=f,filename=disk.raw "
            "-blockdev driver=raw,node-name=r,file=f,read-only=on,cache.no-flush=on "
            "-blockdev driver=qcow2,node-name=q,file.driver=file,file.filename=disk.qcow2 "
            "-blockdev driver=null-co,node-name=n,size=4M "
            "-blockdev driver=blkreplay,node-name=replay,image=q "
            "-device virtio-blk-device,drive=r -device virtio-blk-device,drive=replay "
            "-device virtio-blk-device,drive=n"
        )
    )
    assert {image.name: (image.path and str(image.path), image.format) for image in images} == {
        "r": ("disk.raw", "raw"),
        "q": ("disk.qcow2", "qcow2"),
        "n": (None, "null-co"),
    }
    assert images[0].readonly and not images[0].durable and images[2].size == 4 << 20
    assert [(disk.image.name, disk.filters) for disk in disks] == [("r", ()), ("q", ("replay",)), ("n", ())]


@pytest.mark.parametrize(
    ("cache", "durable", "write_cache"),
    [
        ("none", True, True),
        ("writeback", True, True),
        ("writethrough", True, False),
        ("directsync", True, False),
        ("unsafe", False, True),
    ],
)
def test_cache(cache: str, durable: bool, write_cache: bool) -> None:
    [image], _ = plan_disks(spec_of(f"-drive file=a,if=none,id=a,cache={cache}"))
    assert (image.durable, image.write_cache) == (durable, write_cache)


def disk_on(name: str) -> DeviceOption:
    return DeviceOption("virtio-blk-device", None, (("drive", name),))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            MachineSpec(drives=(Drive("a", Path("a")),), devices=(disk_on("a"), disk_on("a"))),
            "Drive 'a' is already in use",
        ),
        (MachineSpec(devices=(disk_on("gone"),)), "Cannot find device='gone' nor node-name='gone'"),
        (
            MachineSpec(
                drives=(Drive("a", driver="blkreplay", image="b"), Drive("b", driver="blkreplay", image="a")),
                devices=(disk_on("a"),),
            ),
            "blkreplay nodes in a circle: a, b",
        ),
        (
            MachineSpec(blockdevs=(Blockdev("qcow2", "q"),)),
            'A block device must be specified for "file"',
        ),
        (MachineSpec(blockdevs=(Blockdev("file", "f"),)), "Parameter 'filename' is missing"),
        (
            MachineSpec(blockdevs=(Blockdev("qcow2", "q", (("file", "x"),)),)),
            "Cannot find device='x' nor node-name='x'",
        ),
        (
            MachineSpec(
                blockdevs=(Blockdev("file", "f", (("filename", "x"),)), Blockdev("raw", "r", (("file", "f"),))),
                devices=(disk_on("f"),),
            ),
            "node 'f' is the file of another node",
        ),
        (
            MachineSpec(drives=(Drive("a", Path("a"), properties=(("cache", "maybe"),)),)),
            "invalid cache option 'maybe'",
        ),
        (
            MachineSpec(blockdevs=(Blockdev("qcow2", "q", (("file.filename", "a"), ("raed-only", "on"))),)),
            "-blockdev driver=qcow2,node-name=q,raed-only=on: Parameter 'raed-only' is unexpected",
        ),
        (
            MachineSpec(blockdevs=(Blockdev("raw", "r", (("file.filename", "a"), ("offset", "512"))),)),
            "Parameter 'offset' is unexpected",
        ),
        (
            MachineSpec(blockdevs=(Blockdev("raw", "r", (("file.driver", "nbd"),)),)),
            "images are files only",
        ),
        (
            MachineSpec(blockdevs=(Blockdev("null-co", "n", (("size", "big"),)),)),
            "Parameter 'size' expects a size",
        ),
        (
            MachineSpec(blockdevs=(Blockdev("null-co", "n", (("read-only", "perhaps"),)),)),
            "Parameter 'read-only' expects 'on' or 'off'",
        ),
    ],
)
def test_what_makes_no_graph_is_refused(spec: MachineSpec, message: str) -> None:
    with pytest.raises(UserError) as caught:
        plan_disks(spec)
    assert message in str(caught.value)
