"""What recordings promise, with real machines: cut short, damaged, killed, out of room; one replays what is sound."""

from __future__ import annotations

import asyncio
import random
import re
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.daemon import command, irq_guest, qmp, running, status
from tests.linux.harness import Terminal, bare_guest, build
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import RunEnd
from timevm.engine.machine.ram import PAGE
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.replay import log_format, record_gate
from timevm.engine.replay.events import SerialInput
from timevm.engine.replay.gate import NEVER
from timevm.engine.replay.opening import open_recording
from timevm.errors import HostError, RecordingError

PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A whole recording of many frames, in bytes, and what its machine printed."""

    spec: MachineSpec
    data: bytes
    console: bytes
    #: offset of each frame of events, and of what is behind them
    frames: tuple[int, ...]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """The interrupt guest, typed at; frames and digests come more often than they would, so that there are many."""
    path = tmp_path_factory.mktemp("sample") / "x.rr"
    spec = bare_guest("irq", path)
    chance = random.Random(5)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(log_format, "FRAME_BYTES", 100)
        patched.setitem(record_gate.RecordGate.__init__.__kwdefaults__ or {}, "digest_interval", 20_000)
        terminal = Terminal()
        machine = build(spec, terminal)
        for _ in range(12):
            machine.run(machine.icount + chance.randint(500, 15_000))
            machine.inject(SerialInput(0, chance.randbytes(chance.randint(1, 12)).replace(b"q", b"Q")))
        machine.run(machine.icount + 20_000)
        machine.inject(SerialInput(0, b"q"))
        while machine.run(NEVER).end is not RunEnd.POWERED_OFF:
            pass
        machine.finish("shutdown")
    reader = open_recording(path)
    frames = tuple(frame.offset for frame in reader.frames())
    last = list(reader.frames())[-1]
    reader.close()
    assert len(frames) >= 8
    return Sample(spec, path.read_bytes(), bytes(terminal.console), (*frames, last.offset + last.stored))


def replay_what_is_left(spec: MachineSpec, console: bytes) -> tuple[Machine, str] | None:
    """Runs the recording to its end and checks the promises; None if its header is refused, in words."""
    terminal = Terminal()
    try:
        machine = build(replace(spec, mode="play"), terminal)
    except RecordingError as error:
        assert 1 <= len(str(error).splitlines()) <= 3
        return None
    result = machine.run(NEVER)
    assert result.end in (RunEnd.RECORDING_ENDED, RunEnd.POWERED_OFF), result
    assert console.startswith(terminal.console), "what was printed is not what was recorded"
    if result.end is RunEnd.RECORDING_ENDED:
        assert result.detail and "\n" not in result.detail
        assert machine.run(NEVER) == result, "it stays there"
        assert (
            f"at instruction {machine.icount}" in result.detail or f"to instruction {machine.icount}" in result.detail
        )
    machine.close()
    return machine, result.detail


def damaged(sample: Sample, tmp_path: Path, data: bytes) -> MachineSpec:
    path = tmp_path / "damaged.rr"
    path.write_bytes(data)
    return replace(sample.spec, rrfile=path)


def test_the_whole_recording(sample: Sample, tmp_path: Path) -> None:
    left = replay_what_is_left(damaged(sample, tmp_path, sample.data), sample.console)
    assert left is not None and left[1] == ""


def test_truncated_at_every_byte_of_the_last_frames(sample: Sample, tmp_path: Path) -> None:
    """Each length is opened; a machine runs it when it says something new, and at every sixteenth anyway."""
    ends: list[int] = []
    seen: set[tuple[int, str]] = set()
    for length in range(sample.frames[-3], len(sample.data)):
        spec = damaged(sample, tmp_path, sample.data[:length])
        reader = open_recording(spec.rrfile or "")
        ends.append(reader.end_icount)
        says = (reader.event_count, reader.ending)
        reader.close()
        if says not in seen or length % 16 == 0:
            seen.add(says)
            left = replay_what_is_left(spec, sample.console)
            assert left is not None and left[0].icount == ends[-1]
    assert ends == sorted(ends), "more of the file is more of the run"
    assert len(set(ends)) == 3 and len(seen) >= 6


def test_truncated_at_random_places(sample: Sample, tmp_path: Path) -> None:
    chance = random.Random(1)
    start = sample.frames[0]
    for length in sorted(chance.sample(range(len(sample.data)), 60)):
        left = replay_what_is_left(damaged(sample, tmp_path, sample.data[:length]), sample.console)
        assert (left is None) == (length < start)


@pytest.mark.parametrize("seed", range(3))
def test_bytes_changed_anywhere(sample: Sample, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(40):
        data = bytearray(sample.data)
        places = [chance.randrange(len(data)) for _ in range(chance.choice([1, 1, 1, 3, 20]))]
        for place in places:
            data[place] ^= 1 << chance.randrange(8) if chance.random() < 0.5 else chance.randrange(1, 256)
        left = replay_what_is_left(damaged(sample, tmp_path, bytes(data)), sample.console)
        assert (
            left is None
            or min(places) >= sample.frames[0]
            or data[: sample.frames[0]] == sample.data[: sample.frames[0]]
        )


@pytest.mark.parametrize("what", ["zeroes", "noise", "doubled", "swapped", "removed", "appended"])
def test_pieces_lost_and_found(sample: Sample, tmp_path: Path, what: str) -> None:
    """What broken disks and copies leave behind: sectors of nothing, sectors of something else, frames out of order."""
    chance = random.Random(what)
    for _ in range(8):
        data = bytearray(sample.data)
        one, other = sorted(chance.sample(range(len(sample.frames) - 1), 2))
        first, second = (data[sample.frames[n] : sample.frames[n + 1]] for n in (one, other))
        place = chance.randrange(len(data))
        match what:
            case "zeroes":
                data[place : place + 512] = bytes(len(data[place : place + 512]))
            case "noise":
                data[place : place + 512] = chance.randbytes(len(data[place : place + 512]))
            case "doubled":
                data[sample.frames[one] : sample.frames[one]] = first
            case "swapped":
                data[sample.frames[other] : sample.frames[other + 1]] = first
                data[sample.frames[one] : sample.frames[one + 1]] = second
            case "removed":
                del data[sample.frames[one] : sample.frames[one + 1]]
            case "appended":
                data += chance.randbytes(chance.randint(1, 1000))
        replay_what_is_left(damaged(sample, tmp_path, bytes(data)), sample.console)


def test_one_can_go_back_from_a_damaged_end(sample: Sample, tmp_path: Path) -> None:
    data = bytearray(sample.data)
    data[sample.frames[-4] + 40] ^= 1
    terminal = Terminal()
    machine = build(replace(damaged(sample, tmp_path, bytes(data)), mode="play"), terminal)
    machine.run(20_000)
    state, memory, printed = machine.state(), machine.ram.bytes.copy(), len(terminal.console)
    end = machine.run(NEVER)
    assert end.end is RunEnd.RECORDING_ENDED and "is damaged: it replays up to instruction" in end.detail
    digest, console = machine.digest(), bytes(terminal.console)
    changed = np.flatnonzero((machine.ram.bytes != memory).reshape(-1, PAGE).any(axis=1))
    for page in changed.tolist():
        machine.ram.pages[page] = memory[page * PAGE : (page + 1) * PAGE]
        machine.cpu.code_changed(machine.ram.base + page * PAGE, PAGE)
    machine.restore(state)
    assert machine.icount == 20_000
    del terminal.console[printed:]
    assert machine.run(NEVER) == end
    assert (machine.digest(), bytes(terminal.console)) == (digest, console)
    machine.close()


# ---- the program itself, killed and out of room


def record_command(path: Path) -> list[str]:
    return command([*irq_guest(), "-icount", f"shift=3,rr=record,rrfile={path}", "-serial", "stdio"])


def replay_spec(path: Path) -> MachineSpec:
    return replace(bare_guest("irq", path), mode="play")


class Recorder:
    """The program with its console in our hands."""

    def __init__(self, path: Path, limit: int | None = None) -> None:
        def limit_files() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        self.process = subprocess.Popen(
            record_command(path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            preexec_fn=limit_files,
        )
        self.console, self.errors = bytearray(), bytearray()
        self._threads = [
            threading.Thread(target=self._collect, args=(stream, into))
            for stream, into in ((self.process.stdout, self.console), (self.process.stderr, self.errors))
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _collect(stream: object, into: bytearray) -> None:
        while data := stream.read(4096):  # type: ignore[attr-defined]
            into += data

    def shows(self, text: bytes) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.console:
            assert self.process.poll() is None, f"it ended before {text!r}: {self.errors!r}"
            assert time.monotonic() < deadline, f"never came: {text!r}; {self.console!r}"
            time.sleep(0.005)

    def type(self, data: bytes) -> bool:
        """False if nobody listens any more."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(data)
        except BrokenPipeError:
            return False
        return True

    def end(self) -> int:
        """Wait for it; its exit code."""
        code = self.process.wait(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


@pytest.mark.parametrize("batch", range(4))
def test_kill_9_at_random_moments(tmp_path: Path, batch: int) -> None:
    for number in range(5):
        chance = random.Random(batch * 5 + number)
        path = tmp_path / f"{number}.rr"
        recorder = Recorder(path)
        try:
            if chance.random() < 0.8:
                recorder.shows(b"irq ready")
            until = time.monotonic() + chance.random() * 0.6
            while time.monotonic() < until:
                recorder.type(bytes([chance.randrange(97, 112)]))
                time.sleep(chance.random() * 0.02)
        finally:
            recorder.process.send_signal(signal.SIGKILL)
            assert recorder.end() == -signal.SIGKILL
        if not path.exists() or not path.stat().st_size:
            continue  # killed before it began
        left = replay_what_is_left(replay_spec(path), bytes(recorder.console))
        if left is not None:
            assert "it has no end mark, its recorder was killed" in left[1] or "is damaged" in left[1]


def check_out_of_room(path: Path, recorder: Recorder) -> None:
    """One clear error, then the program ends; what was recorded replays."""
    chance = random.Random(3)
    recorder.shows(b"irq ready")
    deadline = time.monotonic() + PATIENCE
    while recorder.process.poll() is None and time.monotonic() < deadline:
        recorder.type(bytes(chance.randrange(97, 112) for _ in range(200)))
        time.sleep(0.005)
    assert recorder.end() == 1
    errors = recorder.errors.decode()
    assert "Traceback" not in errors and 1 <= len(errors.splitlines()) <= 3, errors
    assert re.search(r"cannot be continued after instruction \d+ \(.*make room and record again\)", errors), errors
    assert "What was written so far can be replayed" in errors
    left = replay_what_is_left(replay_spec(path), bytes(recorder.console))
    assert left is not None and left[0].icount > 0


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    path = tmp_path / "x.rr"
    check_out_of_room(path, Recorder(path, limit=3 << 10))


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    mount = shutil.which("mount") or "mount"
    options = ["-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    if subprocess.run([mount, *options], capture_output=True, check=False, timeout=20).returncode:
        pytest.skip("only root may mount a small disk; the limit on the size of files does nearly the same")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=20)


def test_a_full_disk(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder):
        check_out_of_room(folder / "x.rr", Recorder(folder / "x.rr"))


def test_a_full_disk_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine stands before the event that could not be recorded, and stays whole."""
    monkeypatch.setattr(log_format, "FRAME_BYTES", 100)
    terminal = Terminal()
    machine = build(bare_guest("irq", tmp_path / "x.rr"), terminal)
    machine.run(10_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    chance = random.Random(4)
    try:
        with pytest.raises(HostError, match="cannot be continued after instruction"):
            while True:
                machine.inject(SerialInput(0, chance.randbytes(100).replace(b"q", b"Q")))
                machine.run(machine.icount + 5_000)
        with pytest.raises(HostError, match="cannot be continued after instruction"):
            machine.run(NEVER)
        machine.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    left = replay_what_is_left(replay_spec(tmp_path / "x.rr"), bytes(terminal.console))
    assert left is not None and 0 < left[0].icount <= machine.icount


def test_the_program_replays_a_damaged_recording_in_words(sample: Sample, tmp_path: Path) -> None:
    """Nobody listens to it, so it ends; the console so far is on standard output, one sentence on standard error."""
    data = bytearray(sample.data)
    data[sample.frames[-4] + 40] ^= 1
    path = tmp_path / "x.rr"
    path.write_bytes(data)
    arguments = [*irq_guest(), "-icount", f"shift=3,rr=replay,rrfile={path}", "-serial", "stdio"]
    done = subprocess.run(command(arguments), capture_output=True, timeout=PATIENCE, check=False)
    errors = done.stderr.decode()
    assert sample.console.startswith(done.stdout) and len(done.stdout) > 100
    assert "is damaged: it replays up to instruction" in errors and "Traceback" not in errors
    assert len(errors.splitlines()) == 1


async def test_under_a_monitor_the_program_pauses_at_the_damage_and_goes_back(sample: Sample, tmp_path: Path) -> None:
    data = bytearray(sample.data)
    data[sample.frames[-4] + 40] ^= 1
    (tmp_path / "x.rr").write_bytes(data)
    arguments = [*irq_guest(), "-icount", "shift=3,rr=replay,rrfile=x.rr", "-serial", "stdio", "-S"]
    async with (
        running([*arguments, "-qmp", "unix:qmp,server,nowait"], tmp_path) as daemon,
        qmp(daemon, tmp_path / "qmp") as client,
    ):
        with client.listener("STOP") as stops:
            await client.execute("cont")
            await asyncio.wait_for(stops.get(), PATIENCE)
            await status(client, "paused")
            ended: Any = await client.execute("query-replay")
            assert sample.console.startswith(daemon.output) and len(daemon.output) > 100
            assert f"is damaged: it replays up to instruction {ended['icount']}" in daemon.errors
            await client.execute("replay-seek", {"icount": 1000})
            await asyncio.wait_for(stops.get(), PATIENCE)
            assert (await client.execute("query-replay"))["icount"] == 1000  # type: ignore[index]
            await client.execute("cont")
            await asyncio.wait_for(stops.get(), PATIENCE)
        assert await client.execute("query-replay") == ended
        assert sample.console.startswith(daemon.output), "each byte once"
        await client.execute("quit")
        assert await daemon.ends() == 0
        assert "Traceback" not in daemon.errors
