"""The recording's promises while it is written: kill -9 loses 100 ms at most, a full disk is told once."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.engine.replay.toys import IDENTITY, ToySink
from timevm.engine.replay.codec import Entry
from timevm.engine.replay.events import Digest, Idle, SerialInput
from timevm.engine.replay.log_writer import LogWriter
from timevm.engine.replay.opening import create_recording, open_recording
from timevm.engine.replay.record_gate import RecordGate
from timevm.engine.replay.replay_gate import ReplayGate
from timevm.errors import HostError, InternalError, RecordingError

ROOT = Path(__file__).resolve().parents[3]
PROMISE = 0.1  # seconds


def events_of(path: Path) -> list[Entry]:
    reader = open_recording(path)
    entries = list(reader.entries())
    reader.close()
    return entries


def holds(path: Path, count: int) -> bool:
    return len(events_of(path)) == count


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 10) -> float:
    """Seconds that it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"after {seconds} s still not: {what}"
        os.sched_yield()
    return time.monotonic() - start


def test_a_pending_event_reaches_the_file_in_time_without_further_calls(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = create_recording(path, IDENTITY)
    took = []
    for number in range(1, 6):
        writer.append(number, Idle(number))
        took.append(wait_until(partial(holds, path, number), "the event is in the file"))
    writer.close()
    # the machine that runs this test may be busy: the best of five shows the rule, the worst bounds it
    assert min(took) <= PROMISE, took
    assert len(events_of(path)) == 5


def kill_at_a_random_moment(path: Path, seed: int) -> tuple[list[tuple[int, float]], float]:
    """(number, time) of each event that the recorder said it appends, and when it was killed."""
    arguments = [sys.executable, "-m", "tests.engine.replay.recorder_process", str(path), str(seed)]
    child = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE)
    lines: list[bytes] = []
    assert child.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(child.stdout or ()))
    reader.start()
    try:
        wait_until(lambda: len(lines) > 0, "the recorder records")
        time.sleep(random.Random(seed).random() * 0.4)  # the random moment
        killed = time.monotonic()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        reader.join(10)
        child.stdout.close()
    complete = [line.split() for line in lines if line.endswith(b"\n")]
    return [(int(number), float(seconds)) for number, seconds in complete], killed


@pytest.mark.parametrize("batch", range(4))
def test_kill_9_loses_at_most_the_last_frame(tmp_path: Path, batch: int) -> None:
    for seed in range(batch * 5, batch * 5 + 5):
        path = tmp_path / str(seed)
        said, killed = kill_at_a_random_moment(path, seed)
        entries = events_of(path)
        assert entries == [Entry(n, SerialInput(0, n.to_bytes(8, "little"))) for n in range(len(entries))]
        lost = [seconds for number, seconds in said if number >= len(entries)]
        assert all(killed - seconds < 2 * PROMISE for seconds in lost), f"lost what was {killed - min(lost):.3f} s old"
        gate = ReplayGate(open_recording(path))
        sink = ToySink()
        while gate.finished(sink.icount) is None:
            sink.icount = gate.horizon(sink.icount)
            while gate.deliver(sink.icount, sink):
                pass
        assert len(sink.history) == len(entries)
        assert "no end mark" in (gate.finished(sink.icount) or "")
        gate.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 64 KiB where mounting is allowed; otherwise a limit on the size of files does the same."""
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if mount and subprocess.run(command, capture_output=True, check=False).returncode == 0:
        try:
            yield tmp_path
        finally:
            subprocess.run(["umount", "-l", str(tmp_path)], check=True)
        return
    with limited_files():
        yield tmp_path


@contextmanager
def limited_files(size: int = 64 << 10) -> Iterator[None]:
    """Files of this process end at ``size`` bytes, as on a full disk; Python ignores the signal that comes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(writer: LogWriter) -> tuple[int, HostError]:
    """Append until it fails: number of events that went in, and the error."""
    chance = random.Random(7)
    for number in range(100_000):
        try:
            writer.append(number, SerialInput(0, chance.randbytes(100)))
        except HostError as error:
            return number, error
    raise AssertionError("the disk never filled up")


def check_full(writer: LogWriter) -> None:
    count, error = fill(writer)
    assert "cannot be continued after instruction" in str(error)
    assert "can be replayed" in str(error) and "\n" not in str(error)
    with pytest.raises(HostError) as again:  # nothing may happen that is not recorded
        writer.append(10**6, Idle(1))
    assert again.value is error
    writer.close()  # it was told
    entries = events_of(writer.path)
    assert 0 < len(entries) <= count
    assert [entry.icount for entry in entries] == list(range(len(entries)))
    reader = open_recording(writer.path)
    assert reader.damage is None and "no end mark" in reader.ending  # cut back to its last whole frame
    reader.close()


def test_a_full_disk(small_disk: Path) -> None:
    check_full(create_recording(small_disk / "log", IDENTITY))


def test_a_limit_on_file_size(tmp_path: Path) -> None:
    writer = create_recording(tmp_path / "log", IDENTITY)
    with limited_files():
        check_full(writer)


def test_a_full_disk_that_the_flushing_thread_finds_is_told_at_the_next_event(tmp_path: Path) -> None:
    writer = create_recording(tmp_path / "log", IDENTITY)
    writer.append(1, Idle(1))
    writer.flush()
    size = (tmp_path / "log").stat().st_size
    with limited_files(size):
        writer.append(2, Idle(2))
        wait_until(lambda: writer.failed, "the thread has tried")
    with pytest.raises(HostError, match="cannot be continued"):
        writer.append(3, Idle(3))
    writer.close()
    assert events_of(tmp_path / "log") == [Entry(1, Idle(1))]


def test_a_full_disk_at_the_end_is_told_by_close(tmp_path: Path) -> None:
    writer = create_recording(tmp_path / "log", IDENTITY)
    size = (tmp_path / "log").stat().st_size
    with limited_files(size), pytest.raises(HostError, match="cannot be continued"):
        writer.close()
    writer.close()
    assert events_of(tmp_path / "log") == []


def test_dev_full() -> None:
    with pytest.raises(HostError, match=r"/dev/full.*No space left on device"):
        create_recording("/dev/full", IDENTITY)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"Record: open .*: No such file or directory"):
        create_recording(tmp_path / "nowhere" / "log", IDENTITY)
    with pytest.raises(HostError, match=r"Record: open .*: Is a directory"):
        create_recording(tmp_path, IDENTITY)


def test_two_recorders_do_not_share_a_file(tmp_path: Path) -> None:
    first = create_recording(tmp_path / "log", IDENTITY)
    first.append(1, Idle(1))
    with pytest.raises(RecordingError, match="another timevm is recording into"):
        create_recording(tmp_path / "log", IDENTITY)
    first.close()
    assert events_of(tmp_path / "log") == [Entry(1, Idle(1))]
    second = create_recording(tmp_path / "log", IDENTITY)
    second.close()
    assert events_of(tmp_path / "log") == []


def test_time_does_not_go_back_and_the_end_is_the_end(tmp_path: Path) -> None:
    writer = create_recording(tmp_path / "log", IDENTITY)
    writer.append(5, Idle(1))
    with pytest.raises(InternalError, match="at instruction 4, after one at 5"):
        writer.append(4, Idle(1))
    writer.close()
    with pytest.raises(InternalError, match="behind the end"):
        writer.append(6, Idle(1))


def test_the_gate_passes_the_failure_on_before_the_event_takes_effect(tmp_path: Path) -> None:
    gate = RecordGate(create_recording(tmp_path / "log", IDENTITY), sleep=False, digest_interval=10**9)
    sink = ToySink(room=100)
    chance = random.Random(3)
    with limited_files(), pytest.raises(HostError):
        for number in range(100_000):
            gate.inject(SerialInput(0, chance.randbytes(100)))
            sink.icount = number
            while gate.deliver(number, sink):
                pass
    gate.close()
    applied = [event for _, _, event in sink.history if isinstance(event, SerialInput)]
    logged = [entry.event for entry in events_of(tmp_path / "log") if not isinstance(entry.event, Digest)]
    assert applied[: len(logged)] == logged
