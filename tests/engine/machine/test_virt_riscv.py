"""The riscv board: its two ways to start, its interrupts, and that recordings of it replay."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.cpu import riscv64_assembler as assembler
from tests.engine.machine import riscv_guests
from tests.engine.machine.elf import EM_RISCV, Segment, elf64
from tests.engine.machine.restoring import load, run_to_end, save
from tests.engine.machine.test_device_tree import parsed
from tests.linux.harness import Terminal, assert_same, build, record, replay
from timevm.engine.cpu import riscv64
from timevm.engine.cpu.sbi import Extension
from timevm.engine.machine.boards import virt_riscv
from timevm.engine.machine.boards.virt_riscv import RAM_BASE
from timevm.engine.machine.builder import device_tree_of
from timevm.engine.machine.outcome import RunEnd, RunResult
from timevm.engine.machine.spec import MIB, NO_FIRMWARE, RISCV_CPU_MODELS, DeviceOption, MachineSpec
from timevm.engine.replay.gate import NEVER
from timevm.errors import UserError

#: where the guests are loaded, and begin
PLACE = RAM_BASE + 2 * MIB
#: typed into the guest, one byte whenever it has echoed the one before
TYPED = ((b"r", b"x"), (b"x", b"y"), (b"y", b"z"), (b"z", b"q"))


def guest(folder: Path, program: bytes, *, bare: bool = False) -> MachineSpec:
    """To be recorded."""
    kernel = folder / "guest.elf"
    kernel.write_bytes(elf64([Segment(PLACE, program)], entry=PLACE, machine=EM_RISCV))
    return MachineSpec(
        architecture="riscv64",
        cpu="rv64",
        kernel=kernel,
        ram_bytes=16 * MIB,
        shift=3,
        sleep=False,
        mode="record",
        rrfile=folder / "guest.rr",
        machine_properties=(NO_FIRMWARE,) if bare else (),
    )


def live(spec: MachineSpec) -> tuple[RunResult, bytes]:
    terminal = Terminal()
    machine = build(replace(spec, mode="none", rrfile=None), terminal)
    result = machine.run(50_000_000)
    machine.close()
    return result, bytes(terminal.console)


def test_the_models_of_the_command_line_are_those_of_the_cpu() -> None:
    assert RISCV_CPU_MODELS == riscv64.MODELS


def test_on_the_built_in_firmware(tmp_path: Path) -> None:
    spec = guest(tmp_path, riscv_guests.supervisor(PLACE))
    recorded = record(spec, TYPED)
    assert recorded.console.replace(b"t", b"") == b"rxyzq", "the UART's interrupt comes through the PLIC"
    for _ in range(3):
        assert_same(recorded, replay(spec))
    generator = random.Random(1)
    for _ in range(3):
        limits = sorted(generator.sample(range(recorded.icount), min(200, recorded.icount // 4)))
        assert_same(recorded, replay(spec, limits))
    assert_same(recorded, replay(spec, range(recorded.icount)))


def test_the_firmwares_timer_ticks(tmp_path: Path) -> None:
    machine = build(
        replace(guest(tmp_path, riscv_guests.supervisor(PLACE)), mode="none", rrfile=None), terminal := Terminal()
    )
    while len(terminal.console) < 6:
        machine.run(machine.icount + 10)
    assert bytes(terminal.console) == b"rttttt"
    assert 5_000_000 <= machine.now_ns() < 5_050_000
    machine.close()


def test_a_guest_that_boots_again(tmp_path: Path) -> None:
    spec = guest(tmp_path, riscv_guests.supervisor(PLACE))
    terminal = Terminal([(b"r", b"b"), (b"br", b"b"), (b"br", b"q")])
    recorded = run_to_end(build(spec, terminal), terminal)
    assert recorded.console.replace(b"t", b"") == b"rbrbrq"
    other = Terminal()
    assert_same(recorded, run_to_end(build(replace(spec, mode="play"), other), other))


def test_a_state_goes_on_in_another_machine(tmp_path: Path) -> None:
    spec = guest(tmp_path, riscv_guests.supervisor(PLACE))
    recorded = record(spec, TYPED)
    for moment in random.Random(2).sample(range(recorded.icount), 12):
        terminal = Terminal()
        machine = build(replace(spec, mode="play"), terminal)
        assert machine.run(moment).icount == moment
        save(machine, spec, tmp_path / "state")
        machine.close()
        listener = Terminal()
        rest = run_to_end(load(tmp_path / "state", listener), listener)
        assert_same(recorded, replace(rest, console=bytes(terminal.console) + rest.console))


@pytest.mark.parametrize(("finish", "exit_code"), [(0x5555, None), (0x0005_3333, 5), (0x3333, 0)])
def test_without_firmware(tmp_path: Path, finish: int, exit_code: int | None) -> None:
    spec = guest(tmp_path, riscv_guests.machine(PLACE, finish), bare=True)
    result, console = live(spec)
    assert (result.end, result.exit_code, console) == (RunEnd.POWERED_OFF, exit_code, b"sm")
    recorded = record(spec)
    assert_same(recorded, replay(spec))
    assert_same(recorded, replay(spec, range(recorded.icount)))


def test_the_finisher_restarts(tmp_path: Path) -> None:
    result, console = live(guest(tmp_path, riscv_guests.machine(PLACE, 0x7777), bare=True))
    assert (result.end, console) == (RunEnd.RESET, b"sm")


def test_firmware_from_a_file_starts_in_m_mode(tmp_path: Path) -> None:
    spec = guest(tmp_path, riscv_guests.machine(PLACE, 0x5555))
    assert spec.kernel is not None
    result, console = live(replace(spec, kernel=None, bios=spec.kernel))
    assert (result.end, console) == (RunEnd.POWERED_OFF, b"sm")


def test_a_recording_knows_whether_there_was_firmware(tmp_path: Path) -> None:
    spec = guest(tmp_path, riscv_guests.machine(PLACE, 0x5555), bare=True)
    record(spec)
    with pytest.raises(Exception, match="firmware=none"):
        replay(replace(spec, machine_properties=()))


def test_what_is_on_the_board() -> None:
    spec = MachineSpec(architecture="riscv64", cpu="rv64", seed=1, rtc_base=0, append="console=ttyS0")
    nodes = parsed(device_tree_of(spec))
    assert nodes["/cpus/cpu@0"]["riscv,isa"] == ["rv64imafdc_zicsr_zifencei_sstc"]
    assert nodes["/cpus"]["timebase-frequency"] == [10_000_000]
    slots = [path for path in nodes if "virtio_mmio" in path][::-1]  # the library walks from the last to the first
    assert slots == [f"/soc/virtio_mmio@{0x1000_1000 + 0x1000 * number:x}" for number in range(7, -1, -1)]
    assert nodes[slots[0]]["interrupts"] == [8] and nodes[slots[0]]["reg"] == [0, 0x1000_8000, 0, 0x1000]
    assert nodes["/soc/serial@10000000"]["interrupts"] == [10]
    assert nodes["/soc/rtc@101000"]["interrupts"] == [11]
    assert nodes["/chosen"]["bootargs"] == ["console=ttyS0"] and "kaslr-seed" not in nodes["/chosen"]
    terminal = Terminal()
    machine = build(spec, terminal)
    regions = {region.name: region for region in machine.memory_map()}
    assert regions["riscv_virt_board.ram"].base == virt_riscv.RAM_BASE and regions["uart0"].size == 8
    assert set(machine.device_states()) == {"plic", "clint", "uart0", "rtc", "sbi"}
    machine.close()


def test_more_devices_than_slots() -> None:
    rngs = tuple(DeviceOption("virtio-rng-device") for _ in range(9))
    with pytest.raises(UserError, match="8 places for virtio devices, 9 are asked for"):
        build(MachineSpec(architecture="riscv64", cpu="rv64", devices=rngs), Terminal())


def test_every_device_register_can_be_touched(tmp_path: Path) -> None:
    """What a hostile driver does, through the CPU's own windows: any register, any value, any width."""
    generator = random.Random(3)
    program = riscv_guests.Program()
    bases = [0x10_0008, 0x10_1000, 0x200_0000, 0x200_4000, 0x200_BFF8, 0xC00_0000, 0xC00_1000, 0xC00_2000, 0xC20_0000,
             0xC20_1000, 0xC5F_F000, 0x1000_0000, 0x1000_0008, 0x1000_1000, 0x1000_8000, 0x1000_8E00]  # fmt: skip
    for base in bases:
        for _ in range(12):
            kind = generator.randrange(4)
            address = base + (generator.randrange(0x40) << 3)
            program.write(address, generator.choice([0, 1, 0xFFFF_FFFF, generator.getrandbits(32)]), kind)
            program.put(assembler.load(riscv_guests.T2, riscv_guests.T0, 0, kind))
    program.write(riscv_guests.TEST, 0x5555)
    program.label("stop")
    program.jump("stop")
    spec = guest(tmp_path, program.assembled(), bare=True)
    recorded = record(spec)
    assert_same(recorded, replay(spec, range(0, recorded.icount, 7)))
    assert recorded.icount < NEVER


def test_a_guest_that_asks_its_firmware_anything(tmp_path: Path) -> None:
    """Any extension, function and arguments, but for what ends or suspends the only hart."""
    generator = random.Random(4)
    program = riscv_guests.Program()
    extensions = [each for each in Extension if each not in (Extension.SHUTDOWN, Extension.SRST, Extension.HSM)]
    for _ in range(150):
        for register in range(riscv_guests.A0, riscv_guests.A0 + 3):
            program.constant(register, generator.choice([0, 1, 5, PLACE, 0xFFFF_FFFF, generator.getrandbits(32)]))
        program.call(generator.choice([*extensions, generator.getrandbits(32)]), generator.randrange(4))
        program.call(Extension.HSM, generator.choice([0, 2, 4]))
    program.constant(riscv_guests.A0, 0)
    program.constant(riscv_guests.A1, 0)
    program.call(Extension.SRST)
    spec = guest(tmp_path, program.assembled())
    recorded = record(spec)
    assert_same(recorded, replay(spec))
    assert_same(recorded, replay(spec, range(0, recorded.icount, 3)))


def test_nothing_to_execute_is_told(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    spec = guest(tmp_path, b"\0\0\0\0")
    build(spec, Terminal()).close()
    assert not caplog.records
    build(replace(spec, kernel=None), Terminal()).close()
    assert "nothing to execute: give it -kernel" in caplog.text
