"""Named snapshots while disks are at work: disk and RAM belong together, live, recording and replaying."""

from __future__ import annotations

import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.timeline.test_timeline import Waiter
from tests.linux.harness import Terminal, build, finish, steps_of
from tests.linux.test_disk_guest import check_ended, guest
from tests.linux.test_disk_time_travel import contents
from tests.peers import need
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import ReplayMode, RunEnd
from timevm.engine.machine.spec import Drive, MachineSpec
from timevm.engine.replay.gate import NEVER
from timevm.engine.snapshot.named import NamedSnapshots
from timevm.errors import UserError
from timevm.system.history import history_of


def check_images(folder: Path) -> None:
    for image in sorted(folder.glob("*.qcow2")):
        subprocess.run([need("qemu-img"), "check", "-q", str(image)], check=True, timeout=60)


def random_places(generator: random.Random, count: int) -> list[int]:
    return sorted(generator.randrange(1_000, 400_000) for _ in range(count))


def run_to(machine: Machine, icount: int) -> None:
    while machine.run(icount).end is RunEnd.KICKED:
        pass


@pytest.mark.parametrize("seed", range(3))
def test_a_live_machine_goes_on_from_each(tmp_path: Path, seed: int) -> None:
    """Every snapshot brings disk and RAM back together, and the guest comes from there to its end."""
    spec = replace(guest(tmp_path, requests=60, snapshot=False), mode="none", rrfile=None)
    generator = random.Random(seed)
    terminal = Terminal()
    machine = build(spec, terminal)
    store, looks = NamedSnapshots(machine), {}
    for number, icount in enumerate(random_places(generator, 5)):
        run_to(machine, icount)
        store.save(f"s{number}")
        looks[f"s{number}"] = (machine.digest(), contents(machine), bytes(terminal.console))
    for tag in generator.sample(sorted(looks), 5):
        store.load(tag)
        digest, disks, console = looks[tag]
        assert (machine.digest(), contents(machine)) == (digest, disks)
        terminal.console[:] = console
        while (result := machine.run(NEVER)).end is RunEnd.KICKED:
            pass
        assert result.end is RunEnd.POWERED_OFF
        assert terminal.console.count(b"requests=") == 2 and b"errors" not in terminal.console, terminal.console
    machine.close()
    check_images(tmp_path)


@pytest.mark.parametrize("seed", range(2))
def test_replays_from_each_agree_with_the_replay_from_reset(tmp_path: Path, seed: int) -> None:
    """Saved while recording and while replaying; loaded in a fresh machine; all of them come to the recorded end."""
    spec = guest(tmp_path, requests=60, snapshot=False)
    generator = random.Random(seed)
    terminal = Terminal()
    machine = build(spec, terminal)
    store, looks = NamedSnapshots(machine), {}
    for number, icount in enumerate(random_places(generator, 3)):
        run_to(machine, icount)
        store.save(f"recorded{number}")
        looks[f"recorded{number}"] = (machine.icount, machine.digest(), contents(machine))
    recorded = finish(machine, terminal, steps_of(50_000_000), lambda machine: None)
    check_ended(recorded)
    machine.close()
    machine = replaying(spec)
    store = NamedSnapshots(machine)
    for number, icount in enumerate(random_places(generator, 3)):
        run_to(machine, icount)
        store.save(f"replayed{number}")
        looks[f"replayed{number}"] = (machine.icount, machine.digest(), contents(machine))
    machine.close()
    for tag in generator.sample(sorted(looks), 6):
        machine = replaying(spec)
        history = history_of(machine, replace(spec, mode="play"), ReplayMode.PLAY)
        assert history.snapshots is not None and history.time_travel is not None
        history.snapshots.load(tag)
        assert (machine.icount, machine.digest(), contents(machine)) == looks[tag]
        other = generator.choice(sorted(looks))
        history.snapshots.load(other)
        assert (machine.icount, machine.digest(), contents(machine)) == looks[other]
        history.time_travel.reverse_step(3, Waiter())
        history.time_travel.seek(looks[other][0], Waiter())
        assert (machine.digest(), contents(machine)) == looks[other][1:]
        history.time_travel.seek(recorded.icount, Waiter())
        assert machine.digest() == recorded.digest
        machine.close()
    check_images(tmp_path)


def replaying(spec: MachineSpec) -> Machine:
    return build(replace(spec, mode="play"), Terminal())


def test_the_images_of_a_replay_stay_as_they_are(tmp_path: Path) -> None:
    spec = guest(tmp_path, count=1, requests=40, snapshot=False)
    machine = build(spec, terminal := Terminal())
    recorded = finish(machine, terminal, steps_of(50_000_000), lambda machine: None)
    machine.close()
    before = subprocess.run(
        [need("qemu-img"), "convert", "-O", "raw", str(tmp_path / "0.qcow2"), str(tmp_path / "raw")]
    )
    assert before.returncode == 0
    data = (tmp_path / "raw").read_bytes()
    machine = replaying(spec)
    store = NamedSnapshots(machine)
    for number in range(4):
        run_to(machine, recorded.icount * (number + 1) // 5)
        store.save(f"s{number}")
    store.delete("s1")
    store.load("s0")
    machine.close()
    subprocess.run(
        [need("qemu-img"), "convert", "-O", "raw", str(tmp_path / "0.qcow2"), str(tmp_path / "raw")], check=True
    )
    assert (tmp_path / "raw").read_bytes() == data
    check_images(tmp_path)


def test_a_disk_that_keeps_none_forbids_all(tmp_path: Path) -> None:
    spec = guest(tmp_path, count=1, requests=10, snapshot=True)
    subprocess.run([need("qemu-img"), "create", "-q", "-f", "qcow2", str(tmp_path / "vm.qcow2"), "1M"], check=True)
    spec = replace(spec, mode="none", rrfile=None, drives=(*spec.drives, Drive("vm", tmp_path / "vm.qcow2", "qcow2")))
    machine = build(spec, Terminal())
    with pytest.raises(UserError, match=r"is writable but does not support snapshots: .*snapshot=on"):
        NamedSnapshots(machine).save("a")
    assert NamedSnapshots(machine).list() == []
    machine.close()
