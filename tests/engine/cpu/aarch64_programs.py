"""Small AArch64 programs for the bare board."""

from __future__ import annotations

from functools import cache
from typing import Any

from tests.engine.cpu import assembler as a
from tests.engine.cpu.board import DATA, DEVICE, VECTORS, Board
from tests.engine.cpu.device import COUNTER, LINE
from timevm.engine.cpu.base import Stop, StopKind

FOREVER = 1 << 60
SYSTEM_OFF = 0x8400_0008


def power_off() -> list[int]:
    return [*a.load_constant(0, SYSTEM_OFF), a.hvc(), a.NOP]


def vector_table(irq: list[int] | None = None, sync: list[int] | None = None) -> bytes:
    """Handlers for exceptions taken from EL1 with SP_EL1."""
    table = bytearray(a.code(a.b(0)) * 0x200)
    for offset, words in ((0x200, sync), (0x280, irq)):
        if words:
            table[offset : offset + 4 * len(words)] = a.code(*words)
    return bytes(table)


def counting_loop(rounds: int) -> bytes:
    """x1 counts down; stores, a device read and a device write that pulses the interrupt line in mid-block."""
    return a.code(
        *a.load_constant(9, VECTORS),
        a.msr(9, *a.VBAR_EL1),
        *a.load_constant(2, DEVICE),
        *a.load_constant(3, DATA),
        a.movz(1, rounds),
        a.movz(4, 1),
        a.daif_clear(2),
        # loop:
        a.add(5, 5, 3),
        a.str_w(4, 2, LINE),  # raises the interrupt in mid-block
        a.add(5, 5, 1),
        a.eor(6, 6, 5),
        a.str_(6, 3),
        a.ldr_w(7, 2, COUNTER),
        a.eor(6, 6, 7),
        a.subs(1, 1, 1),
        a.b_ne(-8),
        *power_off(),
    )


#: counts in x10, notes ELR in x12, lowers the line
IRQ_HANDLER = [
    a.add(10, 10, 1),
    a.mrs(11, *a.ELR_EL1),
    a.eor(12, 12, 11),
    a.add(12, 12, 7),
    a.str_w(31, 2, LINE),
    a.ERET,
]


def run_sliced(board: Board, stops: list[int]) -> Stop:
    """Run to power-off with a stop at each of the icounts given."""
    for at in sorted(stops):
        stop = board.cpu.run(at)
        if stop.kind is not StopKind.LIMIT:
            return stop
        assert stop.icount == at
    return board.cpu.run(FOREVER)


@cache
def finished_loop() -> tuple[Any, ...]:
    """Fingerprint of a board on which ``counting_loop(40)`` ran to its end in one go."""
    board = Board(counting_loop(40), vectors=vector_table(irq=IRQ_HANDLER))
    assert board.cpu.run(FOREVER).kind is StopKind.POWER_OFF
    assert board.cpu.read_register("x10") == 40
    return board.fingerprint()
