"""Debian's amd64 kernel on the pc board, without a special parameter: disks on both controllers, from firmware on."""

from __future__ import annotations

import lzma
import random
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.guests import linux_x86_64
from tests.linux.harness import Outcome, assert_same, record, replay
from tests.linux.test_debian import random_limits
from tests.linux.test_debian_disk import ext4
from tests.peers import need, need_file
from timevm.engine.machine.boards import SEABIOS
from timevm.engine.machine.spec import MIB, DeviceOption, Drive, MachineSpec

pytestmark = [pytest.mark.linux, pytest.mark.timeout(1200)]

DRIVERS = ("ide-hd", "virtio-blk-pci")
#: what init calls the disk on each
NAMES = {"ide-hd": b"sda", "virtio-blk-pci": b"vda"}


def linux_pc(steps: str, recording: Path) -> MachineSpec:
    guest = linux_x86_64()
    return MachineSpec(
        architecture="x86_64",
        machine="pc",
        cpu="qemu64",
        kernel=guest.kernel,
        initrd=guest.initrd,
        ram_bytes=512 * MIB,
        append=f"console=ttyS0 quiet nokaslr tvm={steps}",
        shift=2,
        mode="record",
        rrfile=recording,
    )


def with_disk(spec: MachineSpec, image: Path, driver: str) -> MachineSpec:
    drives = (Drive("direct", image, snapshot=True), Drive("disk", driver="blkreplay", image="direct"))
    return replace(spec, drives=drives, devices=(DeviceOption(driver, None, (("drive", "disk"),)),))


@pytest.fixture(scope="module", params=DRIVERS)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[MachineSpec, Outcome]:
    """Reset to power-off with work on an ext4 disk; shared by the replays of this file."""
    folder = tmp_path_factory.mktemp("pc")
    spec = with_disk(linux_pc("basic,disk,off", folder / "pc.rr"), ext4(folder / "disk.qcow2"), request.param)
    outcome = record(spec)
    name = NAMES[request.param]
    assert b"TIMEVM-GUEST basic uname Linux" in outcome.console, outcome.console
    assert b"TIMEVM-GUEST disk " + name + b" ext4 TVM hello" in outcome.console
    assert b" ok\r\n" in outcome.console and b"BAD" not in outcome.console
    assert outcome.console.rstrip().endswith(b"reboot: Power down")
    return spec, outcome


def test_a_replay_at_full_speed(recorded: tuple[MachineSpec, Outcome]) -> None:
    spec, outcome = recorded
    assert_same(outcome, replay(spec))


def test_random_slicing(recorded: tuple[MachineSpec, Outcome]) -> None:
    spec, outcome = recorded
    assert_same(outcome, replay(spec, random_limits(3, 5_000_000, 40_000_000)))


def test_dense_slicing_here_and_there(recorded: tuple[MachineSpec, Outcome]) -> None:
    spec, outcome = recorded

    def limits() -> Iterator[int]:
        generator = random.Random(11)
        for start in sorted(generator.randrange(outcome.icount) for _ in range(8)):
            yield from range(start, start + 3000)

    assert_same(outcome, replay(spec, sorted(set(limits()))))


SYSLINUX = """SERIAL 0 115200
DEFAULT linux
PROMPT 0
LABEL linux
 KERNEL vmlinuz
 INITRD initrd.gz
 APPEND console=ttyS0 quiet nokaslr tvm=basic,off
"""


def test_seabios_and_syslinux_start_linux(tmp_path: Path) -> None:
    """A disk image with a FAT file system, from the firmware's first instruction to power-off."""
    need_file(str(SEABIOS))
    guest, image = linux_x86_64(), tmp_path / "disk.img"
    (tmp_path / "syslinux.cfg").write_text(SYSLINUX)
    image.write_bytes(bytes(48 * MIB))
    for command in (
        [need("mkfs.vfat"), "-F", "16", str(image)],
        [need("syslinux"), "-i", str(image)],
        [need("mcopy"), "-i", str(image), str(tmp_path / "syslinux.cfg"), "::"],
        [need("mcopy"), "-i", str(image), str(guest.kernel), "::vmlinuz"],
        [need("mcopy"), "-i", str(image), str(guest.initrd), "::initrd.gz"],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    spec = replace(linux_pc("", tmp_path / "boot.rr"), kernel=None, initrd=None, append="")
    spec = with_disk(spec, image, "ide-hd")
    outcome = record(spec)
    assert b"SYSLINUX" in outcome.console and b"TIMEVM-GUEST basic uname Linux" in outcome.console
    assert outcome.console.rstrip().endswith(b"reboot: Power down")
    assert_same(outcome, replay(spec))


def vmlinux(bzimage: Path, target: Path) -> Path:
    """The ELF file inside a bzImage (boot.rst: payload_offset and payload_length), if it is packed with xz."""
    data = bzimage.read_bytes()
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = 512 * (1 + (data[0x1F1] or 4)) + offset
    # the last 4 bytes are the unpacked size
    target.write_bytes(lzma.decompress(data[start : start + length - 4]))
    return target


def test_vmlinux_starts_at_its_pvh_entry(tmp_path: Path) -> None:
    spec = linux_pc("off", tmp_path / "elf.rr")
    assert spec.kernel is not None
    spec = replace(spec, kernel=vmlinux(spec.kernel, tmp_path / "vmlinux"))
    outcome = record(spec)
    assert b"TIMEVM-GUEST off" in outcome.console and outcome.console.rstrip().endswith(b"reboot: Power down")
    assert outcome.icount < 4_000_000_000, "there was nothing to unpack"
    assert_same(outcome, replay(spec))
