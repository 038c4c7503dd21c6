"""The real program with the disks of QEMU's record/replay documentation."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import command, qmp, run, running, status
from tests.guests import bare
from tests.linux.test_disk_guest import image
from tests.peers import need

GUEST = ["-M", "virt", "-m", "16", "-kernel", str(bare("disk")), "-nodefaults", "-display", "none", "-serial", "stdio"]
DIRECT = "file=disk.qcow2,if=none,snapshot=on,id=img-direct"
REPLAYED = ["-drive", "driver=blkreplay,if=none,image=img-direct,id=img-blkreplay"]
DEVICE = ["-device", "virtio-blk-device,drive=img-blkreplay"]


WHOLE = ["-drive", DIRECT, *REPLAYED, *DEVICE]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``disk.rr``, its disk, and another one."""
    folder = tmp_path_factory.mktemp("recording")
    image(folder / "disk.qcow2", requests=50)
    image(folder / "other.qcow2", requests=51)
    assert run([*GUEST, *WHOLE, *icount("record")], cwd=folder).returncode == 0
    return folder


def icount(mode: str, file: str = "disk.rr") -> list[str]:
    return ["-icount", f"shift=3,sleep=off,rr={mode},rrfile={file}"]


@pytest.mark.parametrize(
    "disk",
    [
        ["-drive", DIRECT, *REPLAYED, *DEVICE],
        ["-drive", DIRECT.replace("snapshot=on,", ""), *REPLAYED, *DEVICE],
        ["-drive", DIRECT, "-drive", "driver=blkreplay,image=img-direct,id=img-blkreplay"],
        [
            *("-blockdev", "driver=file,node-name=file,filename=disk.qcow2"),
            *("-blockdev", "driver=qcow2,node-name=img-direct,file=file,read-only=off"),
            *("-blockdev", "driver=blkreplay,node-name=img-blkreplay,image=img-direct", *DEVICE),
        ],
        ["-drive", DIRECT, *REPLAYED, *DEVICE, "-global", "virtio-mmio.force-legacy=off"],
    ],
    ids=["snapshot", "written", "if=virtio", "blockdev", "modern"],
)
def test_recorded_and_replayed(tmp_path: Path, disk: list[str]) -> None:
    image(tmp_path / "disk.qcow2")
    recorded = run([*GUEST, *disk, *icount("record")], cwd=tmp_path)
    assert recorded.returncode == 0, recorded.stderr.decode()
    assert b"requests=0064" in recorded.stdout and b"bye timing=" in recorded.stdout
    before = (tmp_path / "disk.qcow2").read_bytes()
    replayed = run([*GUEST, *disk, *icount("replay")], cwd=tmp_path)
    assert (replayed.returncode, replayed.stdout) == (0, recorded.stdout), replayed.stderr.decode()
    assert (tmp_path / "disk.qcow2").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["-drive", DIRECT, "-device", "virtio-blk-device,drive=img-direct"], "is not behind blkreplay"),
        (["-drive", DIRECT.replace("disk.", "other."), *REPLAYED, *DEVICE], "disk 'img-blkreplay': recorded with"),
        (["-drive", DIRECT, *REPLAYED, *DEVICE, *DEVICE], "already in use"),
        (["-drive", DIRECT, *REPLAYED, *DEVICE, "-device", "virtio-rng-device"], "devices: recorded with"),
        (["-drive", DIRECT, *REPLAYED, *DEVICE, "-global", "virtio-mmio.force-legacy=off"], "devices: recorded with"),
        (
            ["-drive", DIRECT, *REPLAYED, "-device", "virtio-blk-device,drive=img-blkreplay,foo=1"],
            "devices: recorded with",
        ),
    ],
)
def test_another_disk_is_refused_before_the_first_instruction(recording: Path, change: list[str], message: str) -> None:
    refused = run([*GUEST, *change, *icount("replay")], cwd=recording)
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert message in refused.stderr.decode() and b"Traceback" not in refused.stderr


def test_a_raw_image_is_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(bytes(1 << 20))
    direct = "file=disk.raw,format=raw,if=none,id=img-direct"
    refused = run([*GUEST, "-drive", direct, *REPLAYED, *DEVICE, *icount("record", "new.rr")], cwd=tmp_path)
    assert refused.returncode == 1 and b"a raw image does not keep what it was" in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk.raw"]


def test_a_recording_that_cannot_begin_leaves_no_snapshot_in_the_image(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.qcow2")
    direct = DIRECT.replace("snapshot=on,", "")
    refused = run([*GUEST, "-drive", direct, *REPLAYED, *DEVICE, *icount("record", "no/folder.rr")], cwd=tmp_path)
    assert refused.returncode == 1
    listed = subprocess.run([need("qemu-img"), "snapshot", "-l", path], capture_output=True, timeout=60, check=True)
    assert b"rr:" not in listed.stdout


def test_a_full_disk_is_an_error_of_the_guests_and_a_line_for_the_user(tmp_path: Path) -> None:
    """The file may not grow: what needs a new cluster fails, nothing is damaged, and the replay is the same."""
    path = image(tmp_path / "disk.qcow2", requests=120)
    direct = ["-drive", DIRECT.replace("snapshot=on,", ""), *REPLAYED, *DEVICE]
    most = path.stat().st_size + (600 << 10)
    recorded = subprocess.run(
        command([*GUEST, *direct, *icount("record")]),
        capture_output=True,
        timeout=120,
        cwd=tmp_path,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )
    assert recorded.returncode == 0 and b"errors=" in recorded.stdout, (recorded.stdout, recorded.stderr.decode())
    message = recorded.stderr.decode()
    assert "of the disk 'img-blkreplay' (write of" in message and "File too large" in message, message
    assert len(message.splitlines()) < 10 and "Traceback" not in message
    checked = subprocess.run([need("qemu-img"), "check", path], timeout=60, capture_output=True)
    assert checked.returncode in (0, 3), checked.stdout.decode()  # 3: leaked clusters, no corruption
    replayed = run([*GUEST, *direct, *icount("replay")], cwd=tmp_path)
    assert (replayed.returncode, replayed.stdout) == (0, recorded.stdout), replayed.stderr.decode()


async def test_monitors_show_the_disks_of_a_replay(recording: Path) -> None:
    socket = recording / "qmp"
    arguments = [*GUEST, *WHOLE, *icount("replay"), "-qmp", f"unix:{socket},server=on,wait=off"]
    async with running(arguments, recording) as daemon, qmp(daemon, socket) as client:
        await status(client, "paused")
        statistics: Any = await client.execute("query-blockstats")
        counted = {one["device"]: one["stats"] for one in statistics}
        assert counted["img-blkreplay"]["rd_operations"] > 10 < counted["img-blkreplay"]["wr_operations"]
        devices: Any = await client.execute("query-block")
        assert [one["device"] for one in devices] == ["img-direct", "img-blkreplay"]
        text: Any = await client.execute("human-monitor-command", {"command-line": "info block"})
        assert "img-blkreplay" in text and "blkreplay" in text
        await client.execute("replay-seek", {"icount": 100_000})
        await status(client, "paused")
        await client.execute("quit")
        assert await daemon.ends() == 0
