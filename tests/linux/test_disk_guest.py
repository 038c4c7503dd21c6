"""The bare disk guest: its checksum holds when each request ended, so a replay that is off by one instruction shows."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from tests.blkreplay.memory_node import EagerWorker, LateWorker
from tests.guests import ROOT
from tests.linux.harness import Outcome, Terminal, assert_same, bare_guest, build, record, replay, with_disks
from tests.linux.test_bare_irq import random_limits
from tests.peers import need
from timevm.blkreplay.iothread import Worker
from timevm.blkreplay.layer import ImageLayer
from timevm.blkreplay.node import BlockNode
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.engine.machine import disks
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import RunEnd
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.replay.events import Request, RequestKind
from timevm.engine.replay.gate import NEVER
from timevm.errors import HostError, RecordingError, UserError

MODERN = (("virtio-mmio.force-legacy", "off"),)


def image(path: Path, requests: int = 100) -> Path:
    """A disk of 4 MiB on which the guest makes so many requests."""
    create_image(path, CreateOptions(4 << 20))
    operations = b"TVMOPS\0\0" + requests.to_bytes(4, "little")
    with path.with_suffix(".raw").open("wb") as raw:
        raw.write(operations + random.Random(requests).randbytes(1 << 20))
        raw.truncate(4 << 20)
    subprocess.run([need("qemu-img"), "convert", "-n", "-O", "qcow2", raw.name, path], check=True, timeout=60)
    return path


def guest(folder: Path, count: int = 2, *, requests: int = 100, snapshot: bool = True, **options: bool) -> MachineSpec:
    images = [image(folder / f"{number}.qcow2", requests) for number in range(count)]
    return with_disks(bare_guest("disk", folder / "disk.rr", **options), *images, snapshot=snapshot)


def check_ended(outcome: Outcome, count: int = 2) -> None:
    assert outcome.console.count(b"requests=") == count and b"bye timing=" in outcome.console, outcome.console
    assert b"errors" not in outcome.console


@pytest.mark.parametrize("sleep", [False, True], ids=["jumps", "sleeps"])
@pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
def test_replays_are_the_recorded_run(tmp_path: Path, modern: bool, sleep: bool) -> None:
    spec = replace(guest(tmp_path, sleep=sleep), machine_properties=MODERN if modern else ())
    recorded = record(spec)
    check_ended(recorded)
    generator = random.Random(modern)
    assert_same(recorded, replay(spec))
    assert_same(recorded, replay(spec, random_limits(generator, 1, 20_000)))
    assert_same(recorded, replay(spec, chain(range(1, 3_000), random_limits(generator, 1, 3_000))))


class Jitter:
    """Workers that are slow and fast as they like, each disk's by itself: the disks' completions come in any order."""

    def __init__(self, seed: int, most: float) -> None:
        self._generator = random.Random(seed)
        self._most = most
        self._workers: list[LateWorker] = []

    def __call__(self, name: str) -> Worker:
        def delay() -> float:
            return self._generator.choice((0.0, 0.0, self._generator.random() * self._most))

        self._workers.append(LateWorker(delay))
        return self._workers[-1]

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


@pytest.fixture
def jitter() -> Iterator[Callable[[int, float], Jitter]]:
    made: list[Jitter] = []

    def make(seed: int, most: float) -> Jitter:
        made.append(Jitter(seed, most))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("sleep", [False, True], ids=["jumps", "sleeps"])
def test_the_hosts_speed_decides_the_run_but_not_its_replay(
    tmp_path: Path, jitter: Callable[[int, float], Jitter], sleep: bool
) -> None:
    """Recorded on a host that is fast, slow or fitful; replayed on each of the others."""
    seen = set()
    for number, recorder in enumerate((lambda name: EagerWorker(), jitter(1, 0.002), None)):
        folder = tmp_path / str(number)
        folder.mkdir()
        spec = guest(folder, requests=60, sleep=sleep)
        recorded = record(spec, workers=recorder)
        check_ended(recorded)
        seen.add(recorded.console)
        for replayer in (lambda name: EagerWorker(), jitter(2, 0.002), jitter(3, 0.0), None):
            assert_same(recorded, replay(spec, workers=replayer))
    assert len(seen) > 1, "all hosts gave the same run: these workers make no difference"


def test_without_snapshot_the_image_is_written_and_the_recording_still_replays(tmp_path: Path) -> None:
    """The guest's data is in the image, what it was before in an internal snapshot.  Then other recordings follow."""
    spec = guest(tmp_path, snapshot=False)
    first = record(spec)
    images = [drive.file for drive in spec.drives if drive.file is not None]
    for path in images:
        subprocess.run([need("qemu-img"), "check", path], check=True, timeout=60, capture_output=True)
        listed = subprocess.run([need("qemu-img"), "snapshot", "-l", path], timeout=60, capture_output=True, text=True)
        assert listed.stdout.count("rr:disk.rr") == 1
    before = [path.read_bytes() for path in images]
    assert_same(first, replay(spec))
    assert [path.read_bytes() for path in images] == before, "a replay changed an image"
    other = replace(spec, rrfile=tmp_path / "other.rr")
    second = record(other)
    assert second.console != first.console
    assert_same(first, replay(spec))
    assert_same(second, replay(other))
    third = record(spec)  # over the first: its snapshot goes too
    assert_same(third, replay(spec))
    listed = subprocess.run([need("qemu-img"), "snapshot", "-l", images[0]], timeout=60, capture_output=True, text=True)
    assert listed.stdout.count("rr:disk.rr") == 1 and listed.stdout.count("rr:other.rr") == 1


def test_a_disk_that_is_not_the_recorded_one_is_refused(tmp_path: Path) -> None:
    spec = guest(tmp_path)
    record(spec)
    path = spec.drives[2].file
    assert path is not None
    subprocess.run([need("qemu-io"), "-c", "write -P 1 1M 512", path], check=True, timeout=60, capture_output=True)
    with pytest.raises(RecordingError, match=r"disk 'disk1': recorded with the one with digest .*, now the one with"):
        replay(spec)
    swapped = replace(spec, devices=tuple(reversed(spec.devices)))
    with pytest.raises(RecordingError, match="disk"):
        replay(swapped)


def test_a_copy_in_another_format_is_the_same_disk(tmp_path: Path) -> None:
    spec = guest(tmp_path, count=1)
    recorded = record(spec)
    path, other = spec.drives[0].file, tmp_path / "copy.raw"
    assert path is not None
    subprocess.run([need("qemu-img"), "convert", "-O", "raw", path, other], check=True, timeout=60)
    assert_same(recorded, replay(replace(spec, drives=(replace(spec.drives[0], file=other), spec.drives[1]))))


def test_no_disk_behind_blkreplay_no_recording(tmp_path: Path) -> None:
    spec = guest(tmp_path, count=1)
    direct = replace(spec, devices=(replace(spec.devices[0], properties=(("drive", "direct0"),)),))
    with pytest.raises(
        UserError, match="-drive driver=blkreplay,if=none,image=direct0-direct,id=direct0 -device virtio"
    ):
        record(direct)
    live = replace(direct, mode="none", rrfile=None)
    check_ended(record(live), count=1)


@pytest.mark.parametrize("seconds", [0.2, 0.6, 1.1])
def test_a_killed_recorder_leaves_a_sound_image_and_a_recording_that_replays(tmp_path: Path, seconds: float) -> None:
    spec = guest(tmp_path, requests=1 << 20, snapshot=False)
    code = "import pickle, sys; from tests.linux.harness import record; record(pickle.load(sys.stdin.buffer))"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, cwd=ROOT) as recorder:
        assert recorder.stdin is not None
        recorder.stdin.write(pickle.dumps(spec))
        recorder.stdin.close()
        wait_for(lambda: spec.rrfile is not None and spec.rrfile.exists() and spec.rrfile.stat().st_size > 1000)
        with pytest.raises(subprocess.TimeoutExpired):
            recorder.wait(seconds)
        recorder.kill()
    for drive in spec.drives[::2]:
        checked = subprocess.run([need("qemu-img"), "check", str(drive.file)], timeout=60, capture_output=True)
        assert checked.returncode in (0, 3), checked.stdout.decode()  # 3: leaked clusters, no corruption
    replayed = replay(spec)
    assert b"disk ready" in replayed.console and replayed.icount > 100_000
    assert_same(replayed, replay(spec))


def wait_for(happened: Callable[[], bool], patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while not happened():
        assert time.monotonic() < deadline, f"it did not happen within {patience:g} s"
        time.sleep(0.01)


def run_with_resets(machine: Machine, asked_for: Iterator[int]) -> None:
    """To the power-off; a reset is asked for at some instructions (a replay needs no asking)."""
    limit = next(asked_for, NEVER)
    while (result := machine.run(limit)).end is not RunEnd.POWERED_OFF:
        if result.end is RunEnd.RESET:
            machine.reset()
        elif result.end is RunEnd.LIMIT:
            machine.inject(Request(RequestKind.RESET))
            limit = next(asked_for, NEVER)
        else:
            pytest.fail(f"{result}")


def test_a_reset_with_requests_under_way(tmp_path: Path, jitter: Callable[[int, float], Jitter]) -> None:
    """They are completed when another machine is up, which never asked for them."""
    spec = guest(tmp_path, requests=40)
    outcomes = []
    again = replace(spec, mode="play")
    resets = (100_000, 150_000, 400_000)
    for now, workers, asked_for in ((spec, jitter(4, 0.01), resets), (again, None, ()), (again, jitter(5, 0.01), ())):
        terminal = Terminal()
        machine = build(now, terminal, workers)
        run_with_resets(machine, iter(asked_for))
        outcomes.append((bytes(terminal.console), machine.icount, machine.now_ns(), machine.digest()))
        machine.finish("shutdown")
        machine.close()
    assert outcomes[0][0].count(b"disk ready") >= 3
    assert outcomes[1:] == outcomes[:1] * 2


class Unreliable:
    """A BlockNode over another that refuses every so many operations, writes half-done."""

    def __init__(self, node: BlockNode, every: int) -> None:
        self._node = node
        self._every = every
        self._count = 0

    @property
    def size(self) -> int:
        return self._node.size

    def _fails(self) -> bool:
        self._count += 1
        return self._count % self._every == 0

    def read(self, offset: int, length: int) -> bytes:
        if self._fails():
            raise HostError("cannot be read")
        return self._node.read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        if self._fails():
            self._node.write(offset, b"?" * (len(data) // 2))
            raise HostError("No space left on device")
        self._node.write(offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool = True) -> None:
        if self._fails():
            raise HostError("No space left on device")
        self._node.write_zeroes(offset, length, unmap=unmap)

    def discard(self, offset: int, length: int) -> None:
        self._node.discard(offset, length)

    def flush(self) -> None:
        if self._fails():
            raise HostError("Input/output error")
        self._node.flush()

    def close(self) -> None:
        self._node.close()


@pytest.mark.parametrize("snapshot", [True, False], ids=["overlay", "image"])
def test_a_failing_host_is_seen_by_the_guest_and_by_its_replay(
    tmp_path: Path, snapshot: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was half written reads the same in the recording and in the replay, which never saw it."""
    spec = guest(tmp_path, snapshot=snapshot, requests=150)
    with monkeypatch.context() as patch:
        patch.setattr(disks, "ImageLayer", lambda node: ImageLayer(Unreliable(node, 17)))
        recorded = record(spec)
    assert b"errors=" in recorded.console and recorded.console.count(b"requests=") == 2
    assert_same(recorded, replay(spec))
    assert_same(recorded, replay(spec, random_limits(random.Random(5), 1, 10_000)))


def test_many_replays(tmp_path: Path) -> None:
    """None hangs; a thousand of them were run by hand (docs/decisions/0052)."""
    spec = guest(tmp_path, count=2, requests=25)
    recorded = record(spec)
    check_ended(recorded)
    for _ in range(25):
        assert_same(recorded, replay(spec))
