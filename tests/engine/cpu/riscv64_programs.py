"""Programs of the RISC-V tests: a loop with stores, device accesses and interrupts, and what notes its traps."""

from __future__ import annotations

from typing import Any

from tests.engine.cpu import riscv64_assembler as a
from tests.engine.cpu.device import COUNTER, LINE
from tests.engine.cpu.riscv64_board import DATA, DEVICE, FOREVER, HANDLER, RAM, RiscvBoard, power_off
from timevm.engine.cpu.base import StopKind

MEIP = 1 << 11


def prologue() -> list[int]:
    """mtvec; the machine's external interrupt enabled, and interrupts on."""
    return [
        *a.load_constant(9, HANDLER),
        a.csrw("mtvec", 9),
        *a.load_constant(9, MEIP),
        a.csrw("mie", 9),
        a.csrsi("mstatus", 8),
    ]


#: what has run when ``prologue`` has, and its bytes
PROLOGUE = len(prologue())


def counting_loop(rounds: int) -> bytes:
    """x1 counts down; stores, a device read and a device write that pulses the interrupt line in mid-block."""
    body = [
        a.add(5, 5, 3),
        a.store(4, 2, LINE, 2),  # raises the interrupt in mid-block
        a.c_addi(5, 1),
        a.xor(6, 6, 5),
        a.store(6, 3),
        a.load(7, 2, COUNTER, 2),
        a.xor(6, 6, 7),
        a.c_addi(1, -1),
    ]
    size = len(a.code(*body))
    return a.code(
        *prologue(),
        *a.load_constant(2, DEVICE),
        *a.load_constant(3, DATA),
        a.addi(1, 0, rounds),
        a.addi(4, 0, 1),
        *body,
        a.bne(1, 0, -size),
        *power_off(),
    )


LOOP_STORE = RAM + len(a.code(*prologue())) + 4 * 10 + 4 + 4 + 2 + 4

#: counts in x10, notes mepc in x12, lowers the line
HANDLER_CODE = a.code(
    a.c_addi(10, 1),
    a.csrr(11, "mepc"),
    a.xor(12, 12, 11),
    a.add(12, 12, 7),
    a.store(0, 2, LINE, 2),
    a.MRET,
)


def loop_board(**settings: Any) -> RiscvBoard:
    return RiscvBoard(counting_loop(40), handler=HANDLER_CODE, **settings)


def trap_board(*program: int, handler: list[int] | None = None, **settings: Any) -> RiscvBoard:
    """Any trap notes mcause, mepc and mtval in x13, x14 and x15 and switches off."""
    notes = [a.csrr(13, "mcause"), a.csrr(14, "mepc"), a.csrr(15, "mtval"), *power_off()]
    return RiscvBoard(a.code(*prologue(), *program), handler=a.code(*(handler or notes)), **settings)


#: instructions that a trap takes to the end, its own not among them
NOTES = 3 + 5


def finished_loop() -> tuple[Any, ...]:
    """The fingerprint that every way through the loop ends with."""
    board = loop_board()
    assert board.cpu.run(FOREVER).kind is StopKind.POWER_OFF
    assert board.x(10) == 40
    return board.fingerprint()
