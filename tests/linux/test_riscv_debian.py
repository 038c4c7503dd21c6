"""Debian's riscv64 kernel on the virt board with its built-in firmware: recorded, replayed, sliced, restored."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.machine.restoring import rest_of_the_run, save
from tests.guests import linux_riscv64
from tests.linux.harness import Outcome, Terminal, assert_same, build, record, replay, with_disks
from tests.linux.test_debian import random_limits
from tests.linux.test_debian_disk import check_worked, ext4
from tests.peers import need_file
from timevm.engine.machine.outcome import RunEnd
from timevm.engine.machine.spec import MIB, DeviceOption, MachineSpec
from timevm.engine.replay.gate import NEVER

#: busybox puts the folder before it
PROMPT = b" # "
pytestmark = [pytest.mark.linux, pytest.mark.timeout(1200)]


def linux_riscv(steps: str, recording: Path, *, shift: int | None = 2, sleep: bool = True) -> MachineSpec:
    guest = linux_riscv64()
    return MachineSpec(
        architecture="riscv64",
        cpu="rv64",
        kernel=guest.kernel,
        initrd=guest.initrd,
        ram_bytes=512 * MIB,
        append=f"console=ttyS0 quiet nokaslr tvm={steps}",
        shift=shift,
        sleep=sleep,
        mode="record",
        rrfile=recording,
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[MachineSpec, Outcome]:
    """Reset to power-off with work on an ext4 disk; shared by the replays of this file."""
    folder = tmp_path_factory.mktemp("riscv")
    spec = with_disks(linux_riscv("basic,disk,off", folder / "boot.rr"), ext4(folder / "disk.qcow2"), snapshot=True)
    outcome = record(spec)
    assert b"TIMEVM-GUEST basic uname Linux" in outcome.console
    check_worked(outcome)
    assert outcome.console.rstrip().endswith(b"reboot: Power down")
    return spec, outcome


def test_three_replays(recorded: tuple[MachineSpec, Outcome]) -> None:
    spec, outcome = recorded
    for _ in range(3):
        assert_same(outcome, replay(spec))


def test_random_slicing(recorded: tuple[MachineSpec, Outcome]) -> None:
    spec, outcome = recorded
    assert_same(outcome, replay(spec, random_limits(3, 5_000_000, 40_000_000)))


def test_dense_slicing_here_and_there(recorded: tuple[MachineSpec, Outcome]) -> None:
    spec, outcome = recorded

    def limits() -> Iterator[int]:
        generator = random.Random(11)
        for start in sorted(generator.randrange(outcome.icount) for _ in range(8)):
            yield from range(start, start + 3000)

    assert_same(outcome, replay(spec, sorted(set(limits()))))


def test_a_fresh_process_goes_on(recorded: tuple[MachineSpec, Outcome], tmp_path: Path) -> None:
    spec, outcome = recorded
    terminal = Terminal()
    machine = build(replace(spec, mode="play"), terminal)
    assert machine.run(outcome.icount // 2).icount == outcome.icount // 2
    save(machine, spec, tmp_path / "state")
    before = bytes(terminal.console)
    machine.close()
    rest = rest_of_the_run(tmp_path / "state")
    assert_same(outcome, replace(rest, console=before + rest.console))


SHELL = (
    (PROMPT, b"echo $((6 * 7)) answers; uname -m\r"),
    (b"riscv64", b""),
    (PROMPT, b"for i in 1 2 3; do echo round $i; done; date +%s\r"),
    (b"round 3", b""),
    (PROMPT, b"sleep 1; cat /proc/interrupts | head -20\r"),
    (PROMPT, b"head -c 16 /dev/hwrng | od -An -tx1\r"),
    (PROMPT, b"exit\r"),
)


def test_a_shell_driven_by_a_script(tmp_path: Path) -> None:
    """Typing goes through UART, PLIC and S-mode's external interrupt; the date is the Goldfish clock's."""
    spec = linux_riscv("shell,off", tmp_path / "shell.rr", sleep=False)
    spec = replace(spec, devices=(DeviceOption("virtio-rng-device"),), rtc_base=1_000_000_000)
    outcome = record(spec, SHELL)
    assert b"42 answers" in outcome.console and b"10000000" in outcome.console
    assert b"SiFive PLIC" in outcome.console or b"RISC-V INTC" in outcome.console
    assert_same(outcome, replay(spec))
    assert_same(outcome, replay(spec, random_limits(7, 500_000, 2_000_000)))


@pytest.mark.parametrize("shift", [None, 0, 4])
def test_other_speeds_of_time(tmp_path: Path, shift: int | None) -> None:
    spec = linux_riscv("off", tmp_path / "off.rr", shift=shift, sleep=False)
    outcome = record(spec)
    assert_same(outcome, replay(spec))


def test_opensbi_in_its_place(tmp_path: Path) -> None:
    """M-mode firmware from a file: its timer is the CLINT, its end the finisher."""
    firmware = need_file("/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin")
    spec = replace(linux_riscv("basic,off", tmp_path / "opensbi.rr"), bios=firmware)
    outcome = record(spec)
    assert b"Platform Timer Device     : aclint-mtimer @ 10000000Hz" in outcome.console
    assert b"TIMEVM-GUEST basic uname Linux" in outcome.console
    assert outcome.console.rstrip().endswith(b"reboot: Power down")
    assert_same(outcome, replay(spec))
    assert_same(outcome, replay(spec, random_limits(4, 2_000_000, 20_000_000)))


def test_a_guest_that_reboots(tmp_path: Path) -> None:
    spec = linux_riscv("reboot", tmp_path / "reboot.rr", sleep=False)
    terminal = Terminal()
    machine = build(replace(spec, mode="none", rrfile=None), terminal)
    for boots in (1, 2):
        assert machine.run(NEVER).end is RunEnd.RESET
        assert bytes(terminal.console).count(b"TIMEVM-GUEST init") == boots
        machine.reset()
    machine.close()
