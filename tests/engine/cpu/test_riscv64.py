"""The RISC-V CPU on small programs: exact stops, traps, interrupts, time, firmware, changed code, registers."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.cpu import riscv64_assembler as a
from tests.engine.cpu.riscv64_board import (
    COUNTER,
    DATA,
    DEVICE,
    FOREVER,
    HANDLER,
    HOLE,
    LINE,
    OFF,
    RAM,
    RiscvBoard,
    power_off,
    run_sliced,
)
from timevm.engine.cpu.base import StopKind, WatchKind, Watchpoint
from timevm.engine.cpu.sbi import Arguments, SbiOutcome
from timevm.errors import UserError

TOP = (1 << 64) - 1
MEIP = 1 << 11
LOAD_ACCESS, STORE_MISALIGNED, STORE_ACCESS = 5, 6, 7


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


@pytest.fixture(scope="module")
def reference() -> tuple[Any, ...]:
    board = loop_board()
    assert board.cpu.run(FOREVER).kind is StopKind.POWER_OFF
    assert board.x(10) == 40
    return board.fingerprint()


def test_stops_at_every_single_instruction(reference: tuple[Any, ...]) -> None:
    board = loop_board()
    while (stop := board.cpu.run(board.cpu.icount + 1)).kind is StopKind.LIMIT:
        assert stop.pc == board.cpu.read_register("pc")
    assert stop.kind is StopKind.POWER_OFF
    assert board.fingerprint() == reference


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 640), max_size=40))
def test_slicing_changes_nothing(reference: tuple[Any, ...], stops: list[int]) -> None:
    board = loop_board()
    assert run_sliced(board, stops).kind is StopKind.POWER_OFF
    assert board.fingerprint() == reference


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 640), min_size=1, max_size=5))
def test_restored_anywhere_in_another_cpu(reference: tuple[Any, ...], stops: list[int]) -> None:
    board = loop_board()
    for at in sorted(stops):
        if board.cpu.run(at).kind is StopKind.POWER_OFF:
            break
        other = loop_board()
        board.copy_to(other)
        board = other
    else:
        assert board.cpu.run(FOREVER).kind is StopKind.POWER_OFF
    assert board.fingerprint() == reference


def test_a_state_does_not_say_how_the_way_there_was_sliced() -> None:
    for at in range(20, 120, 3):
        whole, sliced = loop_board(), loop_board()
        whole.cpu.run(at)
        while sliced.cpu.icount < at:
            sliced.cpu.run(sliced.cpu.icount + 1)
        assert whole.cpu.state() == sliced.cpu.state(), f"after {at} instructions"


@pytest.mark.parametrize(
    "setting", [{"exit_checks": True}, {"translation_buffer": 8 << 20}], ids=lambda setting: next(iter(setting))
)
def test_speed_settings_change_nothing(reference: tuple[Any, ...], setting: dict[str, Any]) -> None:
    board = loop_board(**setting)
    rng = random.Random(3)
    while board.cpu.run(board.cpu.icount + rng.randint(1, 50)).kind is StopKind.LIMIT:
        if rng.random() < 0.3:
            board.cpu.flush_translations()
    assert board.fingerprint() == reference


def test_blocks_of_one_instruction_change_nothing(reference: tuple[Any, ...]) -> None:
    board = loop_board()
    board.cpu.limit_blocks(1)
    assert board.cpu.run(FOREVER).kind is StopKind.POWER_OFF
    assert board.fingerprint() == reference


def test_an_access_sees_its_own_icount() -> None:
    board = RiscvBoard(a.code(*a.load_constant(2, DEVICE), a.NOP, a.load(1, 2, COUNTER, 2), a.NOP, *power_off()))
    board.cpu.run(FOREVER)
    assert board.device.log[0] == ("read", 5, COUNTER, 4)


def test_a_stop_that_a_device_asks_for_comes_before_the_next_instruction() -> None:
    board = RiscvBoard(a.code(*a.load_constant(2, DEVICE), a.addi(3, 0, 42), a.store(3, 2, OFF, 2), a.addi(3, 0, 1)))
    stop = board.cpu.run(FOREVER)
    assert (stop.kind, stop.icount, stop.exit_code) == (StopKind.POWER_OFF, 6, 42)
    assert board.x(3) == 42


def test_an_interrupt_raised_by_an_access_is_taken_before_the_next_instruction() -> None:
    board = trap_board(*a.load_constant(2, DEVICE), a.addi(4, 0, 1), a.NOP, a.store(4, 2, LINE, 2), a.NOP)
    stop = board.cpu.run(FOREVER)
    assert board.x(13) == 1 << 63 | 11
    assert board.x(14) == RAM + 4 * (PROLOGUE + 7)
    assert stop.icount == PROLOGUE + 7 + NOTES


@pytest.mark.parametrize("unmask", ["mie", "mstatus"])
def test_an_interrupt_that_was_pending_is_taken_when_it_is_enabled(unmask: str) -> None:
    """Before the instruction behind the one that enables it, as a run of blocks and of single steps."""
    program = [
        *a.load_constant(9, HANDLER),
        a.csrw("mtvec", 9),
        *a.load_constant(9, MEIP),
        *([a.csrsi("mstatus", 8)] if unmask == "mie" else [a.csrw("mie", 9)]),
        a.NOP,
        a.NOP,
        a.csrw("mie", 9) if unmask == "mie" else a.csrsi("mstatus", 8),
        a.NOP,
        a.NOP,
    ]
    for step in (1, FOREVER):
        board = RiscvBoard(a.code(*program), handler=a.code(a.csrr(14, "mepc"), *power_off()))
        board.cpu.set_interrupt("meip", True)
        while board.cpu.run(board.cpu.icount + step).kind is StopKind.LIMIT:
            pass
        assert board.x(14) == RAM + 4 * (len(program) - 2)


def test_interrupts_come_by_their_priority() -> None:
    """External before software before timer (Privileged specification 3.1.9)."""
    order = []
    board = RiscvBoard(
        a.code(*a.load_constant(9, HANDLER), a.csrw("mtvec", 9), *a.load_constant(9, 0xAAA), a.csrw("mie", 9),
               a.csrsi("mstatus", 8), a.jal(0, 0)),
        handler=a.code(a.csrr(13, "mcause"), a.NOP, a.MRET),
    )  # fmt: skip
    board.cpu.run(10)
    for line in ("stip", "mtip", "ssip", "meip", "msip", "seip"):
        board.cpu.set_interrupt(line, True)
    lines = {11: "meip", 3: "msip", 7: "mtip", 9: "seip", 1: "ssip", 5: "stip"}
    for _ in lines:
        board.cpu.set_breakpoints(frozenset({HANDLER + 4}))
        assert board.cpu.run(board.cpu.icount + 100).kind is StopKind.BREAKPOINT
        order.append(board.x(13) & 0xFF)
        board.cpu.set_interrupt(lines[order[-1]], False)
    assert order == list(lines)


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


def test_waiting_for_an_interrupt() -> None:
    """WFI ends when an enabled interrupt is pending, masked as a whole or not; one that is not enabled leaves it."""
    board = RiscvBoard(a.code(*a.load_constant(9, MEIP), a.csrw("mie", 9), a.WFI, a.addi(1, 1, 1), *power_off()))
    stop = board.cpu.run(FOREVER)
    assert (stop.kind, stop.icount) == (StopKind.IDLE, 6)
    assert board.cpu.run(FOREVER).kind is StopKind.IDLE
    board.cpu.set_interrupt("stip", True)
    assert not board.cpu.interrupt_pending()
    assert board.cpu.run(FOREVER).kind is StopKind.IDLE
    board.cpu.set_interrupt("meip", True)
    assert board.cpu.interrupt_pending()
    stop = board.cpu.run(FOREVER)
    assert (stop.kind, stop.icount, board.x(1)) == (StopKind.POWER_OFF, 6 + 1 + 5, 1)


def test_waiting_with_an_interrupt_pending_goes_on() -> None:
    board = RiscvBoard(a.code(*a.load_constant(9, MEIP), a.csrw("mie", 9), a.WFI, *power_off()))
    board.cpu.set_interrupt("meip", True)
    stop = board.cpu.run(FOREVER)
    assert (stop.kind, stop.icount) == (StopKind.POWER_OFF, 6 + 5)


@pytest.mark.parametrize("step", [1, 3, FOREVER])
@pytest.mark.parametrize("fence", [a.FENCE_I, a.NOP], ids=["fence.i", "no fence"])
def test_code_that_was_changed_is_seen(step: int, fence: int) -> None:
    """A function is run, patched through a store, and run again (32 times, so that its block is hot)."""
    function = RAM + 0x800
    body = [a.jalr(1, 2), *a.load_constant(6, 1 << 20), a.add(3, 3, 6), a.store(3, 2, 0, 2), fence, a.addi(5, 5, -1)]
    program = a.code(
        *a.load_constant(2, function),
        *a.load_constant(3, a.addi(4, 4, 1)),
        a.addi(5, 0, 32),
        *body,
        a.bne(5, 0, -4 * len(body)),
        *power_off(),
    )
    board = RiscvBoard(program)
    board.write(function, a.code(a.addi(4, 4, 1), a.jalr(0, 1)))
    while (stop := board.cpu.run(board.cpu.icount + step)).kind is StopKind.LIMIT:
        pass
    assert stop.kind is StopKind.POWER_OFF
    assert board.x(4) == sum(range(1, 33))


@pytest.mark.parametrize("step", [1, 3, FOREVER])
def test_a_store_into_its_own_block(step: int) -> None:
    """The instruction behind the store is the new one."""
    target = 4 * (4 + 4 + 1 + 1)
    program = a.code(
        *a.load_constant(2, RAM + target),
        *a.load_constant(3, a.addi(4, 4, 100)),
        a.addi(6, 6, 1),
        a.store(3, 2, 0, 2),
        a.addi(4, 4, 1),
        a.addi(5, 5, 1),
        *power_off(),
    )
    board = RiscvBoard(program)
    while (stop := board.cpu.run(board.cpu.icount + step)).kind is StopKind.LIMIT:
        pass
    assert (board.x(4), board.x(5), board.x(6)) == (100, 1, 1)
    assert stop.icount == 12 + 5


def test_code_that_a_device_writes() -> None:
    board = RiscvBoard(a.code(a.addi(1, 1, 1), a.jal(0, -4)))
    board.cpu.run(1000)
    board.write(RAM, a.code(a.addi(2, 2, 1)))
    board.cpu.code_changed(RAM, 4)
    board.cpu.run(2000)
    assert (board.x(1), board.x(2)) == (500, 500)


# ---- firmware


def firmware_board(
    *program: int, answer: SbiOutcome | None = None, **settings: Any
) -> tuple[RiscvBoard, list[tuple[int, int, Arguments]]]:
    calls: list[tuple[int, int, Arguments]] = []

    def sbi(extension: int, function: int, arguments: Arguments) -> SbiOutcome:
        calls.append((extension, function, arguments))
        return answer or SbiOutcome(-3, 77)

    return RiscvBoard(a.code(*program), sbi=sbi, line="seip", **settings), calls


def test_firmware_calls() -> None:
    program = [*(a.addi(10 + number, 0, number + 1) for number in range(8)), a.ECALL, a.addi(1, 1, 1), *power_off()]
    board, calls = firmware_board(*program)
    stop = board.cpu.run(FOREVER)
    assert calls == [(8, 7, (1, 2, 3, 4, 5, 6))]
    assert (board.x(10), board.x(11), board.x(12), board.x(1)) == (TOP - 2, 77, 3, 1)
    assert stop.icount == 8 + 1 + 1 + 5


def test_a_legacy_call_leaves_the_second_register() -> None:
    board, _ = firmware_board(a.addi(11, 0, 9), a.ECALL, *power_off(), answer=SbiOutcome(0, None))
    board.cpu.run(FOREVER)
    assert (board.x(10), board.x(11)) == (0, 9)


@pytest.mark.parametrize("kind", [StopKind.POWER_OFF, StopKind.RESET])
def test_firmware_ends_the_run(kind: StopKind) -> None:
    board, _ = firmware_board(a.NOP, a.ECALL, a.NOP, answer=SbiOutcome(stop=kind))
    stop = board.cpu.run(FOREVER)
    assert (stop.kind, stop.icount, stop.pc) == (kind, 2, RAM + 8)


def test_firmware_suspends() -> None:
    board, _ = firmware_board(
        a.addi(1, 0, 0x200), a.csrw("sie", 1), a.ECALL, *power_off(), answer=SbiOutcome(wait=True)
    )
    stop = board.cpu.run(FOREVER)
    assert (stop.kind, stop.icount) == (StopKind.IDLE, 3)
    board.cpu.set_interrupt("seip", True)
    assert board.cpu.run(FOREVER).kind is StopKind.POWER_OFF


def test_with_firmware_a_reset_enters_the_supervisor_with_its_traps() -> None:
    program = [*a.load_constant(9, HANDLER), a.csrw("stvec", 9), a.csrr(1, "time"), a.EBREAK]
    board, calls = firmware_board(*program)
    board.write(HANDLER, a.code(a.csrr(13, "scause"), a.csrr(14, "sepc"), *power_off()))
    board.cpu.reset(RAM, [5, 0x8720_0000])
    assert board.cpu.read_register("priv") == 1
    assert (board.x(10), board.x(11)) == (5, 0x8720_0000)
    assert board.cpu.run(FOREVER).kind is StopKind.POWER_OFF
    assert (board.x(13), board.x(14)) == (3, RAM + 4 * 6)
    assert not calls


def test_the_supervisor_raises_and_lowers_its_software_interrupt() -> None:
    program = [
        *a.load_constant(9, HANDLER),
        a.csrw("stvec", 9),
        a.addi(9, 0, 2),
        a.csrw("sie", 9),
        a.csrsi("sstatus", 2),
        a.csrsi("sip", 2),
        a.addi(1, 1, 1),
        *power_off(),
    ]
    for step in (1, FOREVER):
        board, _ = firmware_board(*program)
        board.write(HANDLER, a.code(a.csrr(14, "sepc"), a.csrrc(15, "sip", 9), a.addi(2, 2, 1), a.SRET))
        while board.cpu.run(board.cpu.icount + step).kind is StopKind.LIMIT:
            pass
        assert (board.x(14), board.x(15), board.x(2), board.x(1)) == (RAM + 4 * 9, 2, 1, 1)


def test_what_a_call_asks_a_device_for_is_looked_at_at_once() -> None:
    def sbi(extension: int, function: int, arguments: Arguments) -> SbiOutcome:
        board.cpu.ask_attention()
        return SbiOutcome()

    board = RiscvBoard(a.code(a.ECALL, a.jal(0, 0)), sbi=sbi)
    stop = board.cpu.run(FOREVER)
    assert (stop.kind, stop.icount) == (StopKind.KICK, 1)
    assert board.cpu.run(100).kind is StopKind.LIMIT


# ---- stops


def test_breakpoints_stop_before_and_are_passed_on_leaving() -> None:
    place = LOOP_STORE
    board = loop_board()
    board.cpu.run(3)
    board.cpu.set_breakpoints(frozenset({place}))
    icounts = []
    while (stop := board.cpu.run(FOREVER)).kind is StopKind.BREAKPOINT:
        assert stop.pc == place
        icounts.append(stop.icount)
    assert len(icounts) == 40 and icounts == sorted(set(icounts))
    again = loop_board()
    again.cpu.set_breakpoints(frozenset({place}))
    collected = again.cpu.run_collecting(icounts[30])
    assert collected.stop.kind is StopKind.LIMIT and collected.complete
    assert [(stop.kind, stop.icount, stop.pc) for stop in collected.passed] == [
        (StopKind.BREAKPOINT, icount, place) for icount in icounts[:30]
    ]


@pytest.mark.parametrize(
    ("kind", "hits"), [(WatchKind.WRITE, 40), (WatchKind.READ, 0), (WatchKind.ACCESS, 40)], ids=lambda v: str(v)
)
def test_watchpoints_stop_before_the_access(reference: tuple[Any, ...], kind: WatchKind, hits: int) -> None:
    board = loop_board()
    board.cpu.set_watchpoints(frozenset({Watchpoint(DATA + 3, 1, kind)}))
    values = []
    while (stop := board.cpu.run(FOREVER)).kind is StopKind.WATCHPOINT:
        assert (stop.pc, stop.address, stop.is_write) == (LOOP_STORE, DATA + 3, True)
        values.append(board.number(DATA))
    assert stop.kind is StopKind.POWER_OFF
    assert len(values) == hits
    assert not values or values[0] == 0
    board.cpu.set_watchpoints(frozenset())
    assert board.fingerprint() == reference


@pytest.mark.parametrize("offset", [-7, -4, -1, 0, 1, 5])
@pytest.mark.parametrize("base", [DATA + 0x100, DATA + 0x1000], ids=["in a page", "across two"])
def test_a_watched_byte_is_met_by_a_store_that_is_not_aligned(offset: int, base: int) -> None:
    program = a.code(*a.load_constant(2, base), a.addi(1, 0, -1), a.store(1, 2, offset), a.jal(0, 0))
    board = RiscvBoard(program)
    board.cpu.set_watchpoints(frozenset({Watchpoint(base, 1, WatchKind.WRITE)}))
    stop = board.cpu.run(100)
    meets = offset <= 0
    assert (stop.kind is StopKind.WATCHPOINT) is meets
    if meets:
        assert (stop.address, stop.icount) == (base, 5)
        assert board.read(base - 16, 32) == bytes(32)
    board.cpu.run(100)
    assert board.read(base + offset, 8) == b"\xff" * 8


def test_loads_are_watched() -> None:
    program = a.code(*a.load_constant(2, DATA), a.NOP, a.load(1, 2, 4, 2), a.load(1, 2, 8), a.jal(0, 0))
    board = RiscvBoard(program)
    board.cpu.set_watchpoints(frozenset({Watchpoint(DATA + 10, 2, WatchKind.READ)}))
    stop = board.cpu.run(100)
    assert (stop.kind, stop.address, stop.icount, stop.is_write) == (StopKind.WATCHPOINT, DATA + 10, 6, False)
    assert board.cpu.run(100).kind is StopKind.LIMIT


def test_an_atomic_access_that_is_stopped_has_not_begun() -> None:
    board = RiscvBoard(a.code(*a.load_constant(2, DATA), a.addi(3, 0, 5), a.atomic(0, 1, 2, 3), a.jal(0, 0)))
    board.write(DATA, (37).to_bytes(8, "little"))
    board.cpu.set_watchpoints(frozenset({Watchpoint(DATA, 8, WatchKind.WRITE)}))
    stop = board.cpu.run(100)
    assert (stop.kind, stop.icount, board.x(1), board.number(DATA)) == (StopKind.WATCHPOINT, 5, 0, 37)
    board.cpu.run(100)
    assert (board.x(1), board.number(DATA)) == (37, 42)


# ---- registers and the rest


def test_registers_by_name() -> None:
    board = RiscvBoard(a.code(a.NOP))
    for name, value in (
        ("x31", 5), ("f31", 1 << 63 | 9), ("stvec", HANDLER), ("satp", 8 << 60 | 5), ("mscratch", TOP), ("pc", RAM + 8),
        ("fcsr", 0x61), ("mideleg", 0x222), ("sip", 2), ("mie", 0x222), ("priv", 1), ("sepc", RAM), ("priv", 3),
    ):  # fmt: skip
        board.cpu.write_register(name, value)
        assert board.cpu.read_register(name) == value, name
    board.cpu.write_register("x0", 7)
    assert board.x(0) == 0
    assert {register.name for register in board.cpu.registers} >= {"x1", "pc", "f0", "fflags", "mstatus", "time"}
    for register in board.cpu.registers:
        board.cpu.read_register(register.name)
    for name, value, message in (
        ("x99", 0, "unknown register 'x99'"), ("time", 1, "cannot be written"), ("priv", 2, "no privilege mode 2"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            board.cpu.write_register(name, value)
    with pytest.raises(UserError, match="unknown register 'x99'"):
        board.cpu.read_register("x99")


def test_an_unknown_model_is_refused() -> None:
    from timevm.engine.cpu.riscv64 import Riscv64Cpu

    with pytest.raises(UserError, match="unable to find CPU model 'foo'"):
        Riscv64Cpu("foo", time_shift=3, seed=1)


def test_a_kick_stops_an_endless_loop() -> None:
    board = RiscvBoard(a.code(a.jal(0, 0)))
    board.cpu.kick()
    stop = board.cpu.run(FOREVER)
    assert stop.kind is StopKind.KICK and 0 < stop.icount < 1 << 20


def test_code_that_ran_is_noted() -> None:
    from timevm.engine.cpu.code_trace import may_have_run

    board = RiscvBoard(a.code(a.NOP, a.jal(0, 0x400)))
    trace = board.cpu.trace_code()
    board.write(RAM + 0x404, a.code(a.jal(0, 0)))
    board.cpu.run(10)
    taken = trace.take()
    assert may_have_run(taken, RAM) and may_have_run(taken, RAM + 0x404)
    assert not may_have_run(taken, RAM + 0x200)


def test_an_error_in_a_device_comes_out_of_run() -> None:
    board = RiscvBoard(a.code(*a.load_constant(2, DEVICE), a.load(1, 2, COUNTER, 2), a.jal(0, 0)))

    class Broken:
        def read(self, offset: int, size: int) -> int:
            raise ValueError("broken device")

        def write(self, offset: int, size: int, value: int) -> None: ...

    board.window.handler = Broken()
    with pytest.raises(ValueError, match="broken device"):
        board.cpu.run(FOREVER)
