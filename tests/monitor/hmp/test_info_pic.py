"""``info pic`` and ``info irq`` of real machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.machine.pc_guests import kernel
from tests.guests import bare
from tests.monitor.hmp.paging_guests import GUESTS
from tests.monitor.toy_vm import ToyVm
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import ReplayMode
from timevm.engine.machine.spec import MIB, MachineSpec
from timevm.engine.replay.events import SerialInput
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.hmp.interrupts import numbers
from timevm.monitor.hmp.line import run_hmp_line

IRQ = MachineSpec(ram_bytes=16 * MIB, kernel=bare("irq"), shift=2, sleep=False, seed=1, rtc_base=0)


async def says(machine: Machine, line: str) -> str:
    vm = ToyVm(ReplayMode.NONE)
    vm.machine.interrupt_controllers = machine.interrupt_controllers  # type: ignore[method-assign]
    return await run_hmp_line(line, MonitorContext(vm))


def made(name: str, folder: Path) -> Machine:
    image = folder / "kernel"
    image.write_bytes(GUESTS[name].image())
    return build_machine(GUESTS[name].spec(image), lambda port, data: None)


async def test_the_pc_has_two_chips(tmp_path: Path) -> None:
    """The lines are QEMU's for the same kernel, but for what firmware has done before it there (irr=01, elcr=0c)."""
    image = kernel("    call interrupts\n    jmp $\n", tmp_path / "kernel")
    machine = build_machine(GUESTS["pc-long"].spec(image), lambda port, data: None)
    machine.run(200_000)
    assert await says(machine, "info pic") == (
        "pic1: irr=00 imr=ff isr=00 hprio=0 irq_base=28 rr_sel=0 elcr=0e fnm=0\n"
        "pic0: irr=00 imr=ee isr=00 hprio=0 irq_base=20 rr_sel=0 elcr=00 fnm=0\n"
    )
    assert await says(machine, "info irq") == (
        "pic:\n"
        "  IRQ WIRE ENABLED PENDING ACTIVE\n"
        "    0    -     yes       -      -\n"
        "    4    -     yes       -      -\n"
    )
    machine.close()


async def test_the_gic() -> None:
    machine = build_machine(IRQ, lambda port, data: None)
    assert await says(machine, "info pic") == (
        "gicv2: distributor off, CPU interface off, priority mask 00, IRQ down, FIQ down\n"
        "  enabled: -\n  pending: -\n  active:  -\n"
    )
    machine.run(2_000_000)
    machine.inject(SerialInput(0, b"a"))
    machine.run(2_000_001)
    digest = machine.digest()
    assert await says(machine, "info pic") == (
        "gicv2: distributor on, CPU interface on, priority mask ff, IRQ down, FIQ down\n"
        "  enabled: 27 33\n  pending: 33\n  active:  27\n"
    )
    assert await says(machine, "info irq") == (
        "gicv2:\n"
        "  IRQ WIRE ENABLED PENDING ACTIVE PRIORITY\n"
        "   27    -     yes       -    yes        0\n"
        "   33   up     yes     yes      -        0\n"
    )
    assert machine.digest() == digest
    machine.close()


async def test_the_plic(tmp_path: Path) -> None:
    machine = made("riscv-sv39", tmp_path)
    assert await says(machine, "info pic") == (
        "plic: machine mode: threshold 0, line down\n"
        "plic: supervisor mode: threshold 0, line down\n"
        "  enabled: -\n  pending: -\n  active:  -\n"
    )
    assert await says(machine, "info irq") == "plic:\n  IRQ WIRE ENABLED PENDING ACTIVE PRIORITY\n"
    machine.close()


async def test_no_controller() -> None:
    vm = ToyVm(ReplayMode.NONE)
    for line in ("info pic", "info irq"):
        assert await run_hmp_line(line, MonitorContext(vm)) == "Error: this machine has no interrupt controller\n"


@pytest.mark.parametrize(("bits", "text"), [(0, "-"), (1, "0"), (0xFFFF | 1 << 27 | 3 << 30, "0-15 27 30-31")])
def test_numbers_of_a_set(bits: int, text: str) -> None:
    assert numbers(bits) == text
