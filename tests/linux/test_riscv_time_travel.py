"""Debian's riscv64 boot: stops around what is delicate change nothing, and every moment can be gone back to."""

from __future__ import annotations

import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.timeline import guests
from tests.engine.timeline.test_timeline import Waiter
from tests.linux.harness import Outcome, Terminal, assert_same, build, record, replay
from tests.linux.test_debian import random_limits
from tests.linux.test_riscv_debian import linux_riscv
from tests.peers import need
from timevm.engine.cpu.riscv64 import Riscv64Cpu
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import ReplayMode, RunEnd, RunResult, Stops
from timevm.engine.machine.spec import Drive, MachineSpec
from timevm.engine.replay.events import Digest
from timevm.engine.replay.gate import NEVER
from timevm.engine.snapshot.named import NamedSnapshots
from timevm.system.history import history_of

pytestmark = [pytest.mark.linux, pytest.mark.timeout(1200)]

Look = tuple[Digest, int, int]


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> tuple[MachineSpec, Outcome]:
    """A recorded boot to power-off, shared by the tests of this file."""
    spec = linux_riscv("basic,off", tmp_path_factory.mktemp("riscv") / "boot.rr", shift=3, sleep=False)
    return spec, record(spec)


def test_flushes_of_translated_code(boot: tuple[MachineSpec, Outcome]) -> None:
    spec, recorded = boot

    def flush(machine: Machine) -> None:
        cpu = machine.cpu
        assert isinstance(cpu, Riscv64Cpu)
        cpu.flush_translations()

    assert_same(recorded, replay(spec, random_limits(5, 20_000_000, 60_000_000), flush))


def trap_entries(spec: MachineSpec, begin: int, most: int) -> list[int]:
    """Moments at which the kernel's trap handler began, from ``begin`` on: interrupts, page faults, calls."""
    machine = build(replace(spec, mode="play"), Terminal())
    while machine.run(begin).end is RunEnd.KICKED:
        pass
    machine.set_stops(Stops(breakpoints=frozenset({machine.read_register("stvec")})))
    found: list[int] = []
    while len(found) < most and (result := machine.run(NEVER)).end is RunEnd.DEBUG:
        found.append(result.icount)
    machine.close()
    return found


def test_stops_around_traps(boot: tuple[MachineSpec, Outcome]) -> None:
    spec, recorded = boot
    entries = trap_entries(spec, recorded.icount // 20, 20_000)
    assert len(entries) > 1000
    moments = {*entries[:100], *entries[:: max(1, len(entries) // 300)]}
    assert_same(recorded, replay(spec, sorted({moment + distance for moment in moments for distance in range(-2, 3)})))


def look(machine: Machine) -> Look:
    return machine.digest(), machine.now_ns(), machine.cpu.pc


def test_seeks_and_steps_back_anywhere(boot: tuple[MachineSpec, Outcome]) -> None:
    """Each moment is the one that a single pass comes by."""
    spec, outcome = boot
    generator = random.Random(11)
    places = [generator.randrange(outcome.icount) for _ in range(6)]
    machine = build(replace(spec, mode="play"), Terminal())
    expected = {}
    for icount in sorted({place - back for place in places for back in (0, 1, 2, 1500)}):
        while machine.run(icount).end is RunEnd.KICKED:
            pass
        expected[icount] = look(machine)
    machine.close()
    travel = guests.replay(spec, budget=None)
    for place in [*places, *reversed(places)]:
        assert travel.timeline.seek(place, Waiter()) == RunResult(RunEnd.LIMIT, place)
        assert look(travel.machine) == expected[place]
        for back in (1, 2):
            travel.timeline.reverse_step(1, Waiter())
            assert look(travel.machine) == expected[place - back]
        travel.timeline.reverse_step(1498, Waiter())
        assert look(travel.machine) == expected[place - 1500]
    travel.timeline.seek(outcome.icount, Waiter())
    assert travel.machine.digest() == outcome.digest
    travel.machine.close()


def test_a_replay_goes_on_after_loading_a_snapshot(tmp_path: Path) -> None:
    """QEMU 7.2's sticks after it has loaded the one that was made at the start (``rrsnapshot=init``)."""
    image = tmp_path / "snapshots.qcow2"
    subprocess.run([need("qemu-img"), "create", "-q", "-f", "qcow2", str(image), "1M"], check=True, timeout=60)
    spec = linux_riscv("off", tmp_path / "boot.rr", shift=3, sleep=False)
    spec = replace(spec, drives=(Drive("vm", image, "qcow2"),), rrsnapshot="init")
    terminal = Terminal()
    machine = build(spec, terminal)
    history = history_of(machine, spec, ReplayMode.RECORD)
    while history.run(NEVER).end is RunEnd.KICKED:
        pass
    recorded, recorded_length = (bytes(terminal.console), look(machine)), machine.icount
    assert b"TIMEVM-GUEST off" in recorded[0]
    machine.finish("shutdown")
    machine.close()
    terminal = Terminal()
    machine = build(replace(spec, mode="play"), terminal)
    history = history_of(machine, replace(spec, mode="play"), ReplayMode.PLAY)
    assert isinstance(history.snapshots, NamedSnapshots)
    while history.run(recorded_length // 2).end is RunEnd.KICKED:
        pass
    history.snapshots.load("init")
    assert machine.icount == 0
    terminal.console.clear()
    while history.run(NEVER).end is RunEnd.KICKED:
        pass
    assert (bytes(terminal.console), look(machine)) == recorded
    machine.close()
