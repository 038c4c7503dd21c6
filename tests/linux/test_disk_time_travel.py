"""Going back and forth in a replay with disks at work: every moment is the one that it was, disk included."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.engine.timeline.guests import replay
from tests.engine.timeline.test_timeline import ShortPace, Waiter
from tests.linux.harness import record
from tests.linux.test_disk_guest import check_ended, guest
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import RunEnd


def contents(machine: Machine) -> list[bytes]:
    """What the disks hold, with all that was asked for."""
    machine.disks.drain()
    return [disk.layer.read(0, 1 << 20, disk.drive.writes) for disk in machine.disks.disks]


@pytest.mark.parametrize("snapshot", [True, False], ids=["overlay", "image"])
def test_seeks_and_reverse_steps_among_requests_under_way(tmp_path: Path, snapshot: bool) -> None:
    spec = guest(tmp_path, requests=60, snapshot=snapshot)
    recorded = record(spec)
    check_ended(recorded)
    travel = replay(spec, pace=ShortPace(20_000))
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
