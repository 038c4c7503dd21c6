"""What a machine is made of is told from the machine itself: whatever is changed in it, its part is another one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engine.machine.pc_guests import kernel
from tests.guests import bare
from timevm.engine.clock.virtual_clock import VirtualClock
from timevm.engine.cpu.aarch64 import Aarch64Cpu
from timevm.engine.devices.pl011 import Pl011
from timevm.engine.devices.virtio_rng import VirtioRng
from timevm.engine.machine.boards import pc, pc_firmware, virt
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.fingerprint import Build, fingerprint, layout_of
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.spec import MIB, DeviceOption, MachineSpec
from timevm.engine.replay import codec
from timevm.engine.replay.build import build_differences
from timevm.engine.replay.events import Idle
from timevm.errors import RecordingError

RNG = DeviceOption("virtio-rng-device")
VIRT = MachineSpec(kernel=bare("irq"), ram_bytes=16 * MIB, shift=3, seed=1, rtc_base=0, sleep=False, devices=(RNG,))


def quiet(port: int, data: bytes) -> None:
    """Nobody listens to this guest."""


def built(spec: MachineSpec) -> Machine:
    machine = build_machine(spec, quiet)
    machine.close()
    return machine


@pytest.fixture
def pc_spec(tmp_path: Path) -> MachineSpec:
    guest = kernel("call off", tmp_path / "guest")
    return replace(VIRT, architecture="x86_64", machine="pc", cpu="qemu64", kernel=guest, devices=())


# -- what is the same


def test_two_machines_of_one_make() -> None:
    one, other = built(VIRT), built(VIRT)
    assert one.identity.build == other.identity.build and one.layout == other.layout
    names = [name for name, _ in one.identity.build]
    assert names[:8] == [
        *("memory map", "processor", "emulator", "timers"),
        *("device gicv2", "device uart0", "device rtc", "device gpio"),
    ]
    assert "device tree" in names and "event SERIAL_INPUT" in names


def test_a_state_means_the_same_whenever_and_however_its_machine_began() -> None:
    """Date and seed are in registers and in the device tree, where a replay must find them again."""
    one, other = built(VIRT), built(replace(VIRT, seed=2, rtc_base=1_000_000))
    assert one.layout == other.layout
    assert build_differences(one.identity.build, other.identity.build) == "another device rtc and device tree"


def test_every_process_finds_the_same() -> None:
    program = (
        "from tests.engine.machine.test_fingerprint import VIRT, built\n"
        "machine = built(VIRT)\n"
        "print(machine.identity.build, machine.layout)"
    )
    here = built(VIRT)
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == f"{here.identity.build} {here.layout}\n", done.stderr


def test_it_costs_next_to_nothing() -> None:
    """Of a start that takes a tenth of a second."""
    spent = []
    for _ in range(5):
        machine = built(VIRT)
        begin = time.perf_counter()
        fingerprint(machine._board)
        spent.append(time.perf_counter() - begin)
    assert min(spent) < 0.005, spent


def test_names_and_types_of_a_record() -> None:
    record = {"a": 1, "b": [True, False, None], "c": {"d": b"x", "e": []}, "f": [{"g": 1}, {"g": 2}]}
    assert layout_of(record) == {
        "a": "int",
        "b": ["bool", "NoneType"],
        "c": {"d": "bytes", "e": []},
        "f": [{"g": "int"}],
    }


# -- what is another

Change = Callable[[pytest.MonkeyPatch], None]


def _state(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    state = Pl011.state
    return lambda patch: patch.setattr(Pl011, "state", lambda self: change(state(self)))


def _features(patch: pytest.MonkeyPatch) -> None:
    features = Aarch64Cpu.features
    patch.setattr(Aarch64Cpu, "features", lambda self: features(self) | {"6,0": 0x1F})


def _timers(patch: pytest.MonkeyPatch) -> None:
    timer = VirtualClock.timer
    patch.setattr(VirtualClock, "timer", lambda self, name, fire: timer(self, f"{name}'", fire))


def _fewer_kinds(patch: pytest.MonkeyPatch) -> None:
    known = {kind: event for kind, event in codec.CLASSES.items() if event is not Idle}
    patch.setattr(codec, "CLASSES", known)


#: what is changed -> how; the words; whether a saved state means another thing then
CHANGES: dict[str, tuple[Change, str, bool]] = {
    "a field more": (_state(lambda state: state | {"more": 0}), "another device uart0", True),
    "a field less": (_state(lambda state: {"mask": state["mask"]}), "another device uart0", True),
    "another type": (_state(lambda state: state | {"mask": False}), "another device uart0", True),
    "another register at power-on": (_state(lambda state: state | {"control": 0}), "another device uart0", False),
    "another place": (
        lambda patch: patch.setattr(virt, "GIC_CPU_INTERFACE", (0x0802_0000, 0x1_0000)),
        "another memory map and device tree",
        True,
    ),
    "another device tree": (
        lambda patch: patch.setitem(virt.CPU_COMPATIBLE, "cortex-a57", "arm,another"),
        "another device tree",
        False,
    ),
    "another processor": (_features, "another processor", True),
    "another timer": (_timers, "another timers", True),
    "another configuration": (
        lambda patch: patch.setattr(VirtioRng, "configuration", lambda self: b"x"),
        "another device virtio-mmio.31",
        False,
    ),
    "an event less": (_fewer_kinds, "no event IDLE", False),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_changed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, words, of_state = CHANGES[name]
    before = built(VIRT)
    change(monkeypatch)
    after = built(VIRT)
    assert build_differences(before.identity.build, after.identity.build) == words
    assert (before.layout != after.layout) == of_state


def test_a_pc_tells_its_firmware_and_its_system(pc_spec: MachineSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    before = built(pc_spec).identity.build
    monkeypatch.setattr(pc_firmware, "PROCESSORS", 0x06)
    assert build_differences(before, built(pc_spec).identity.build) == "another device fw_cfg"
    monkeypatch.setattr(pc, "SERIAL", ((0x3F8, 5), *pc.SERIAL[1:]))
    words = "another device fw_cfg and ACPI tables"
    assert build_differences(before, built(pc_spec).identity.build) == words


def test_a_riscv_board_says_what_it_is_made_of() -> None:
    build = built(replace(VIRT, architecture="riscv64", cpu="rv64", kernel=None)).identity.build
    names = {name for name, _ in build}
    assert {"memory map", "processor", "device plic", "device clint", "device sbi", "device tree"} <= names


# -- recordings


def recorded(spec: MachineSpec, path: Path) -> MachineSpec:
    machine = build_machine(replace(spec, mode="record", rrfile=path), quiet)
    machine.run(1000)
    machine.finish("quit")
    machine.close()
    return replace(spec, mode="play", rrfile=path)


def build_of(spec: MachineSpec) -> Build:
    machine = built(spec)
    return machine.identity.build


def test_another_build_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play = recorded(VIRT, tmp_path / "x.rr")
    build = build_of(play)
    assert build == build_of(VIRT)
    CHANGES["a field more"][0](monkeypatch)
    before = (tmp_path / "x.rr").read_bytes()
    with pytest.raises(RecordingError) as caught:
        build_machine(play, quiet)
    first, second = str(caught.value).splitlines()
    assert "another machine (replay it with the build of timevm" in first and "that recorded it, or record it" in first
    assert second == "  build: this timevm makes another device uart0"
    assert (tmp_path / "x.rr").read_bytes() == before


def test_a_recording_that_says_nothing_of_its_build_replays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from timevm.engine.machine import builder

    with monkeypatch.context() as before:
        made = fingerprint
        before.setattr(builder, "fingerprint", lambda assembly: replace(made(assembly), whole=()))
        play = recorded(VIRT, tmp_path / "x.rr")
    machine = build_machine(play, quiet)
    assert f"the recording {play.rrfile} does not say of what its machine was made" in caplog.text
    assert machine.identity.build == ()
    assert machine.run(10_000).icount == 1000
    machine.close()
