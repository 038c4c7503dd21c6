"""``info pic`` and ``info irq``: interrupt controllers, and every interrupt of theirs that somebody cares about."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from timevm.engine.control.port import InterruptController
from timevm.monitor.hmp.errors import HmpError
from timevm.monitor.hmp.table import Call


def numbers(bits: int) -> str:
    """``0-15 27 30`` for those bits; a dash for none."""
    members = [number for number in range(bits.bit_length()) if bits >> number & 1]
    runs = [[number for _, number in run] for _, run in groupby(enumerate(members), key=lambda pair: pair[1] - pair[0])]
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs) or "-"


def _controller_lines(found: InterruptController) -> Iterator[str]:
    if found.is_whole:
        yield from found.lines
        return
    yield from (f"{found.name}: {line}" for line in found.lines)
    for name, bits in (("enabled", found.enabled), ("pending", found.pending), ("active", found.active)):
        yield f"  {name + ':':<9}{numbers(bits)}"


def _interrupt_lines(found: InterruptController) -> Iterator[str]:
    priority = f" {'PRIORITY':>8}" if found.priorities is not None else ""
    yield f"{found.name}:"
    yield f"{'IRQ':>5} {'WIRE':>4} {'ENABLED':>7} {'PENDING':>7} {'ACTIVE':>6}{priority}"
    any_of = found.enabled | found.pending | found.active | found.wires
    for number in (number for number in range(any_of.bit_length()) if any_of >> number & 1):
        marks = [bits >> number & 1 for bits in (found.enabled, found.pending, found.active)]
        words = ["yes" if mark else "-" for mark in marks]
        wire = "up" if found.wires >> number & 1 else "-"
        urgency = f" {found.priorities[number]:>8}" if found.priorities is not None else ""
        yield f"{number:>5} {wire:>4} {words[0]:>7} {words[1]:>7} {words[2]:>6}{urgency}"


async def _controllers(call: Call) -> list[InterruptController]:
    found = await call.context.vm.inspect(lambda machine: machine.interrupt_controllers())
    if not found:
        raise HmpError("this machine has no interrupt controller")
    return found


async def info_pic(call: Call) -> str:
    return "".join(f"{line}\n" for each in await _controllers(call) for line in _controller_lines(each))


async def info_irq(call: Call) -> str:
    """QEMU counts interrupts here, which nobody does in timevm."""
    return "".join(f"{line}\n" for each in await _controllers(call) for line in _interrupt_lines(each))
