"""What interrupt controllers hold, as plain data for those who ask (``info pic``, ``info irq``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timevm.engine.devices.gicv2 import Gicv2
from timevm.engine.devices.gicv2_interrupts import SGIS
from timevm.engine.devices.i8259_pair import CASCADE_INPUT, I8259Pair
from timevm.engine.devices.sifive_plic import SifivePlic
from timevm.engine.machine.outcome import InterruptController

#: of GICD_CTLR and GICC_CTLR: either group of interrupts is let through
_GIC_ON = 3


def _chip_line(number: int, chip: dict[str, Any]) -> str:
    """QEMU's words for an 8259."""
    return (
        f"pic{number}: irr={chip['requests']:02x} imr={chip['mask']:02x} isr={chip['in_service']:02x} "
        f"hprio={chip['lowest'] + 1 & 7} irq_base={chip['vector_base']:02x} rr_sel={int(chip['read_in_service'])} "
        f"elcr={chip['level_triggered']:02x} fnm={int(chip['special_fully_nested'])}"
    )


def pic_list(pair: I8259Pair) -> list[InterruptController]:
    state = pair.state()
    master, slave = state["master"], state["slave"]

    def both(register: str) -> int:
        found: int = master[register] & ~(1 << CASCADE_INPUT) | slave[register] << 8
        return found

    enabled = 0xFFFF & ~(1 << CASCADE_INPUT) & ~both("mask")
    lines = _chip_line(1, slave), _chip_line(0, master)
    pending, active, wires = (both(name) for name in ("requests", "in_service", "levels"))
    return [InterruptController(pair.name, lines, enabled, pending, active, wires, is_whole=True)]


def gic_list(gic: Gicv2) -> list[InterruptController]:
    state = gic.state()
    table, interface = state["interrupts"], state["cpu_interface"]

    def bits(name: str) -> int:
        return int.from_bytes(table[name], "little")

    line = (
        f"distributor {_on(state['distributor']['control'] & _GIC_ON)}, "
        f"CPU interface {_on(interface['control'] & _GIC_ON)}, priority mask {interface['priority_mask']:02x}, "
        f"IRQ {_up(state['irq'])}, FIQ {_up(state['fiq'])}"
    )
    pending, active = bits("latched") | bits("lines") & ~bits("edge"), bits("active")
    # those of software are always enabled, so they count when there is one
    enabled = bits("enabled") & ~(SGIS & ~pending & ~active)
    return [InterruptController(gic.name, (line,), enabled, pending, active, bits("lines"), table["priority"])]


def plic_list(plic: SifivePlic, targets: Sequence[str]) -> list[InterruptController]:
    """``targets``: what each context of it leads to."""
    state = plic.state()
    wires, served = (int.from_bytes(state[name], "little") for name in ("lines", "served"))
    lines, enabled = [], 0
    for target, context in zip(targets, state["contexts"], strict=True):
        lines.append(f"{target}: threshold {context['threshold']}, line {_up(context['level'])}")
        enabled |= int.from_bytes(context["enabled"], "little")
    return [InterruptController(plic.name, tuple(lines), enabled, wires & ~served, served, wires, state["priorities"])]


def _on(value: int) -> str:
    return "on" if value else "off"


def _up(level: bool) -> str:
    return "up" if level else "down"
