"""The RISC-V CPU on small programs: exact stops wherever, interrupts, waiting, devices."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.cpu import riscv64_assembler as a
from tests.engine.cpu.device import COUNTER, LINE, OFF
from tests.engine.cpu.riscv64_board import DEVICE, FOREVER, HANDLER, RAM, RiscvBoard, power_off, run_sliced
from tests.engine.cpu.riscv64_programs import (
    MEIP,
    NOTES,
    PROLOGUE,
    finished_loop,
    loop_board,
    trap_board,
)
from timevm.engine.cpu.base import StopKind
from timevm.engine.cpu.riscv64 import Riscv64Cpu
from timevm.errors import UserError


@pytest.fixture(scope="module")
def reference() -> tuple[Any, ...]:
    return finished_loop()


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


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UserError, match="unable to find CPU model 'foo'"):
        Riscv64Cpu("foo", time_shift=3, seed=1)


def test_a_kick_stops_an_endless_loop() -> None:
    board = RiscvBoard(a.code(a.jal(0, 0)))
    board.cpu.kick()
    stop = board.cpu.run(FOREVER)
    assert stop.kind is StopKind.KICK and 0 < stop.icount < 1 << 20


def test_code_that_ran_is_noted() -> None:
    board = RiscvBoard(a.code(a.NOP, a.jal(0, 0x400)))
    trace = board.cpu.trace_code()
    board.write(RAM + 0x404, a.code(a.jal(0, 0)))
    board.cpu.run(10)
    taken = trace.take()
    assert taken.holds(RAM) and taken.holds(RAM + 0x404)
    assert not taken.holds(RAM + 0x200)


def test_an_error_in_a_device_comes_out_of_run() -> None:
    board = RiscvBoard(a.code(*a.load_constant(2, DEVICE), a.load(1, 2, COUNTER, 2), a.jal(0, 0)))

    class Broken:
        def read(self, offset: int, size: int) -> int:
            raise ValueError("broken device")

        def write(self, offset: int, size: int, value: int) -> None: ...

    board.window.handler = Broken()
    with pytest.raises(ValueError, match="broken device"):
        board.cpu.run(FOREVER)
