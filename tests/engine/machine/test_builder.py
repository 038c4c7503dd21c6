"""Machines that cannot be built say so in one to three lines, and leave nothing behind and nothing damaged."""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.cpu import assembler as a
from tests.engine.machine.elf import Segment, elf64
from tests.guests import bare
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.spec import CPU_MODELS, GIB, MIB, MachineSpec
from timevm.engine.replay.log_format import HEADER
from timevm.errors import HostError, RecordingError, TimevmError, UserError


def quiet(port: int, data: bytes) -> None:
    """Nobody listens to this guest."""


def guest(tmp_path: Path) -> MachineSpec:
    return MachineSpec(kernel=bare("irq"), ram_bytes=16 * MIB, shift=0, mode="record", rrfile=tmp_path / "x.rr")


def failure(spec: MachineSpec) -> TimevmError:
    with pytest.raises(TimevmError) as caught:
        build_machine(spec, quiet)
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 3 and text.strip() == text
    return caught.value


def test_files_that_are_missing(tmp_path: Path) -> None:
    none = tmp_path / "none"
    spec = guest(tmp_path)
    for changed in (
        replace(spec, kernel=none),
        replace(spec, initrd=none),
        replace(spec, dtb=none),
        replace(spec, bios=none),
    ):
        error = failure(changed)
        assert isinstance(error, HostError) and str(none) in str(error) and "No such file or directory" in str(error)
    assert os.listdir(tmp_path) == []


def test_files_that_are_none(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF" + bytes(100))
    error = failure(replace(guest(tmp_path), kernel=program))
    assert isinstance(error, UserError) and "no ELF file that can be read" in str(error)
    assert os.listdir(tmp_path) == ["program"]


def test_machines_that_are_not_there(tmp_path: Path) -> None:
    assert "unsupported machine type 'virtual'" in str(failure(replace(guest(tmp_path), machine="virtual")))
    assert "starts a kernel without firmware" in str(failure(replace(guest(tmp_path), bios=bare("irq"))))
    assert not (tmp_path / "x.rr").exists()


def test_a_recording_that_cannot_be_created(tmp_path: Path) -> None:
    for path, why in (
        (tmp_path / "no" / "x.rr", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (Path("/dev/full"), "No space left on device"),
    ):
        error = failure(replace(guest(tmp_path), rrfile=path))
        assert isinstance(error, HostError) and str(path) in str(error) and why in str(error)


def test_a_recording_that_another_process_makes(tmp_path: Path) -> None:
    first = build_machine(guest(tmp_path), quiet)
    assert isinstance(failure(guest(tmp_path)), RecordingError)
    first.finish("quit")
    build_machine(guest(tmp_path), quiet).finish("quit")


def test_an_earlier_recording_survives_a_machine_that_cannot_be_built(tmp_path: Path) -> None:
    spec = guest(tmp_path)
    build_machine(spec, quiet).finish("quit")
    before = (tmp_path / "x.rr").read_bytes()
    failure(replace(spec, kernel=tmp_path / "none"))
    failure(replace(spec, bios=bare("irq")))
    assert (tmp_path / "x.rr").read_bytes() == before


def test_recordings_that_are_none(tmp_path: Path) -> None:
    spec = replace(guest(tmp_path), mode="play")
    assert str(failure(spec)) == f"Replay: open {spec.rrfile}: No such file or directory"
    for data in (b"", b"\x89TVM", b"not a recording at all", bytes(1000)):
        (tmp_path / "x.rr").write_bytes(data)
        assert isinstance(failure(spec), RecordingError)
    assert isinstance(failure(replace(spec, rrfile=tmp_path)), RecordingError)


def test_damage_inside_the_header(tmp_path: Path) -> None:
    """Every byte of it, by one bit and as a whole; and the header cut short anywhere."""
    spec, path = guest(tmp_path), tmp_path / "x.rr"
    build_machine(spec, quiet).finish("quit")
    sound = path.read_bytes()
    length = HEADER.size + HEADER.unpack(sound[: HEADER.size])[2]
    chance = random.Random(1)
    play = replace(spec, mode="play")
    for place in range(length):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << chance.randrange(8) if place & 1 else 0xFF
        path.write_bytes(damaged)
        assert isinstance(failure(play), RecordingError), f"byte {place}"
    for cut in range(0, length, 7):
        path.write_bytes(sound[:cut])
        assert isinstance(failure(play), RecordingError), f"cut to {cut}"
    path.write_bytes(sound)
    build_machine(play, quiet).close()


def test_a_machine_lets_go_of_everything(tmp_path: Path) -> None:
    spec = guest(tmp_path)
    build_machine(spec, quiet).finish("quit")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        machine = build_machine(replace(spec, mode="play"), quiet)
        machine.close()
        del machine
        failure(replace(spec, mode="play", cpu="max"))
        failure(replace(spec, mode="play", kernel=tmp_path / "none"))
    assert len(os.listdir("/proc/self/fd")) <= before + 4, "a machine's file is still open"


@pytest.mark.parametrize("cpu", CPU_MODELS)
@pytest.mark.parametrize("ram", [16 * MIB, 128 * MIB, 1 * GIB, 4 * GIB])
def test_every_size_of_ram_runs(cpu: str, ram: int) -> None:
    console = bytearray()
    spec = MachineSpec(kernel=bare("irq"), ram_bytes=ram, cpu=cpu, shift=3, sleep=False)
    machine = build_machine(spec, lambda port, data: console.extend(data))
    machine.run(200_000)
    assert console.startswith(b"irq ready")
    machine.close()


def test_the_last_byte_of_four_gibibytes(tmp_path: Path) -> None:
    """The guest's stores reach 0x13fffffff, debuggers see them, and one byte further there is nothing."""
    last = 0x1_4000_0000 - 8
    program = a.code(
        *a.load_constant(1, last & 0xFFFF_FFFF),
        a.movk(1, last >> 32, 32),
        *a.load_constant(2, 0x2144_4E45),
        a.str_(2, 1),
        a.ldr(3, 1),
        a.b(0),
    )
    kernel = tmp_path / "kernel"
    kernel.write_bytes(elf64([Segment(0x4008_0000, program)], entry=0x4008_0000))
    machine = build_machine(MachineSpec(kernel=kernel, ram_bytes=4 * GIB), quiet)
    machine.run(10)
    assert machine.read_register("x3") == 0x2144_4E45
    assert machine.ram.end == last + 8
    assert machine.read_memory(last, 16, physical=True) == b"END!" + bytes(4), "shorter where RAM ends"
    assert machine.write_memory(last - 4096, b"x" * 8192, physical=True) == 4104
    assert machine.read_memory(last + 8, 1, physical=True) == b""
    machine.close()


def test_a_machine_with_much_memory_starts_as_fast(tmp_path: Path) -> None:
    """Recording 4 GiB of which 16 KiB are used: reading all of them would take a second, and as much memory."""

    def seconds(ram: int) -> float:
        begin = time.process_time()
        machine = build_machine(replace(guest(tmp_path), ram_bytes=ram, sleep=False), quiet)
        machine.run(1000)
        machine.finish("quit")
        return time.process_time() - begin

    small, large = min(seconds(16 * MIB) for _ in range(3)), min(seconds(4 * GIB) for _ in range(3))
    assert large < small + 0.35
