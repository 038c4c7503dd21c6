"""The RISC-V CPU with its supervisor's firmware in Python: calls, S-mode from reset on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.cpu import riscv64_assembler as a
from tests.engine.cpu.riscv64_board import (
    FOREVER,
    HANDLER,
    RAM,
    RiscvBoard,
    power_off,
)
from timevm.engine.cpu.base import StopKind
from timevm.engine.cpu.sbi import Arguments, SbiOutcome

TOP = (1 << 64) - 1


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
