"""Back and forth in Debian's boot: every moment is the one that a single pass comes by, and is there at once."""

from __future__ import annotations

import random
import statistics
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.timeline.guests import Replay, replay
from tests.engine.timeline.test_timeline import Waiter
from tests.linux.harness import Outcome, Terminal, build, linux, record
from tests.linux.test_pc_debian import linux_pc
from tests.peers import need
from timevm.engine.cpu.base import WatchKind, Watchpoint
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import ReplayMode, RunEnd, RunResult, Stops
from timevm.engine.machine.ram import PAGE
from timevm.engine.machine.spec import Drive, MachineSpec
from timevm.engine.replay.events import Digest
from timevm.engine.snapshot.named import NamedSnapshots
from timevm.system.history import history_of

pytestmark = [pytest.mark.linux, pytest.mark.timeout(900)]

Look = tuple[Digest, int, int]


@pytest.fixture(scope="module", params=["arm64", "amd64"])
def boot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[MachineSpec, Outcome]:
    path = tmp_path_factory.mktemp("boot") / "boot.rr"
    spec = linux("basic,off", path, sleep=False) if request.param == "arm64" else linux_pc("basic,off", path)
    return spec, record(replace(spec, sleep=False))


def pc_name(spec: MachineSpec) -> str:
    return "pc" if spec.architecture == "aarch64" else "rip"


def look(machine: Machine, spec: MachineSpec) -> Look:
    return machine.digest(), machine.now_ns(), machine.read_register(pc_name(spec))


def one_pass(spec: MachineSpec, icounts: list[int]) -> dict[int, Look]:
    """What these moments look like when one only goes forward."""
    machine = build(replace(spec, mode="play"), Terminal())
    found = {}
    for icount in sorted(icounts):
        while machine.run(icount).end is RunEnd.KICKED:
            pass
        found[icount] = look(machine, spec)
    machine.close()
    return found


def test_seeks_and_steps_anywhere(boot: tuple[MachineSpec, Outcome]) -> None:
    spec, outcome = boot
    generator = random.Random(11)
    places = [generator.randrange(outcome.icount) for _ in range(12)]
    expected = one_pass(spec, [place - back for place in places for back in (0, 1, 2, 3, 1500)])
    travel = replay(spec, budget=None)
    for place in [*places, *reversed(places)]:
        assert travel.timeline.seek(place, Waiter()) == RunResult(RunEnd.LIMIT, place)
        assert look(travel.machine, spec) == expected[place]
        for back in (1, 2, 3):
            travel.timeline.reverse_step(1, Waiter())
            assert look(travel.machine, spec) == expected[place - back]
        travel.timeline.reverse_step(1497, Waiter())
        assert look(travel.machine, spec) == expected[place - 1500]
        travel.timeline.run(place)
        assert look(travel.machine, spec) == expected[place]
    travel.timeline.seek(outcome.icount, Waiter())
    assert travel.machine.digest() == outcome.digest
    travel.timeline.reverse_step(1, Waiter())
    travel.machine.close()


def hot_places(travel: Replay, spec: MachineSpec, icount: int) -> list[int]:
    """Program counters that come by often behind ``icount``."""
    travel.timeline.seek(icount, Waiter())
    seen: dict[int, int] = {}
    for _ in range(200):
        travel.timeline.run(travel.machine.icount + 997)
        pc = travel.machine.read_register(pc_name(spec))
        seen[pc] = seen.get(pc, 0) + 1
    return sorted(seen, key=lambda pc: (-seen[pc], pc))[:2]


def test_reverse_continue_meets_what_a_forward_pass_met(boot: tuple[MachineSpec, Outcome]) -> None:
    spec, outcome = boot
    travel = replay(spec, budget=None)
    machine, timeline = travel.machine, travel.timeline
    middle = outcome.icount * 9 // 10
    timeline.seek(middle, Waiter())
    stack = machine.read_register("sp" if spec.architecture == "aarch64" else "rsp")
    for stops in (
        Stops(frozenset(hot_places(travel, spec, middle))),
        Stops(watchpoints=frozenset({Watchpoint(stack - 64, 128, WatchKind.WRITE)})),
    ):
        timeline.seek(middle, Waiter())
        machine.set_stops(stops)
        end = middle + 3_000_000
        passed = []
        while machine.icount < end:
            result, some, _ = machine.pass_by(min(end, machine.icount + 100_000))
            assert result.end in (RunEnd.LIMIT, RunEnd.KICKED)
            passed += some
        assert passed, "these stops show nothing"
        for stop in reversed(passed[-12:]):
            result = timeline.reverse_continue(stops, Waiter())
            assert (result.end, result.icount) == (RunEnd.DEBUG, stop.icount)
            assert machine.read_register(pc_name(spec)) == stop.pc
    machine.close()


def test_named_snapshots_at_random_moments(boot: tuple[MachineSpec, Outcome], tmp_path: Path) -> None:
    spec, outcome = boot
    image = tmp_path / "vm.qcow2"
    subprocess.run([need("qemu-img"), "create", "-q", "-f", "qcow2", str(image), "1M"], check=True)
    spec = replace(spec, drives=(Drive("vm", image, "qcow2"),))
    generator = random.Random(7)
    travel = replay(spec, budget=None)
    store, looks = NamedSnapshots(travel.machine, travel.checkpoints), {}
    for number in range(4):
        travel.timeline.seek(generator.randrange(outcome.icount), Waiter())
        store.save(f"s{number}")
        looks[f"s{number}"] = look(travel.machine, spec)
    travel.machine.close()
    travel = replay(spec, budget=None)
    store = NamedSnapshots(travel.machine, travel.checkpoints)
    for tag in generator.sample(sorted(looks), 4):
        store.load(tag)
        assert look(travel.machine, spec) == looks[tag]
        travel.timeline.reverse_step(1, Waiter())
    store.load("s2")
    travel.timeline.run(1 << 60)
    assert travel.machine.digest() == outcome.digest
    travel.machine.close()
    subprocess.run([need("qemu-img"), "check", "-q", str(image)], check=True)


def test_a_step_back_takes_milliseconds(boot: tuple[MachineSpec, Outcome]) -> None:
    """Of the CPU thread's own time, so that a busy host does not matter; the promise is 10 ms, and 50 for the worst."""
    spec, outcome = boot
    travel = replay(spec, budget=None)
    travel.timeline.run(outcome.icount * 9 // 10)

    def step() -> float:
        begin = time.thread_time()
        travel.timeline.reverse_step(1, Waiter())
        return (time.thread_time() - begin) * 1000

    generator = random.Random(3)
    for _ in range(5):
        first, *others = [step() for _ in range(200)]
        assert first <= 200 and statistics.median(others) <= 10 and max(others) <= 100
        travel.timeline.seek(generator.randrange(outcome.icount), Waiter())
    travel.machine.close()


def test_the_last_write_is_found_without_running_what_did_not_touch_the_page(boot: tuple[MachineSpec, Outcome]) -> None:
    """Memory that is written in early boot, or all the time; from the end of the recording."""
    spec = boot[0]
    travel = replay(spec, budget=None)
    machine, timeline = travel.machine, travel.timeline
    before = machine.ram.read(machine.ram.base, machine.ram.size)
    timeline.run(1 << 60)
    after = machine.ram.read(machine.ram.base, machine.ram.size)
    generator = random.Random(5)
    changed = [at for at in range(0, machine.ram.size, PAGE) if before[at : at + PAGE] != after[at : at + PAGE]]
    places = []
    for page in generator.sample(changed, 16):
        at = next(at for at in range(page, page + PAGE, 8) if before[at : at + 8] != after[at : at + 8])
        places.append(machine.ram.base + at)
    watched = {place: Watchpoint(place, 8, WatchKind.WRITE, physical=True) for place in places}
    last: dict[int, int] = {}
    straight = build(replace(spec, mode="play"), Terminal())
    straight.set_stops(Stops(watchpoints=frozenset(watched.values())))
    while (passage := straight.pass_by(straight.icount + 200_000))[0].end in (RunEnd.LIMIT, RunEnd.KICKED):
        for stop in passage[1]:
            assert stop.address is not None
            last[stop.address & ~7] = stop.icount
    straight.close()
    assert len(last) > 8
    costs = []
    for place, icount in last.items():
        begin = time.thread_time()
        found = timeline.find_last(Stops(watchpoints=frozenset({watched[place]})), Waiter())
        costs.append(time.thread_time() - begin)
        assert (found.end, found.icount) == (RunEnd.DEBUG, icount)
    machine.close()
    if machine.dirty.sees_every_write:
        assert statistics.median(costs) < 1.0, costs


def test_a_recording_is_looked_back_at(boot: tuple[MachineSpec, Outcome], tmp_path: Path) -> None:
    spec = replace(boot[0], mode="record", rrfile=tmp_path / "again.rr", sleep=False)
    machine = build(spec, Terminal())
    history = history_of(machine, spec, ReplayMode.RECORD, looks_back=True)
    generator = random.Random(13)
    end = generator.randrange(boot[1].icount // 2, boot[1].icount * 9 // 10)
    while history.run(end).end is RunEnd.KICKED:
        pass
    assert history.look_back is not None and history.time_travel is not None and history.checkpoints is not None
    assert len(history.checkpoints) > 3
    here = look(machine, spec)
    assert history.look_back.look_back() == end and look(machine, spec) == here
    begin = time.thread_time()
    history.time_travel.reverse_step(1, Waiter())
    assert time.thread_time() - begin < 2.0
    places = [end, end - 1, *(generator.randrange(end) for _ in range(5))]
    seen = {}
    for place in generator.sample(places, len(places)):
        history.time_travel.seek(place, Waiter())
        seen[place] = look(machine, spec)
    machine.close()
    assert seen == one_pass(spec, places) and seen[end] == here
