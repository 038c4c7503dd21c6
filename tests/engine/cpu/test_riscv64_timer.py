"""The supervisor's own timer (Sstc): exact at its deadline, idle until then, state, and beside the firmware's."""

from __future__ import annotations

import pytest

from tests.engine.cpu import riscv64_assembler as a
from tests.engine.cpu.riscv64_board import FOREVER, HANDLER, RAM, RiscvBoard, power_off
from timevm.engine.cpu.base import Stop, StopKind
from timevm.engine.cpu.riscv64 import NS_PER_TICK
from timevm.engine.cpu.sbi import Arguments, Extension, SbiOutcome

#: of 8 ns
INSTRUCTIONS_PER_TICK = NS_PER_TICK / 8
NEVER = (1 << 64) - 1
NOTES = [a.csrr(11, "sepc"), a.csrr(12, "time"), a.csrr(13, "scause"), *power_off()]
TIMER_ENABLED = 1 << 5


def board_of(*program: int, handler: list[int] = NOTES) -> RiscvBoard:
    """x8 is stimecmp's next value, x9 a bit of sie; the firmware does nothing."""

    def sbi(extension: int, function: int, arguments: Arguments) -> SbiOutcome:
        return SbiOutcome()

    board = RiscvBoard(a.code(*program), sbi=sbi)
    board.write(HANDLER, a.code(*handler))
    for name, value in (("stvec", HANDLER), ("x8", 80), ("x9", TIMER_ENABLED)):
        board.cpu.write_register(name, value)
    return board


#: sets the timer, unmasks it, and counts
COUNTING = (
    a.csrw("stimecmp", 8),
    a.csrw("sie", 9),
    a.csrsi("sstatus", 2),
    a.addi(5, 5, 1),
    a.xor(6, 6, 5),
    a.jal(0, -8),
)


def finish(board: RiscvBoard, step: int = FOREVER) -> Stop:
    while (stop := board.cpu.run(board.cpu.icount + step)).kind is StopKind.LIMIT:
        pass
    return stop


@pytest.mark.parametrize("step", [1, 7, 64, FOREVER])
def test_it_fires_exactly_at_its_deadline(step: int) -> None:
    """80 counts of 100 ns are 1000 instructions of 8 ns."""
    board = board_of(*COUNTING)
    stop = finish(board, step)
    assert board.x(13) == 1 << 63 | 5
    assert board.x(12) == 80
    assert stop.icount == 1000 + 3 + 5
    whole = board_of(*COUNTING)
    finish(whole)
    assert board.fingerprint() == whole.fingerprint()


@pytest.mark.parametrize("at", [0, 1, 2, 3, 500, 999, 1000, 1001])
def test_it_is_part_of_the_state(at: int) -> None:
    board, other, whole = (board_of(*COUNTING) for _ in range(3))
    finish(whole)
    board.cpu.run(at)
    board.copy_to(other)
    finish(other)
    assert other.fingerprint() == whole.fingerprint()


def test_waiting_for_it_jumps_to_the_deadline() -> None:
    board = board_of(*COUNTING[:3], a.WFI, a.jal(0, 0))
    stop = board.cpu.run(FOREVER)
    assert (stop.kind, stop.icount) == (StopKind.IDLE, 4)
    assert board.cpu.next_timer() == 80 * NS_PER_TICK
    assert board.cpu.run(FOREVER).kind is StopKind.IDLE
    board.cpu.set_warp(80 * NS_PER_TICK - 4 * 8)
    assert board.cpu.run(FOREVER).kind is StopKind.POWER_OFF
    assert (board.x(11), board.x(12)) == (RAM + 16, 80)
    assert board.cpu.next_timer() is None


def test_a_later_time_takes_the_interrupt_back() -> None:
    program = (a.csrw("stimecmp", 0), a.csrr(1, "sip"), a.csrw("stimecmp", 8), a.csrr(2, "sip"), a.csrr(3, "stimecmp"))
    board = board_of(*program, a.jal(0, 0))
    board.cpu.run(len(program))
    assert (board.x(1), board.x(2), board.x(3)) == (TIMER_ENABLED, 0, 80)


def test_the_firmwares_timer_and_its_own_take_turns() -> None:
    """Who has set a timer last has the interrupt; the other's does not come back by itself."""
    program = [
        a.ECALL,
        a.csrr(1, "sip"),
        a.csrw("stimecmp", 8),
        a.csrr(2, "sip"),
        a.csrw("stimecmp", 0),
        a.csrr(3, "sip"),
        a.addi(17, 0, Extension.SET_TIMER),
        a.ECALL,
        a.csrr(4, "sip"),
        a.jal(0, 0),
    ]
    board = board_of(*program)
    board.cpu.set_interrupt("stip", True)
    board.cpu.run(3)
    board.cpu.set_interrupt("stip", False)
    board.cpu.set_interrupt("stip", True)  # nobody listens
    board.cpu.run(6)
    board.cpu.set_interrupt("stip", False)
    board.cpu.run(9)
    assert [board.x(number) for number in range(1, 5)] == [TIMER_ENABLED, 0, TIMER_ENABLED, 0]


def test_there_is_none_where_the_guest_is_its_own_firmware() -> None:
    board = RiscvBoard(a.code(*a.load_constant(9, HANDLER), a.csrw("mtvec", 9), a.csrr(1, "stimecmp")))
    board.write(HANDLER, a.code(a.csrr(13, "mcause"), *power_off()))
    assert board.cpu.run(FOREVER).kind is StopKind.POWER_OFF
    assert board.x(13) == 2
