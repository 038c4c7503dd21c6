"""Traps on RISC-V: their causes, places and counts, accesses to nowhere, counters; what lies outside of a context."""

from __future__ import annotations

import pytest

from tests.engine.cpu import riscv64_assembler as a
from tests.engine.cpu.riscv64_board import (
    DATA,
    DEVICE,
    FOREVER,
    HOLE,
    RAM,
    RiscvBoard,
    power_off,
)
from tests.engine.cpu.riscv64_programs import (
    NOTES,
    PROLOGUE,
    prologue,
    trap_board,
)
from timevm.engine.cpu.base import StopKind

LOAD_ACCESS, STORE_MISALIGNED, STORE_ACCESS = 5, 6, 7


def test_an_environment_call_counts_once_and_comes_back() -> None:
    board = trap_board(
        a.ECALL,
        a.c_addi(1, 1),
        *power_off(),
        handler=[a.csrr(13, "mcause"), a.csrr(14, "mepc"), a.addi(14, 14, 4), a.csrw("mepc", 14), a.MRET],
    )
    stop = board.cpu.run(FOREVER)
    assert (board.x(13), board.x(1)) == (11, 1)
    assert stop.icount == PROLOGUE + 1 + 5 + 1 + 5


@pytest.mark.parametrize(
    ("instruction", "cause"),
    [(a.EBREAK, 3), (a.C_EBREAK, 3), (a.C_ILLEGAL, 2), (0xFFFF_FFFF, 2), (a.csrr(1, "hpmcounter3") | 0x3F0 << 20, 2)],
    ids=["ebreak", "c.ebreak", "zeros", "ones", "no such register"],
)
@pytest.mark.parametrize("step", [1, FOREVER])
def test_instructions_that_trap(instruction: int, cause: int, step: int) -> None:
    board = trap_board(a.NOP, a.C_NOP, instruction, a.NOP)
    while (stop := board.cpu.run(board.cpu.icount + step)).kind is StopKind.LIMIT:
        pass
    assert board.x(13) == cause
    assert board.x(14) == RAM + 4 * PROLOGUE + 6
    assert stop.icount == PROLOGUE + 3 + NOTES


def test_the_engine_goes_on_after_a_break() -> None:
    """Unicorn takes EBREAK for an error of its own: accesses to nowhere would not be seen behind it."""
    board = trap_board(
        *a.load_constant(2, HOLE),
        a.EBREAK,
        a.load(1, 2),
        handler=[
            a.csrr(13, "mcause"), a.csrr(14, "mepc"), a.addi(14, 14, 4), a.csrw("mepc", 14), a.add(16, 16, 13),
            a.addi(17, 17, 1), a.addi(18, 0, 2), a.branch(4, 17, 18, 8), a.jal(0, 8), a.MRET, *power_off(),
        ],
    )  # fmt: skip
    assert board.cpu.run(FOREVER).kind is StopKind.POWER_OFF
    assert board.x(16) == 3 + LOAD_ACCESS


NOWHERE_ACCESSES = {
    "ld": ([a.load(1, 2, -8)], LOAD_ACCESS, -8),
    "sd": ([a.store(1, 2, 16)], STORE_ACCESS, 16),
    "sb": ([a.store(1, 2, -3, 0)], STORE_ACCESS, -3),
    "fld": ([a.float_load(1, 2, 24)], LOAD_ACCESS, 24),
    "fsw": ([a.float_store(1, 2, -40, 2)], STORE_ACCESS, -40),
    "amoadd": ([a.atomic(0, 1, 2, 3)], STORE_ACCESS, 0),
    "lr": ([a.atomic(2, 1, 2, 0)], LOAD_ACCESS, 0),
    "c.ld": ([a.c_mv(8, 2), a.c_ld(9, 8, 0xC8)], LOAD_ACCESS, 0xC8),
    "c.sd": ([a.c_mv(8, 2), a.c_sd(9, 8, 0x38)], STORE_ACCESS, 0x38),
    "c.lw": ([a.c_mv(8, 2), a.c_lw(9, 8, 0x64)], LOAD_ACCESS, 0x64),
    "c.sw": ([a.c_mv(8, 2), a.c_sw(9, 8, 0x1C)], STORE_ACCESS, 0x1C),
    "c.ldsp": ([a.c_ldsp(9, 0x1E8)], LOAD_ACCESS, 0x1E8),
    "c.sdsp": ([a.c_sdsp(9, 0x1D8)], STORE_ACCESS, 0x1D8),
}


@pytest.mark.parametrize("name", NOWHERE_ACCESSES)
def test_nothing_at_a_physical_address_is_an_access_fault(name: str) -> None:
    access, cause, offset = NOWHERE_ACCESSES[name]
    enable_floats = [*a.load_constant(9, 1 << 13), a.csrrs(0, "mstatus", 9)]
    before = [*enable_floats, *a.load_constant(2, HOLE), a.NOP, *access[:-1]]
    board = trap_board(*before, access[-1], a.NOP)
    stop = board.cpu.run(FOREVER)
    assert (board.x(13), board.x(15)) == (cause, HOLE + offset)
    assert board.x(14) == RAM + len(a.code(*prologue(), *before))
    assert stop.icount == PROLOGUE + len(before) + 1 + NOTES


@pytest.mark.parametrize("target", [HOLE, DEVICE + 0x100], ids=["nothing", "device"])
def test_a_fetch_from_where_no_code_is_is_an_access_fault(target: int) -> None:
    board = trap_board(*a.load_constant(2, target), a.jalr(0, 2))
    stop = board.cpu.run(FOREVER)
    assert (board.x(13), board.x(14), board.x(15)) == (1, target, target)
    assert stop.icount == PROLOGUE + 5 + NOTES


def test_a_misaligned_atomic_access_is_a_store_that_is_misaligned() -> None:
    board = trap_board(*a.load_constant(2, DATA + 1), a.atomic(0, 1, 2, 3), a.NOP)
    board.cpu.run(FOREVER)
    assert (board.x(13), board.x(15)) == (STORE_MISALIGNED, DATA + 1)


@pytest.mark.parametrize("step", [1, 2, 3, 5, FOREVER])
def test_a_reservation_is_part_of_the_state(step: int) -> None:
    """LR and SC with stops, and a move to another CPU, between them."""
    program = a.code(
        *a.load_constant(2, DATA),
        a.addi(1, 0, 20),
        a.atomic(2, 3, 2, 0),
        a.c_addi(3, 3),
        a.atomic(3, 4, 2, 3),
        a.add(5, 5, 4),
        a.c_addi(1, -1),
        a.bne(1, 0, -16),
        a.atomic(3, 6, 2, 3),  # nothing is reserved any longer
        *power_off(),
    )
    board = RiscvBoard(program)
    while (stop := board.cpu.run(board.cpu.icount + step)).kind is StopKind.LIMIT:
        other = RiscvBoard(program)
        board.copy_to(other)
        board = other
    assert stop.kind is StopKind.POWER_OFF
    assert (board.number(DATA), board.x(5), board.x(6)) == (60, 0, 1)


@pytest.mark.parametrize("step", [1, 2, FOREVER])
def test_floating_point_flags_and_rounding_are_part_of_the_state(step: int) -> None:
    """1/3 is inexact, 1/0 divides by zero; rounded up and down by ``frm``."""
    program = a.code(
        *a.load_constant(9, 1 << 13),
        a.csrrs(0, "mstatus", 9),
        a.addi(1, 0, 1),
        a.addi(2, 0, 3),
        a.floating(0x69, 1, 1, 2),  # fcvt.d.l f1, x1
        a.floating(0x69, 2, 2, 2),
        a.addi(3, 0, 3),
        a.csrw("frm", 3),  # up
        a.floating(0x0D, 3, 1, 2),
        a.csrr(10, "fflags"),
        a.addi(3, 0, 2),
        a.csrw("frm", 3),  # down
        a.floating(0x0D, 4, 1, 2),
        a.csrw("fflags", 0),
        a.floating(0x0D, 5, 1, 0),
        a.csrr(11, "fcsr"),
        *power_off(),
    )
    board = RiscvBoard(program)
    while (stop := board.cpu.run(board.cpu.icount + step)).kind is StopKind.LIMIT:
        other = RiscvBoard(program)
        board.copy_to(other)
        board = other
    assert stop.kind is StopKind.POWER_OFF
    assert (board.x(10), board.x(11)) == (1, 2 << 5 | 8)
    third = 0x3FD5_5555_5555_5555
    assert (board.cpu.read_register("f3"), board.cpu.read_register("f4")) == (third + 1, third)
    assert (board.cpu.read_register("fflags"), board.cpu.read_register("frm")) == (8, 2)


def test_counters_are_virtual_time() -> None:
    program = a.code(
        a.csrr(1, "cycle"), a.NOP, a.csrr(2, "instret"), a.csrr(3, "time"), a.csrr(4, "mcycle"), a.jal(0, 0)
    )
    board = RiscvBoard(program)
    board.cpu.set_warp(5000)
    board.cpu.run(6)
    assert [board.x(number) for number in range(1, 5)] == [0, 2, (3 * 8 + 5000) // 100, 4]
    assert board.cpu.read_register("time") == (6 * 8 + 5000) // 100
    assert board.cpu.read_register("cycle") == 6


def test_no_counter_can_be_stopped() -> None:
    """Unicorn takes mcountinhibit for mcounteren."""
    program = [a.addi(1, 0, 7), a.csrw("mcounteren", 1), a.addi(1, 0, -1), a.csrw("mcountinhibit", 1)]
    board = RiscvBoard(a.code(*program, a.csrr(2, "mcountinhibit"), a.csrr(3, "mcounteren"), a.csrr(4, "mcycle")))
    board.cpu.run(7)
    assert [board.x(number) for number in (2, 3, 4)] == [0, 7, 6]


@pytest.mark.parametrize(("machine", "supervisor"), [(0, 0), (7, 0), (0, 7), (7, 7)])
@pytest.mark.parametrize("mode", [0, 1])
def test_counters_are_read_by_whom_they_are_shown_to(machine: int, supervisor: int, mode: int) -> None:
    program = [
        a.addi(1, 0, machine),
        a.csrw("mcounteren", 1),
        a.addi(1, 0, supervisor),
        a.csrw("scounteren", 1),
        *a.load_constant(1, RAM + 4 * (PROLOGUE + 4 + 4 + 1 + 4 + 2)),
        a.csrw("mepc", 1),
        *a.load_constant(1, mode << 11),
        a.csrw("mstatus", 1),
        a.MRET,
        a.csrr(2, "time"),
        a.ECALL,
    ]
    board = trap_board(*program)
    board.cpu.run(FOREVER)
    shown = machine == 7 and (mode == 1 or supervisor == 7)
    assert board.x(13) == ((8 + mode) if shown else 2)
