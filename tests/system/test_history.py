"""Recordings that may be looked back at: their named snapshots, and that nothing of it is in the recording."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.timeline.test_timeline import Waiter
from tests.guests import bare
from tests.linux.harness import Terminal, bare_guest
from tests.linux.harness import build as build_guest
from tests.peers import need
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import ReplayMode, RunEnd
from timevm.engine.machine.spec import MIB, Drive, MachineSpec, SnapshotInterval
from timevm.engine.replay.codec import Entry
from timevm.engine.replay.events import SerialInput
from timevm.engine.replay.opening import open_recording
from timevm.engine.timeline import pace
from timevm.system.history import History, history_of


@pytest.fixture
def spec(tmp_path: Path) -> Iterator[MachineSpec]:
    """The loop guest, to be recorded, with an image for snapshots that is sound in the end."""
    image = tmp_path / "vm.qcow2"
    subprocess.run([need("qemu-img"), "create", "-q", "-f", "qcow2", str(image), "1M"], check=True)
    yield MachineSpec(
        kernel=bare("arm64"),
        ram_bytes=16 * MIB,
        shift=3,
        sleep=False,
        mode="record",
        rrfile=tmp_path / "x.rr",
        drives=(Drive("vm", image, "qcow2"),),
    )
    subprocess.run([need("qemu-img"), "check", "-q", str(image)], check=True)


def recorded(spec: MachineSpec) -> tuple[Machine, History]:
    machine = build_machine(spec, lambda port, data: None)
    return machine, history_of(machine, spec, ReplayMode.RECORD, looks_back=True)


def tags(history: History) -> list[str]:
    assert history.snapshots is not None
    return [info.tag for info in history.snapshots.list()]


def test_snapshots_of_the_recording_are_places_of_its_replay(spec: MachineSpec) -> None:
    machine, history = recorded(replace(spec, rrsnapshot="begin", rrinterval=SnapshotInterval(instructions=300_000)))
    assert history.look_back is not None and history.time_travel is not None and history.snapshots is not None
    history.run(1_000_000)
    history.snapshots.save("mine")
    here = machine.digest()
    history.run(1_200_000)
    before = tags(history)
    assert before[0] == "begin" and "mine" in before and len(before) == 5
    history.look_back.look_back()
    history.snapshots.load("mine")
    assert (machine.icount, machine.digest()) == (1_000_000, here)
    history.snapshots.load("begin")
    assert machine.icount == 0
    assert history.run(1 << 60).end is RunEnd.RECORDING_ENDED
    assert tags(history) == before, "a replay makes none by itself"
    history.snapshots.save("of the replay")
    history.time_travel.seek(1_000_000, Waiter())
    assert machine.digest() == here
    machine.close()


def test_places_of_a_future_that_never_was_are_forgotten(spec: MachineSpec) -> None:
    """A snapshot is loaded while recording, where nothing had been recorded since."""
    machine, history = recorded(spec)
    assert history.look_back is not None and history.time_travel is not None
    assert history.snapshots is not None and history.checkpoints is not None
    history.run(200_000)
    history.snapshots.save("a")
    history.run(600_000)
    history.snapshots.save("b")
    history.snapshots.load("a")
    history.run(500_000)
    here = machine.digest()
    assert history.look_back.look_back() == 0, "nothing but the start is remembered"
    assert len(history.checkpoints) == 1
    history.time_travel.seek(500_000, Waiter())
    assert machine.digest() == here
    machine.close()


def events_of(path: Path) -> list[Entry]:
    reader = open_recording(path)
    entries = list(reader.entries())
    reader.close()
    return entries


def test_checkpoints_leave_no_trace_in_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes are typed at the same instructions, with checkpoints all the time and without any."""
    monkeypatch.setattr("timevm.system.history.RECORDING_SLICE", 1e-6)
    monkeypatch.setattr(pace, "LEAST", 1)
    monkeypatch.setattr(pace, "MOST", 700)
    found = []
    for name, looks_back in (("plain", False), ("kept", True)):
        spec = replace(bare_guest("irq", tmp_path / f"{name}.rr"), seed=3, rtc_base=0)
        machine = build_guest(spec, Terminal())
        history = history_of(machine, spec, ReplayMode.RECORD, looks_back=looks_back)
        for number in range(1, 9):
            while history.run(number * 5_000).end is RunEnd.KICKED:
                pass
            machine.inject(SerialInput(0, b"a"))
        while history.run(45_000).end is RunEnd.KICKED:
            pass
        assert history.checkpoints is None or len(history.checkpoints) > 3
        machine.finish("quit")
        machine.close()
        found.append(events_of(tmp_path / f"{name}.rr"))
    assert found[0] == found[1] and len(found[0]) > 10


def test_a_replay_that_nobody_can_turn_keeps_nothing_of_its_past(spec: MachineSpec) -> None:
    spec = replace(spec, rrsnapshot="begin")
    machine, history = recorded(spec)
    end = history.run(1_000_000).icount
    here = machine.digest()
    machine.finish("quit")
    machine.close()
    play = replace(spec, mode="play")
    for looks_back in (False, True):
        machine = build_machine(play, lambda port, data: None)
        history = history_of(machine, play, ReplayMode.PLAY, looks_back=looks_back)
        assert (history.checkpoints is None) == (history.time_travel is None) == (not looks_back)
        assert tags(history) == ["begin"]
        assert history.run(end).icount == end and machine.digest() == here
        machine.close()
