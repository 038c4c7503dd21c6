"""Debian's arm64 kernel working on an ext4 disk behind blkreplay: recorded, replayed, sliced, on hosts of any speed."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace as changed
from pathlib import Path

import pytest

from tests.guests import disk
from tests.linux.harness import Outcome, assert_same, linux, record, replay, with_disks
from tests.linux.test_debian import random_limits
from tests.linux.test_disk_guest import MODERN, Jitter, jitter
from tests.peers import need
from timevm.blkreplay.opening import open_image
from timevm.engine.machine.spec import DeviceOption, MachineSpec

pytestmark = [pytest.mark.linux, pytest.mark.timeout(900)]

__all__ = ["jitter"]

HELLO = "hello from the disk\n" * 100


def ext4(path: Path) -> Path:
    """A qcow2 image with an ext4 file system of 16 MiB, label TVM, and a file ``hello.txt``."""
    given = disk()
    if given is not None:
        shutil.copy(given, path)
        return path
    folder, raw = path.with_suffix(".d"), path.with_suffix(".raw")
    folder.mkdir()
    (folder / "hello.txt").write_text(HELLO)
    make = [need("mkfs.ext4"), "-q", "-L", "TVM", "-d", str(folder), str(raw), "16m"]
    subprocess.run(make, check=True, timeout=60)
    subprocess.run([need("qemu-img"), "convert", "-O", "qcow2", raw, path], check=True, timeout=60)
    return path


def check_worked(outcome: Outcome) -> None:
    assert b"TIMEVM-GUEST disk vda ext4 TVM hello" in outcome.console, outcome.console
    assert b" ok\r\n" in outcome.console and b"BAD" not in outcome.console


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[MachineSpec, Outcome]:
    """With snapshot=on, as QEMU's documentation has it; shared by the replays of this file."""
    folder = tmp_path_factory.mktemp("disk")
    spec = with_disks(linux("disk,off", folder / "disk.rr"), ext4(folder / "disk.qcow2"), snapshot=True)
    outcome = record(spec)
    check_worked(outcome)
    return spec, outcome


def test_three_replays(recorded: tuple[MachineSpec, Outcome]) -> None:
    spec, outcome = recorded
    for _ in range(3):
        assert_same(outcome, replay(spec))


def test_random_slicing(recorded: tuple[MachineSpec, Outcome]) -> None:
    spec, outcome = recorded
    assert_same(outcome, replay(spec, random_limits(11, 1, 2_000_000)))


def test_replays_on_slow_and_fitful_hosts(
    recorded: tuple[MachineSpec, Outcome], jitter: Callable[[int, float], Jitter]
) -> None:
    spec, outcome = recorded
    assert_same(outcome, replay(spec, workers=jitter(1, 0.05)))


def test_recorded_on_a_slow_host_without_sleep(tmp_path: Path, jitter: Callable[[int, float], Jitter]) -> None:
    """The guest's time stands still while its disk works: no timeouts, whatever the host takes."""
    spec = linux("disk,off", tmp_path / "disk.rr", sleep=False)
    spec = with_disks(spec, ext4(tmp_path / "disk.qcow2"), snapshot=True)
    outcome = record(spec, workers=jitter(2, 0.1))
    check_worked(outcome)
    assert outcome.virtual_ns < 60 * 10**9
    assert_same(outcome, replay(spec))


def test_what_the_guest_wrote_is_in_the_image(tmp_path: Path) -> None:
    path = ext4(tmp_path / "disk.qcow2")
    spec = with_disks(linux("disk,off", tmp_path / "disk.rr"), path)
    outcome = record(spec)
    check_worked(outcome)
    subprocess.run([need("qemu-img"), "check", path], check=True, timeout=60, capture_output=True)
    raw = tmp_path / "after.raw"
    subprocess.run([need("qemu-img"), "convert", "-O", "raw", path, raw], check=True, timeout=60)
    subprocess.run([need("fsck.ext4"), "-fn", raw], check=True, timeout=60, capture_output=True)
    dump = [need("debugfs"), "-R", "cat /written", str(raw)]
    written = subprocess.run(dump, check=True, timeout=60, capture_output=True).stdout
    assert len(written) == 512 << 10
    assert_same(outcome, replay(spec))
    image = open_image(path, "qcow2", read_only=True)
    try:
        assert [record.tag for record in image.snapshots()] == ["rr:disk.rr"]  # type: ignore[union-attr]  # it is qcow2
    finally:
        image.close()


def test_a_session_of_many_reads_and_writes_with_random_slices(tmp_path: Path) -> None:
    spec = with_disks(
        linux("disk,disk,disk,off", tmp_path / "disk.rr", shift=0), ext4(tmp_path / "disk.qcow2"), snapshot=True
    )
    outcome = record(spec)
    assert outcome.console.count(b" ok\r\n") == 3
    assert_same(outcome, replay(spec, random_limits(random.randrange(1 << 30), 100_000, 50_000_000)))


def test_the_modern_interface_and_a_random_number_generator(tmp_path: Path) -> None:
    spec = with_disks(linux("disk,rand,off", tmp_path / "disk.rr"), ext4(tmp_path / "disk.qcow2"), snapshot=True)
    devices = (DeviceOption("virtio-rng-device"), *spec.devices)
    outcomes: list[Outcome] = []
    for properties in (MODERN, ()):
        made = changed(spec, machine_properties=properties, devices=devices, rrfile=tmp_path / f"{len(outcomes)}.rr")
        outcomes.append(record(made))
        check_worked(outcomes[-1])
        assert re.search(rb"rand hwrng [0-9a-f]{32}\r\n", outcomes[-1].console), outcomes[-1].console
        assert_same(outcomes[-1], replay(made))
    assert outcomes[0].digest != outcomes[1].digest
