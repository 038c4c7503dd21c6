"""``info mem`` and ``info tlb`` of real machines: what QEMU 7.2 says of the same guests; more where it is silent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.guests import bare
from tests.monitor.hmp.paging_guests import GUESTS, SAID
from tests.monitor.toy_vm import ToyVm
from timevm.engine.cpu.mappings import Mappings
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import ReplayMode
from timevm.engine.machine.spec import MIB, MachineSpec
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.hmp.line import run_hmp_line

#: more than any of these guests needs to switch paging on
SET_UP = 20_000
QEMU = json.loads(SAID.read_text())
ARM = MachineSpec(ram_bytes=16 * MIB, kernel=bare("arm64_mmu"), shift=2, sleep=False, seed=1, rtc_base=0)


@contextmanager
def running(spec: MachineSpec, instructions: int = SET_UP) -> Iterator[Machine]:
    machine = build_machine(spec, lambda port, data: None)
    machine.run(instructions)
    yield machine
    machine.close()


async def says(machine: Machine, line: str) -> str:
    vm = ToyVm(ReplayMode.NONE)
    vm.machine.mappings = machine.mappings  # type: ignore[method-assign]
    return await run_hmp_line(line, MonitorContext(vm))


@pytest.mark.parametrize("name", GUESTS)
async def test_it_says_what_qemu_says(name: str, tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(GUESTS[name].image())
    with running(GUESTS[name].spec(kernel)) as machine:
        digest = machine.digest()
        for line, printed in QEMU[name].items():
            assert await says(machine, line) == printed
        assert machine.digest() == digest


async def test_before_a_guest_switches_paging_on(tmp_path: Path) -> None:
    for name, words in (("pc-long", "PG disabled\n"), ("riscv-sv39", "No translation or protection\n")):
        kernel = tmp_path / name
        kernel.write_bytes(GUESTS[name].image())
        with running(GUESTS[name].spec(kernel), 1) as machine:
            assert await says(machine, "info mem") == await says(machine, "info tlb") == words
    with running(ARM, 1) as machine:
        assert await says(machine, "info mem") == "the MMU is off: addresses are physical\n"


async def test_pages_on_riscv_have_a_size(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(GUESTS["riscv-sv39"].image())
    with running(GUESTS["riscv-sv39"].spec(kernel)) as machine:
        lines = (await says(machine, "info tlb")).splitlines()
    assert lines[0] == "0000000000002000: 0000000000002000   4K rwx--ad"
    assert lines[-1] == "ffffffffc0000000: 0000000040000000   1G rw--gad"


async def test_aarch64() -> None:
    with running(ARM) as machine:
        digest = machine.digest()
        assert await says(machine, "info mem") == ARM_RANGES
        assert await says(machine, "info tlb") == ARM_PAGES
        assert machine.digest() == digest


ARM_RANGES = """\
vaddr            paddr            size             el1 el0 ga memory
---------------- ---------------- ---------------- -----------------
0000000000000000 0000000000000000 0000000040000000 rw- --- ga device
0000000040000000 0000000040000000 0000000040000000 rwx --x ga normal
0000000080000000 0000000040000000 0000000040000000 rw- --- ga normal
"""
ARM_PAGES = """\
0000000000000000: 0000000000000000   1G rw- --- ga device
0000000040000000: 0000000040000000   1G rwx --x ga normal
0000000080000000: 0000000040000000   1G rw- --- ga normal
"""


async def test_what_is_too_much_is_left_out_and_said_so() -> None:
    with running(ARM) as machine:
        cut = replace(machine.mappings(), more_from=0x1234000)
    vm = ToyVm(ReplayMode.NONE)
    vm.machine.mappings = lambda: cut  # type: ignore[method-assign]
    text = await run_hmp_line("info tlb", MonitorContext(vm))
    assert text.splitlines()[-1] == "there are more from 0000000001234000 on: these are the first 3 pages"


async def test_a_machine_that_maps_nothing() -> None:
    vm = ToyVm(ReplayMode.NONE)
    vm.machine.mappings = Mappings  # type: ignore[method-assign]
    assert (
        await run_hmp_line("info tlb", MonitorContext(vm)) == await run_hmp_line("info mem", MonitorContext(vm)) == ""
    )
