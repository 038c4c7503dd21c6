"""The AArch64 CPU on small programs: exact stops, exceptions, interrupts, time, firmware, caches."""

from __future__ import annotations

import ctypes
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.cpu import assembler as a
from tests.engine.cpu.aarch64_programs import (
    FOREVER,
    IRQ_HANDLER,
    counting_loop,
    finished_loop,
    power_off,
    run_sliced,
    vector_table,
)
from tests.engine.cpu.board import DEVICE, RAM, STACK, VECTORS, Board
from tests.engine.cpu.device import COUNTER, LINE
from timevm.engine.cpu import aarch64_private as private
from timevm.engine.cpu.base import StopKind
from timevm.engine.machine.ram import Ram
from timevm.errors import UserError


def test_stops_at_every_single_instruction() -> None:
    board = Board(counting_loop(40), vectors=vector_table(irq=IRQ_HANDLER))
    while (stop := board.cpu.run(board.cpu.icount + 1)).kind is StopKind.LIMIT:
        assert stop.pc == board.cpu.read_register("pc")
    assert stop.kind is StopKind.POWER_OFF
    assert board.fingerprint() == finished_loop()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 640), max_size=40))
def test_slicing_changes_nothing(stops: list[int]) -> None:
    board = Board(counting_loop(40), vectors=vector_table(irq=IRQ_HANDLER))
    assert run_sliced(board, stops).kind is StopKind.POWER_OFF
    assert board.fingerprint() == finished_loop()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 640), min_size=1, max_size=5))
def test_restored_anywhere_in_another_cpu(stops: list[int]) -> None:
    board = Board(counting_loop(40), vectors=vector_table(irq=IRQ_HANDLER))
    for at in sorted(stops):
        if board.cpu.run(at).kind is StopKind.POWER_OFF:
            break
        other = Board(counting_loop(40), vectors=vector_table(irq=IRQ_HANDLER))
        other.memory[:] = board.memory[:]
        other.cpu.restore(board.cpu.state())
        other.device.reads, other.device.log = board.device.reads, board.device.log
        other.timer_log = board.timer_log
        board = other
    else:
        assert board.cpu.run(FOREVER).kind is StopKind.POWER_OFF
    assert board.fingerprint() == finished_loop()


def test_a_state_does_not_say_how_the_way_there_was_sliced() -> None:
    for at in range(20, 120, 3):
        whole, sliced = (Board(counting_loop(40), vectors=vector_table(irq=IRQ_HANDLER)) for _ in range(2))
        whole.cpu.run(at)
        while sliced.cpu.icount < at:
            sliced.cpu.run(sliced.cpu.icount + 1)
        assert whole.cpu.state() == sliced.cpu.state(), f"after {at} instructions"


def test_what_an_exception_leaves_behind_is_no_state() -> None:
    """Nothing reads it between two instructions, and on the model `max` it depends on how code was translated."""
    board = Board(counting_loop(40), vectors=vector_table(irq=IRQ_HANDLER))
    board.cpu.run(100)
    before = board.cpu.state()
    for field in (private.SYNDROME, private.FAULT_ADDRESS):
        ctypes.c_uint64.from_address(board.cpu._env + field).value = 0x1234
    ctypes.c_uint32.from_address(board.cpu._env + private.TARGET_LEVEL).value = 3
    assert board.cpu.state() == before


@pytest.mark.parametrize(
    "setting",
    [{"exit_checks": True}, {"flat_translation": False}, {"translation_buffer": 8 << 20}],
    ids=lambda setting: next(iter(setting)),
)
def test_speed_settings_change_nothing(setting: dict[str, Any]) -> None:
    board = Board(counting_loop(40), vectors=vector_table(irq=IRQ_HANDLER), **setting)
    rng = random.Random(3)
    while board.cpu.run(board.cpu.icount + rng.randint(1, 50)).kind is StopKind.LIMIT:
        if rng.random() < 0.3:
            board.cpu.flush_translations()
    assert board.fingerprint() == finished_loop()


def test_an_access_sees_its_own_icount() -> None:
    board = Board(a.code(*a.load_constant(2, DEVICE), a.NOP, a.ldr_w(1, 2, COUNTER), a.NOP, *power_off()))
    board.cpu.run(FOREVER)
    assert board.device.log == [("read", 3, COUNTER, 4)]


def test_an_interrupt_raised_by_an_access_is_taken_before_the_next_instruction() -> None:
    program = a.code(
        *a.load_constant(9, VECTORS),
        a.msr(9, *a.VBAR_EL1),
        *a.load_constant(2, DEVICE),
        a.movz(4, 1),
        a.daif_clear(2),
        a.NOP,
        a.str_w(4, 2, LINE),
        a.NOP,
        *power_off(),
    )
    board = Board(program, vectors=vector_table(irq=[a.mrs(11, *a.ELR_EL1), *power_off()]))
    board.cpu.run(FOREVER)
    assert board.cpu.read_register("x11") == RAM + 4 * 9


def test_a_supervisor_call_counts_once_and_comes_back() -> None:
    program = a.code(*a.load_constant(9, VECTORS), a.msr(9, *a.VBAR_EL1), a.svc(5), a.add(1, 1, 1), *power_off())
    board = Board(program, vectors=vector_table(sync=[a.mrs(13, *a.ESR_EL1), a.ERET]))
    stop = board.cpu.run(FOREVER)
    assert board.cpu.read_register("x13") == 0x15 << 26 | 1 << 25 | 5
    assert board.cpu.read_register("x1") == 1
    assert stop.icount == 3 + 1 + 2 + 1 + 3


@pytest.mark.parametrize("is_write", [False, True])
def test_nothing_at_a_physical_address_is_an_external_abort(is_write: bool) -> None:
    access = a.str_(1, 2) if is_write else a.ldr(1, 2)
    program = a.code(
        *a.load_constant(9, VECTORS),
        a.msr(9, *a.VBAR_EL1),
        *a.load_constant(2, 0x3000_0000),
        a.NOP,
        access,
        a.NOP,
        *power_off(),
    )
    board = Board(program, vectors=vector_table(sync=[a.mrs(13, *a.ESR_EL1), a.mrs(14, *a.ELR_EL1), *power_off()]))
    stop = board.cpu.run(FOREVER)
    assert board.cpu.read_register("x13") == 0x25 << 26 | 1 << 25 | 1 << 10 | is_write << 6 | 0x10
    assert board.cpu.read_register("x14") == RAM + 4 * 6
    assert stop.icount == 7 + 5


def test_a_fetch_from_nowhere_is_an_instruction_abort() -> None:
    program = a.code(
        *a.load_constant(9, VECTORS), a.msr(9, *a.VBAR_EL1), *a.load_constant(2, 0x3000_0000), 0xD61F0040
    )  # br x2
    board = Board(program, vectors=vector_table(sync=[a.mrs(13, *a.ESR_EL1), a.mrs(14, *a.ELR_EL1), *power_off()]))
    stop = board.cpu.run(FOREVER)
    assert stop.kind is StopKind.POWER_OFF
    assert board.cpu.read_register("x13") >> 26 == 0x21
    assert board.cpu.read_register("x14") == 0x3000_0000
    assert stop.icount == 6 + 5


def timer_program() -> bytes:
    return a.code(
        *a.load_constant(9, VECTORS),
        a.msr(9, *a.VBAR_EL1),
        a.movz(1, 500),
        a.msr(1, *a.CNTV_CVAL_EL0),
        a.movz(1, 1),
        a.msr(1, *a.CNTV_CTL_EL0),
        a.daif_clear(2),
        # loop:
        a.add(5, 5, 1),
        a.eor(6, 6, 5),
        a.b(-2),
    )


TIMER_HANDLER = [a.mrs(11, *a.ELR_EL1), a.mrs(12, *a.CNTVCT_EL0), *power_off()]


@pytest.mark.parametrize("step", [1, 7, 64, FOREVER])
def test_a_timer_fires_exactly_at_its_deadline(step: int) -> None:
    board = Board(timer_program(), vectors=vector_table(irq=TIMER_HANDLER))
    while (stop := board.cpu.run(board.cpu.icount + step)).kind is StopKind.LIMIT:
        pass
    # 500 counts of 16 ns are 1000 instructions of 8 ns
    assert board.timer_log == [("virtual-timer", True, 1000)]
    assert board.cpu.read_register("x12") == 500
    assert stop.icount == 1000 + 5


def test_waiting_for_an_interrupt_jumps_to_the_deadline() -> None:
    program = timer_program()[:-12] + a.code(a.WFI, *power_off())
    board = Board(program, vectors=vector_table(irq=TIMER_HANDLER))
    stop = board.cpu.run(FOREVER)
    assert (stop.kind, stop.icount) == (StopKind.IDLE, 9)
    assert board.cpu.next_timer() == 500 * 16
    assert board.cpu.run(FOREVER).kind is StopKind.IDLE
    board.cpu.set_warp(500 * 16 - 9 * 8)
    assert board.cpu.run(FOREVER).kind is StopKind.POWER_OFF
    assert board.cpu.read_register("x12") == (500 * 16 + 8) // 16
    assert board.timer_log == [("virtual-timer", True, 9)]


@pytest.mark.parametrize("maintenance", ["ivau", "iallu"])
@pytest.mark.parametrize("step", [1, 3, FOREVER])
def test_code_that_was_changed_is_seen_after_cache_maintenance(maintenance: str, step: int) -> None:
    """A function is run, patched through a store, and run again (32 times, so that its block is hot)."""
    function = RAM + 0x800
    clean = [a.ic_ivau(2)] if maintenance == "ivau" else [a.IC_IALLU]
    body = [
        0xD63F0040,  # blr x2
        a.add(3, 3, 1 << 10),  # the immediate begins at bit 10
        a.str_w(3, 2),  # the next `add x4, x4, #n`
        *clean,
        a.DSB,
        a.ISB,
        a.subs(1, 1, 1),
    ]
    program = a.code(
        *a.load_constant(2, function),
        *a.load_constant(3, a.add(4, 4, 1)),
        a.movz(1, 32),
        *body,
        a.b_ne(-len(body)),
        *power_off(),
    )
    board = Board(program)
    board.write(function, a.code(a.add(4, 4, 1), 0xD65F03C0))
    while (stop := board.cpu.run(board.cpu.icount + step)).kind is StopKind.LIMIT:
        pass
    assert stop.kind is StopKind.POWER_OFF
    assert board.cpu.read_register("x4") == sum(range(1, 33))


def test_firmware_calls() -> None:
    answers = []
    for function, argument in ((0x8400_0000, 0), (0x8400_000A, 0x8400_0008), (0x8400_000A, 0x1234), (0x8400_0003, 0)):
        board = Board(a.code(a.hvc(), a.b(0)))
        board.cpu.reset(RAM, [function, argument])
        board.cpu.run(5)
        answers.append(board.cpu.read_register("x0"))
    assert answers == [0x1_0001, 0, (1 << 64) - 1, (1 << 64) - 4]


def test_stack_and_other_registers_by_name() -> None:
    board = Board(a.code(a.NOP))
    for name, value in (("x29", 5), ("sp", STACK), ("v31", 1 << 100 | 9), ("VBAR_EL1", VECTORS), ("fpcr", 0)):
        board.cpu.write_register(name, value)
        assert board.cpu.read_register(name) == value
    with pytest.raises(UserError, match="unknown register 'x99'"):
        board.cpu.read_register("x99")


BR_X4 = 0xD61F0080


def test_read_only_memory_keeps_what_it_has() -> None:
    flash = Ram(0x1000, 0x1000)
    flash.write(0x1000, a.code(a.str_w(2, 1, 0), a.ldr_w(3, 1, 0), a.b(0)))
    board = Board(a.code(*a.load_constant(1, 0x1100), *a.load_constant(2, 0x1234), *a.load_constant(4, 0x1000), BR_X4))
    board.cpu.map_rom(flash.base, flash.host_address, flash.size)
    board.cpu.run(30)
    assert board.cpu.pc == 0x1008 and board.cpu.read_register("x3") == 0
    assert flash.read(0x1100, 4) == bytes(4)


def test_an_error_in_a_device_comes_out_of_run() -> None:
    board = Board(a.code(*a.load_constant(2, DEVICE), a.ldr_w(1, 2, COUNTER), a.b(0)))

    class Broken:
        def read(self, offset: int, size: int) -> int:
            raise ValueError("broken device")

        def write(self, offset: int, size: int, value: int) -> None: ...

    board.window.handler = Broken()
    with pytest.raises(ValueError, match="broken device"):
        board.cpu.run(FOREVER)


def test_unknown_models_are_named() -> None:
    with pytest.raises(UserError, match="unable to find CPU model 'pentium'"):
        from timevm.engine.cpu.aarch64 import Aarch64Cpu

        Aarch64Cpu("pentium", time_shift=0, seed=0, timer_line=lambda name, level: None)
