"""Core files of Debian's kernels: their own note is in it, and what it names is where the page tables have it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.vmcore.cores import Core, read_core
from tests.guests import LinuxGuest, linux_arm64, linux_riscv64, linux_x86_64
from tests.linux.harness import Terminal, build
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import RunEnd
from timevm.engine.machine.spec import MIB, MachineSpec
from timevm.engine.vmcore.core_dump import CoreDump, DumpRequest

pytestmark = pytest.mark.linux

#: architecture, machine, CPU, console, guest
LINUX = (
    ("aarch64", "virt", "cortex-a57", "ttyAMA0", linux_arm64),
    ("x86_64", "pc", "qemu64", "ttyS0", linux_x86_64),
    ("riscv64", "virt", "rv64", "ttyS0", linux_riscv64),
)


@pytest.mark.parametrize(("architecture", "board", "cpu", "console", "guest"), LINUX, ids=[row[0] for row in LINUX])
def test_a_kernel_and_what_it_says_of_itself(
    architecture: str, board: str, cpu: str, console: str, guest: Callable[[], LinuxGuest], tmp_path: Path
) -> None:
    found = guest()
    spec = MachineSpec(
        architecture=architecture,
        machine=board,
        cpu=cpu,
        kernel=found.kernel,
        initrd=found.initrd,
        ram_bytes=256 * MIB,
        append=f"console={console} tvm=off",
        shift=2,
        sleep=False,
    )
    terminal = Terminal()
    machine = build(spec, terminal)
    try:
        while b"Run /init as init process" not in terminal.console:
            assert machine.run(machine.icount + 20_000_000).end in (RunEnd.LIMIT, RunEnd.KICKED)
        check(machine, tmp_path)
    finally:
        machine.close()


def check(machine: Machine, folder: Path) -> None:
    before = machine.digest()
    for paging in (True, False):
        CoreDump(DumpRequest(str(folder / "core"), None, paging)).take(machine)
        core = read_core(folder / "core")
        told = kernels_note(core)
        assert told["PAGESIZE"] == "4096"
        names = int(told["SYMBOL(init_uts_ns)"], 16) + int(told["OFFSET(uts_namespace.name)"])
        release = names + 2 * 65
        physical = machine.translate(release & -4096)
        assert physical is not None
        place = release if paging else physical | release & 4095
        assert core.at(place, 65).rstrip(b"\0").decode() == told["OSRELEASE"]
    assert machine.digest() == before
    assert (folder / "core").stat().st_blocks * 512 < 200 * MIB


def kernels_note(core: Core) -> dict[str, str]:
    [text] = [data.decode() for name, _, data in core.notes if name == "VMCOREINFO"]
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
