"""Images opened, drives on them, what is left behind for a replay, and how a replay finds it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.blkreplay.memory_node import EagerWorker
from timevm.blkreplay.opening import open_image
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.engine.machine.disk_info import drive_infos, nodes
from timevm.engine.machine.disks import Disks, open_disks
from timevm.engine.machine.spec import Blockdev, DeviceOption, Drive, MachineSpec
from timevm.errors import UserError

SIZE = 1 << 20

Open = Callable[..., Disks]


@pytest.fixture
def opened() -> Iterator[Open]:
    """``open_disks`` with a worker that does everything at once; what it opened is closed in the end."""
    all_disks: list[Disks] = []

    def open_now(spec: MachineSpec, recorded: dict[str, str] | None = None) -> Disks:
        all_disks.append(open_disks(spec, recorded, lambda name: EagerWorker()))
        return all_disks[-1]

    yield open_now
    for disks in all_disks:
        disks.close()


def content(seed: int) -> bytes:
    return random.Random(seed).randbytes(SIZE // 4) + bytes(SIZE - SIZE // 4)


def image(path: Path, seed: int = 1, cluster_size: int = 65536) -> Path:
    create_image(path, CreateOptions(SIZE, cluster_size=cluster_size))
    node = open_image(path, "qcow2")
    node.write(0, content(seed))
    node.close()
    return path


def spec(path: Path, mode: str = "none", *, filtered: bool = True, **drive: object) -> MachineSpec:
    direct = Drive("direct", path, **drive)  # type: ignore[arg-type]  # fields of Drive
    drives = (direct, Drive("disk", driver="blkreplay", image="direct")) if filtered else (direct,)
    device = DeviceOption("virtio-blk-device", "vblk", (("drive", "disk" if filtered else "direct"),))
    rrfile = None if mode == "none" else path.with_suffix(".rr")
    return MachineSpec(drives=drives, devices=(device,), mode=mode, rrfile=rrfile)  # type: ignore[arg-type]  # a mode


def write(disks: Disks, offset: int, data: bytes) -> None:
    drive = disks.disks[0].drive
    drive.complete(drive.write(offset, data), False)


def read(disks: Disks) -> bytes:
    drive = disks.disks[0].drive
    answers: list[bytes | None] = []
    drive.completed = lambda request, data: answers.append(data)
    drive.complete(drive.read(0, SIZE), False)
    assert answers[0] is not None
    return answers[0]


def bytes_of(path: Path) -> bytes:
    node = open_image(path, None, read_only=True)
    try:
        return node.read(0, SIZE)
    finally:
        node.close()


def tags(path: Path) -> list[str]:
    node = open_image(path, "qcow2", read_only=True)
    assert isinstance(node, Qcow2Image)
    try:
        return [record.tag for record in node.snapshots()]
    finally:
        node.close()


def test_a_live_disk_writes_its_image(tmp_path: Path, opened: Open) -> None:
    path = image(tmp_path / "a.qcow2")
    disks = opened(spec(path, filtered=False))
    write(disks, 5, b"hello")
    disks.close()
    disks.close()
    assert bytes_of(path)[:12] == content(1)[:5] + b"hello" + content(1)[10:12]
    assert tags(path) == []


@pytest.mark.parametrize("mode", ["none", "record"])
def test_snapshot_on_leaves_the_image_alone(tmp_path: Path, opened: Open, mode: str) -> None:
    path = image(tmp_path / "a.qcow2")
    before = path.read_bytes()
    disks = opened(spec(path, mode, snapshot=True))
    write(disks, 0, b"x" * 5000)
    assert read(disks) == b"x" * 5000 + content(1)[5000:]
    refusal = disks.images["direct"].snapshot_refusal
    assert refusal is not None and "Leave snapshot=on out" in refusal
    disks.close()
    assert path.read_bytes() == before


def test_a_recording_leaves_behind_what_it_began_with_and_a_replay_finds_it(tmp_path: Path, opened: Open) -> None:
    path = image(tmp_path / "a.qcow2")
    disks = opened(spec(path, "record"))
    recorded = dict(disks.digests)
    disks.settle()
    write(disks, 0, b"y" * 100_000)
    disks.close()
    assert tags(path) == ["rr:a.rr"]
    written = path.read_bytes()
    for _ in range(2):
        replay = opened(spec(path, "play"), recorded)
        assert dict(replay.digests) == recorded
        assert read(replay) == content(1)
        write(replay, 0, b"y" * 100_000)
        assert read(replay) == b"y" * 100_000 + content(1)[100_000:]
        replay.close()
        assert path.read_bytes() == written, "a replay changed the image"


def test_recording_again_over_a_file_replaces_its_snapshot_only_when_it_began(tmp_path: Path, opened: Open) -> None:
    path = image(tmp_path / "a.qcow2")
    first = opened(spec(path, "record"))
    first.settle()
    first.close()
    failed = opened(spec(path, "record"))
    failed.abandon()
    assert tags(path) == ["rr:a.rr"]
    second = opened(spec(path, "record"))
    write(second, 0, b"z")
    second.settle()
    second.close()
    other = opened(replace(spec(path, "record"), rrfile=tmp_path / "other.rr"))
    other.settle()
    other.close()
    assert tags(path) == ["rr:a.rr", "rr:other.rr"]


def test_another_disk_has_another_digest(tmp_path: Path, opened: Open) -> None:
    path = image(tmp_path / "a.qcow2")
    recording = opened(spec(path, "record", snapshot=True))
    recorded = dict(recording.digests)
    recording.close()
    node = open_image(path, "qcow2")
    node.write(SIZE - 1, b"!")
    node.close()
    assert dict(opened(spec(path, "play", snapshot=True), recorded).digests) != recorded


def test_a_replays_disk_is_saved_into_the_image_beside_its_active_state(tmp_path: Path, opened: Open) -> None:
    """What begins with the image, and what begins with a snapshot in it because a recording wrote on."""
    for name, snapshot, cluster_size in (
        ("on", True, 512),
        ("on64", True, 65536),
        ("off", False, 2048),
        ("off2M", False, 2 << 20),
    ):
        path = image(tmp_path / f"{name}.qcow2", cluster_size=cluster_size)
        recording = opened(spec(path, "record", snapshot=snapshot))
        recorded = dict(recording.digests)
        recording.settle()
        write(recording, 300_000, b"w" * 70_000)
        write(recording, 0, b"v" * 10)
        recording.close()
        active = bytes_of(path)
        replay = opened(spec(path, "play", snapshot=False), recorded)
        write(replay, 300_000, b"w" * 70_000)
        expected = read(replay)
        [disk] = replay.disks
        node = disk.image.node
        assert isinstance(node, Qcow2Image) and disk.image.snapshot_refusal is None
        replay.drain()
        record = node.save_snapshot("mid", overlay=disk.snapshot_overlay())
        assert node.snapshot_reader(record.id).read(0, SIZE) == expected
        write(replay, 0, b"v" * 10)
        assert read(replay) == b"v" * 10 + expected[10:]
        # and another process goes on from there
        replay.close()
        assert bytes_of(path) == active
        later = opened(spec(path, "play", snapshot=False), recorded)
        [disk] = later.disks
        disk.load_snapshot("mid", writes=1)
        disk.drive.restore({"requests": 9, "writes": 1, "history": 0, "in_flight": []})
        assert read(later) == expected
        write(later, 0, b"v" * 10)
        assert read(later) == b"v" * 10 + expected[10:]
        node = disk.image.node
        assert isinstance(node, Qcow2Image)
        later.drain()
        record = node.save_snapshot("next", overlay=disk.snapshot_overlay())
        assert node.snapshot_reader(record.id).read(0, SIZE) == read(later)
        for used in ("mid", f"rr:{name}.rr"):
            if used in [record.tag for record in node.snapshots()]:
                with pytest.raises(UserError, match=f"snapshot '{used}' of .* is in use"):
                    node.delete_snapshot(used)
                with pytest.raises(UserError, match="in use"):
                    node.save_snapshot(used)
        assert read(later) == b"v" * 10 + expected[10:]
        later.close()


def test_a_live_disk_goes_to_a_snapshot(tmp_path: Path, opened: Open) -> None:
    path = image(tmp_path / "a.qcow2")
    disks = opened(spec(path))
    node = disks.images["direct"].node
    assert isinstance(node, Qcow2Image)
    node.save_snapshot("early")
    write(disks, 0, b"n" * 1000)
    disks.drain()
    disks.disks[0].load_snapshot("early", writes=0)
    assert read(disks) == content(1)
    with pytest.raises(UserError, match="no snapshot 'late'"):
        disks.disks[0].load_snapshot("late", writes=0)


@pytest.mark.parametrize("mode", ["record", "play"])
def test_a_disk_without_blkreplay_is_refused_with_what_to_write(tmp_path: Path, opened: Open, mode: str) -> None:
    path = image(tmp_path / "a.qcow2")
    with pytest.raises(UserError, match="is not behind blkreplay") as caught:
        opened(spec(path, mode, filtered=False))
    assert (
        f"-drive file={path},if=none,snapshot=on,id=direct-direct "
        "-drive driver=blkreplay,if=none,image=direct-direct,id=direct -device virtio-blk-device,drive=direct"
    ) in str(caught.value)


def test_a_raw_image_is_not_recorded_while_it_is_written(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(content(3))
    for image_format in ("raw", None):
        with pytest.raises(UserError, match="a raw image does not keep what it was"):
            opened(spec(path, "record", format=image_format))
    for options in ({"snapshot": True}, {"readonly": True}):
        disks = opened(spec(path, "record", format="raw", **options))
        digest = dict(disks.digests)
        disks.close()
        replay = opened(spec(path, "play", format="raw", **options), digest)
        assert dict(replay.digests) == digest
        assert replay.disks[0].drive.read_only is ("readonly" in options)
        replay.close()


def test_a_disk_of_nothing(opened: Open) -> None:
    null = Blockdev("null-co", "n", (("size", "1M"),))
    replayed = Blockdev("blkreplay", "r", (("image", "n"),))
    device = DeviceOption("virtio-blk-device", None, (("drive", "r"),))
    made = MachineSpec(blockdevs=(null, replayed), devices=(device,), mode="record", rrfile=Path("x"))
    recording = opened(made)
    write(recording, 0, b"forgotten")
    replay = opened(replace(made, mode="play"), dict(recording.digests))
    write(replay, 0, b"forgotten")
    assert read(replay) == read(recording) == bytes(SIZE)


def test_a_replay_of_an_image_that_may_not_be_written(tmp_path: Path, opened: Open) -> None:
    path = image(tmp_path / "a.qcow2")
    path.chmod(0o444)
    disks = opened(spec(path, "play"), {})
    assert read(disks) == content(1)


def test_two_machines_do_not_share_an_image_that_one_writes(tmp_path: Path, opened: Open) -> None:
    path = image(tmp_path / "a.qcow2")
    opened(spec(path))
    with pytest.raises(UserError, match="Failed to get"):
        opened(spec(path))


def test_what_monitors_show(tmp_path: Path, opened: Open) -> None:
    create_image(tmp_path / "top.qcow2", CreateOptions(SIZE, backing_file="a.qcow2", backing_format="qcow2"))
    image(tmp_path / "a.qcow2")
    base = spec(tmp_path / "top.qcow2", snapshot=True)
    orphan = image(tmp_path / "vm.qcow2")
    disks = opened(replace(base, drives=(*base.drives, Drive("vm", orphan, readonly=True))))
    write(disks, 512, b"x" * 512)
    direct, disk, vm = drive_infos(disks)
    assert (direct.device, direct.attached, direct.statistics) == ("direct", None, {})
    assert (disk.device, disk.attached, disk.node.driver) == ("disk", "vblk", "blkreplay")
    assert disk.statistics["wr_bytes"] == 512 and disk.statistics["wr_highest_offset"] == 1024
    assert direct.node.backing_depth == 2 and direct.node.backing_file == str(tmp_path / "top.qcow2")
    assert (vm.device, vm.node.read_only, vm.node.size, vm.node.cluster_size) == ("vm", True, SIZE, 65536)
    names = [node.name for node in nodes(disks)]
    assert len(set(names)) == len(names) == 5
