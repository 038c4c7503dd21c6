"""Named snapshots of the real machine: saved and loaded anywhere, in any order, here and in a fresh machine."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.timeline.guests import record_typing
from tests.engine.timeline.test_timeline import Waiter
from tests.guests import bare
from tests.linux.harness import Outcome
from tests.peers import need
from timevm.engine.devices.pl011 import Pl011
from timevm.engine.machine import builder
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.fingerprint import fingerprint
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import ReplayMode, RunEnd, RunResult
from timevm.engine.machine.spec import MIB, Drive, MachineSpec, SnapshotInterval
from timevm.engine.replay.events import Digest, SerialInput
from timevm.engine.snapshot.named import NamedSnapshots
from timevm.engine.timeline.timeline import Timeline
from timevm.errors import UserError
from timevm.system.history import History, history_of


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """An empty image for snapshots; sound at the end in qemu-img's eyes."""
    path = tmp_path / "vm.qcow2"
    qemu_img = need("qemu-img")
    subprocess.run([qemu_img, "create", "-q", "-f", "qcow2", str(path), "1M"], check=True)
    yield path
    subprocess.run([qemu_img, "check", "-q", str(path)], check=True)


def with_image(spec: MachineSpec, path: Path) -> MachineSpec:
    return replace(spec, drives=(Drive("vm", path, "qcow2"),))


def loop(image: Path, **changes: object) -> MachineSpec:
    spec = MachineSpec(kernel=bare("arm64"), ram_bytes=16 * MIB, shift=3, sleep=False)
    return replace(with_image(spec, image), **changes)  # type: ignore[arg-type]


def build(spec: MachineSpec) -> tuple[Machine, History]:
    machine = build_machine(spec, lambda port, data: None)
    return machine, history_of(machine, spec, ReplayMode(spec.mode))


def store_of(history: History) -> NamedSnapshots:
    assert isinstance(history.snapshots, NamedSnapshots)
    return history.snapshots


def look(machine: Machine) -> tuple[int, int, Digest]:
    return machine.icount, machine.now_ns(), machine.digest()


def test_live_machines_go_back_in_any_order_and_in_another_process(image: Path) -> None:
    generator = random.Random(2)
    machine, history = build(loop(image))
    store, looks = store_of(history), {}
    for number in range(5):
        machine.run(machine.icount + generator.randint(1, 400_000))
        info = store.save(f"s{number}")
        looks[info.tag] = look(machine)
        assert (info.icount, info.vm_clock_ns) == looks[info.tag][:2]
    for tag in generator.choices(list(looks), k=12):
        machine.run(machine.icount + generator.randint(0, 300_000))
        store.load(tag)
        assert look(machine) == looks[tag]
    ids = {info.tag: info.identifier for info in store.list()}
    store.load(ids["s2"])
    assert look(machine) == looks["s2"]
    machine.run(10_000_000)
    end = look(machine)
    machine.close()
    machine, history = build(loop(image))
    for tag in ("s4", "s0", "s3"):
        store_of(history).load(tag)
        assert look(machine) == looks[tag]
    machine.run(10_000_000)
    assert look(machine) == end
    machine.close()


def test_what_did_not_change_is_shared(image: Path) -> None:
    machine, history = build(loop(image))
    store = store_of(history)
    machine.ram.bytes[4 * MIB : 12 * MIB] = 7  # as a loader might
    store.save("first")
    size = image.stat().st_size
    assert size > 8 * MIB
    for number in range(5):
        machine.run(machine.icount + 1000)
        store.save(f"s{number}")
    assert image.stat().st_size < size + 2 * MIB
    machine.close()
    machine, history = build(loop(image))
    store_of(history).load("first")
    assert (machine.ram.bytes[4 * MIB : 12 * MIB] == 7).all()
    machine.close()


def test_a_tag_is_replaced_and_a_missing_one_is_named(image: Path) -> None:
    machine, history = build(loop(image))
    store = store_of(history)
    store.save("a")
    machine.run(5)
    store.save("a")
    made_up = store.save(None).tag
    assert made_up.startswith("vm-")
    assert [(info.tag, info.icount) for info in store.list()] == [("a", 5), (made_up, 5)]
    for action in (store.load, store.delete):
        with pytest.raises(UserError, match="Snapshot 'b' does not exist in one or more devices"):
            action("b")
    store.delete("a")
    assert [info.tag for info in store.list()] == [made_up]
    listed = subprocess.run(
        [need("qemu-img"), "snapshot", "-U", "-l", str(image)], capture_output=True, text=True, check=True
    )
    assert made_up in listed.stdout and " 5\n" in listed.stdout
    machine.close()


def test_without_an_image_the_refusal_is_qemus_and_says_what_to_do(tmp_path: Path) -> None:
    _, history = build(replace(loop(tmp_path), drives=()))
    for action in (store_of(history).save, store_of(history).load, store_of(history).delete):
        with pytest.raises(UserError, match=r"^no block device can store vmstate for snapshot\nAdd an image "):
            action("a")
    assert store_of(history).list() == []


def test_a_temporary_disk_says_why_it_keeps_no_snapshots(image: Path) -> None:
    spec = replace(loop(image), drives=(Drive("vm", image, "qcow2", snapshot=True),))
    machine, history = build(spec)
    with pytest.raises(UserError, match="snapshot=on: what is written to it is gone when timevm ends") as caught:
        store_of(history).save("a")
    assert str(caught.value).endswith("then -drive file=vm.qcow2,if=none,id=vm"), "no disk of the guest forbids it"
    machine.close()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ram_bytes": 32 * MIB}, "RAM size: saved with 16 MiB, now 32 MiB"),
        ({"cpu": "max"}, "CPU model: saved with cortex-a57, now max"),
        ({"shift": 0}, "icount shift: saved with 3, now 0"),
    ],
)
def test_another_machine_is_refused_by_name(image: Path, changes: dict[str, object], named: str) -> None:
    machine, history = build(loop(image))
    machine.run(100)
    store_of(history).save("a")
    machine.close()
    machine, history = build(loop(image, **changes))
    before = look(machine)
    with pytest.raises(UserError, match=f"Snapshot 'a' is of another machine:\n  .*{named}"):
        store_of(history).load("a")
    assert look(machine) == before
    machine.close()


def test_another_build_is_refused_by_name_and_one_that_says_nothing_is_taken(
    image: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever seed and date the machine began with."""
    for tag in ("says it", "does not"):
        with monkeypatch.context() as before:
            if tag == "does not":
                before.setattr(builder, "fingerprint", lambda assembly: replace(fingerprint(assembly), layout=()))
            machine, history = build(loop(image, rtc_base=len(tag), seed=len(tag)))
            machine.run(100)
            store_of(history).save(tag)
            machine.close()
    machine, history = build(loop(image))
    store_of(history).load("says it")
    assert not caplog.records
    store_of(history).load("does not")
    assert "snapshot 'does not' does not say of what its machine was made" in caplog.text
    machine.close()
    state = Pl011.state
    monkeypatch.setattr(Pl011, "state", lambda self: state(self) | {"more": 0})
    machine, history = build(loop(image))
    before_it = look(machine)
    with pytest.raises(UserError, match="is of another machine:\n  parts: here is another device uart0"):
        store_of(history).load("says it")
    assert look(machine) == before_it
    machine.close()


def test_another_programs_snapshot_is_refused(image: Path) -> None:
    subprocess.run([need("qemu-img"), "snapshot", "-c", "disk-only", str(image)], check=True)
    machine, history = build(loop(image))
    with pytest.raises(UserError, match="does not exist"):
        store_of(history).load("disk-only")
    machine.close()


# ---- recordings


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[MachineSpec, Outcome]:
    return record_typing(tmp_path_factory.mktemp("irq") / "irq.rr")


def replaying(recording: tuple[MachineSpec, Outcome], image: Path) -> tuple[Machine, Timeline, NamedSnapshots]:
    machine, history = build(with_image(replace(recording[0], mode="play"), image))
    assert isinstance(history.time_travel, Timeline)
    return machine, history.time_travel, store_of(history)


def test_a_replay_is_saved_in_mid_debug_and_loaded_here_and_elsewhere(
    recording: tuple[MachineSpec, Outcome], image: Path
) -> None:
    """QEMU: a second load without a step between crashed; a step back right after savevm deadlocked; so did loadvm
    with a debugger; a savevm in mid-debug made the next reverse-continue fail."""
    generator, end = random.Random(4), recording[1].icount
    machine, timeline, store = replaying(recording, image)
    looks = {}
    for number in range(4):
        timeline.seek(generator.randint(1, end), Waiter())
        store.save(f"s{number}")
        looks[f"s{number}"] = look(machine)
        assert timeline.reverse_step(1, Waiter()) == RunResult(RunEnd.LIMIT, looks[f"s{number}"][0] - 1)
    store.load("s1")
    store.load("s2")
    store.load("s1")
    assert look(machine) == looks["s1"]
    timeline.reverse_step(3, Waiter())
    machine.close()
    machine, timeline, store = replaying(recording, image)
    for tag in ("s3", "s0", "s2"):
        store.load(tag)
        assert look(machine) == looks[tag]
        timeline.reverse_step(5, Waiter())
        timeline.seek(looks[tag][0], Waiter())
        assert look(machine) == looks[tag]
    timeline.seek(end, Waiter())
    assert machine.digest() == recording[1].digest
    assert timeline.seek(0, Waiter()) == RunResult(RunEnd.LIMIT, 0)
    machine.close()


def test_a_snapshot_made_while_recording_is_a_place_in_the_replay(image: Path, tmp_path: Path) -> None:
    spec = with_image(record_typing(tmp_path / "plain.rr")[0], image)
    spec = replace(spec, mode="record", rrfile=tmp_path / "run.rr", rrsnapshot="begin",
                   rrinterval=SnapshotInterval(instructions=30_000))  # fmt: skip
    machine, history = build(spec)
    looks = {}
    for number in range(6):
        history.run(machine.icount + 20_000)
        machine.inject(SerialInput(0, b"ab"))
        history.run(machine.icount + 5)
        store_of(history).save(f"s{number}")
        looks[f"s{number}"] = look(machine)
    with pytest.raises(UserError, match="cannot go back while recording"):
        store_of(history).load("s2")
    machine.inject(SerialInput(0, b"q"))
    while history.run(1 << 60).end is RunEnd.KICKED:
        pass
    end = look(machine)
    machine.finish("shutdown")
    machine.close()
    tags = [info.tag for info in store_of(history).list()]
    assert tags[0] == "begin" and sum(tag.startswith("auto-") for tag in tags) >= 3
    machine, history = build(replace(spec, mode="play", rrsnapshot="s4"))
    timeline, store = history.time_travel, store_of(history)
    assert timeline is not None and look(machine) == looks["s4"]
    assert timeline.reverse_step(1 << 40, Waiter()) == RunResult(RunEnd.LIMIT, 0)
    for tag in ("s5", "s1", "begin", "s3"):
        store.load(tag)
        assert tag == "begin" or look(machine) == looks[tag]
    history.run(1 << 60)
    assert look(machine) == end
    machine.close()


def test_snapshots_of_others_are_no_places_of_this_replay(
    recording: tuple[MachineSpec, Outcome], image: Path, tmp_path: Path
) -> None:
    live = replace(with_image(recording[0], image), mode="none", rrfile=None)
    machine, history = build(live)
    machine.run(1000)
    store_of(history).save("live")
    machine.close()
    other = record_typing(tmp_path / "other.rr", seed=9)
    machine, timeline, store = replaying(other, image)
    timeline.seek(500, Waiter())
    store.save("other")
    machine.close()
    machine, timeline, store = replaying(recording, image)
    before = look(machine)
    for tag, what in (("live", "a machine that was not recorded"), ("other", "another recording")):
        with pytest.raises(UserError, match=f"Snapshot '{tag}' is of {what}"):
            store.load(tag)
    assert look(machine) == before and store.places() == []
    machine.close()


def test_a_named_snapshot_shortens_the_first_way(
    recording: tuple[MachineSpec, Outcome], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timevm.engine.timeline.track.WORTH", 10_000)
    machine, timeline, store = replaying(recording, image)
    timeline.seek(100_000, Waiter())
    store.save("there")
    expected = look(machine)
    timeline.seek(100_500, Waiter())
    after = look(machine)
    machine.close()
    machine, timeline, store = replaying(recording, image)
    loaded: list[str] = []
    original = NamedSnapshots.load

    def load(self: NamedSnapshots, tag: str) -> None:
        loaded.append(tag)
        original(self, tag)

    monkeypatch.setattr(NamedSnapshots, "load", load)
    timeline.seek(100_500, Waiter())
    assert loaded == ["1"] and look(machine) == after
    timeline.seek(100_000, Waiter())
    assert look(machine) == expected
    machine.close()
