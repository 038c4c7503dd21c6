"""Going back and forth in a replay with disks at work: every moment is the one that it was, disk included."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.timeline.guests import replay as travel_in
from tests.engine.timeline.test_look_back import recording
from tests.engine.timeline.test_timeline import ShortPace, Waiter
from tests.linux.harness import Outcome, Terminal, assert_same, build, record, replay
from tests.linux.test_disk_guest import Jitter, check_ended, guest, jitter
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.blkreplay.recorded_layer import RecordedLayer
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import RunEnd
from timevm.engine.snapshot.checkpoints import Checkpoints
from timevm.engine.snapshot.position import Position

__all__ = ["jitter"]


def contents(machine: Machine) -> list[bytes]:
    """What the disks hold, with all that was asked for."""
    machine.disks.drain()
    return [disk.layer.read(0, 1 << 20, disk.drive.writes) for disk in machine.disks.disks]


@pytest.mark.parametrize("snapshot", [True, False], ids=["overlay", "image"])
def test_seeks_and_reverse_steps_among_requests_under_way(tmp_path: Path, snapshot: bool) -> None:
    spec = guest(tmp_path, requests=60, snapshot=snapshot)
    recorded = record(spec)
    check_ended(recorded)
    travel = travel_in(spec, pace=ShortPace(20_000))
    machine, timeline = travel.machine, travel.timeline
    chance = random.Random(snapshot)
    places = sorted(chance.sample(range(1, recorded.icount), 40))
    seen = {}
    for icount in places:
        machine.run(icount)
        seen[icount] = machine.digest(), machine.now_ns(), contents(machine)
    in_flight = 0
    for _ in range(120):
        icount = chance.choice(places)
        timeline.seek(icount, Waiter())
        assert machine.icount == icount
        state = machine.state()["drives"]
        in_flight += sum(len(drive["in_flight"]) for drive in state.values())
        assert (machine.digest(), machine.now_ns(), contents(machine)) == seen[icount]
        timeline.reverse_step(chance.randint(1, 3), Waiter())
    assert in_flight > 100, "these places show nothing"
    kept = [disk.layer.bytes_kept for disk in machine.disks.disks]  # type: ignore[attr-defined]  # a journal
    timeline.seek(places[0], Waiter())
    assert timeline.run(1 << 60).end in (RunEnd.POWERED_OFF, RunEnd.RECORDING_ENDED)
    assert (machine.icount, machine.digest()) == (recorded.icount, recorded.digest)
    timeline.seek(places[0], Waiter())
    timeline.run(1 << 60)
    assert kept <= [disk.layer.bytes_kept for disk in machine.disks.disks]  # type: ignore[attr-defined]  # a journal
    machine.close()


@pytest.mark.parametrize("sleep", [False, True], ids=["jumps", "sleeps"])
def test_a_live_machine_goes_back_with_its_disks_and_the_requests_under_way(
    tmp_path: Path, jitter: Callable[[int, float], Jitter], sleep: bool
) -> None:
    """What ``loadvm`` does: RAM, devices and images become what they were, and what was asked for is completed."""
    spec = replace(guest(tmp_path, requests=60, snapshot=False), mode="none", rrfile=None, sleep=sleep)
    terminal = Terminal()
    machine = build(spec, terminal, jitter(1, 0.005))
    checkpoints = Checkpoints(machine, 64 << 20)
    chance = random.Random(sleep)
    in_flight = 0
    for number in range(8):
        machine.run(machine.icount + chance.randrange(20_000, 200_000))
        saved = machine.icount
        machine.disks.drain()
        for disk in machine.disks.disks:
            assert isinstance(disk.image.node, Qcow2Image)
            disk.image.node.save_snapshot(f"vm{number}", icount=saved)
        checkpoint = checkpoints.take(Position(saved, settled=machine.settled))
        held = contents(machine)
        in_flight += sum(len(disk.drive.state()["in_flight"]) for disk in machine.disks.disks)
        machine.run(saved + chance.randrange(50_000, 300_000))
        machine.disks.drain()
        for disk in machine.disks.disks:
            disk.load_snapshot(f"vm{number}", disk.drive.writes)
        checkpoints.restore(checkpoint)
        assert machine.icount == saved and contents(machine) == held
    assert in_flight > 4, "these moments show nothing"
    assert machine.run(1 << 60).end is RunEnd.POWERED_OFF
    machine.close()
    assert b"FAILED" not in terminal.console and b"errors" not in terminal.console
    assert terminal.console.count(b"bye timing=") == 1


def test_a_recording_that_is_put_to_where_it_stands_goes_on(
    tmp_path: Path, jitter: Callable[[int, float], Jitter]
) -> None:
    """``loadvm`` of the present: nothing that was under way is completed twice or never."""
    spec = guest(tmp_path, requests=60)
    terminal = Terminal()
    machine = build(spec, terminal, jitter(6, 0.003))
    chance = random.Random(6)
    for _ in range(12):
        machine.run(machine.icount + chance.randrange(10_000, 60_000))
        machine.disks.drain()
        machine.restore(machine.state())
    assert machine.run(1 << 60).end is RunEnd.POWERED_OFF
    outcome = Outcome(bytes(terminal.console), machine.icount, machine.now_ns(), machine.digest())
    machine.finish("shutdown")
    machine.close()
    assert_same(outcome, replay(spec))


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "given up"])
@pytest.mark.parametrize("snapshot", [True, False], ids=["overlay", "image"])
def test_looking_back_among_requests_under_way(
    tmp_path: Path, snapshot: bool, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where too much was written to keep, the disks' past is run for again."""
    if not kept:
        monkeypatch.setitem(RecordedLayer.__init__.__kwdefaults__ or {}, "most", 30_000)
    spec = guest(tmp_path, requests=60, snapshot=snapshot)
    recorded = recording(spec, pace=3_000)
    machine, timeline = recorded.machine, recorded.timeline
    while sum(disk.drive.writes for disk in machine.disks.disks) < 24:
        assert timeline.run(machine.icount + 10_000).end in (RunEnd.LIMIT, RunEnd.KICKED)
        recorded.track.remember()
    taken = len(recorded.checkpoints)
    assert taken > 4
    here = machine.icount, machine.digest(), machine.now_ns(), contents(machine)
    stands = recorded.turn.look_back()
    if kept:
        assert stands == here[0] and len(recorded.checkpoints) == taken
        assert (machine.icount, machine.digest(), machine.now_ns(), contents(machine)) == here
    else:
        assert stands == 0 and len(recorded.checkpoints) == 1
        timeline.seek(here[0], Waiter())
    assert contents(machine) == here[3]
    chance = random.Random(snapshot)
    places = sorted(chance.sample(range(1, here[0]), 30))
    seen = {}
    for icount in chance.sample(places, len(places)):
        timeline.seek(icount, Waiter())
        seen[icount] = machine.digest(), machine.now_ns(), contents(machine)
    machine.close()
    ordinary = build(replace(spec, mode="play"), Terminal())
    for icount in places:
        ordinary.run(icount)
        assert (ordinary.digest(), ordinary.now_ns(), contents(ordinary)) == seen[icount]
    ordinary.close()
