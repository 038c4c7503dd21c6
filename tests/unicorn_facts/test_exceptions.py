"""Exceptions: numbers, where pc stands, the syndrome, and entry by the library's own function."""

from __future__ import annotations

import ctypes

import pytest
import unicorn
from unicorn import unicorn_const as const

from tests.unicorn_facts.scratch import (
    ADD_X0_1,
    BRK_5,
    CODE,
    CP_REG,
    DATA,
    EL1H_MASKED,
    ELR_EL1,
    ERET,
    ESR_EL1,
    FAR_EL1,
    HERE,
    HVC,
    LDR_W0,
    LDXR_X0,
    MRS_CURRENTEL,
    NOP,
    PC,
    PSTATE,
    SCR_EL3,
    SMC,
    SPSR_EL1,
    STR_W0,
    SVC_18,
    UDF,
    UNMASK_IRQ,
    VBAR_EL1,
    VECTORS,
    WFI,
    exported,
    machine,
    run,
    write_code,
    x,
)
from timevm.engine.cpu import aarch64_private as private
from timevm.engine.cpu.private import EXCEPTION_INDEX

HOLE = 0x50_0000
UNDEFINED, SUPERVISOR_CALL, PREFETCH_ABORT, DATA_ABORT, IRQ, BREAK, HYPERVISOR_CALL, SECURE_CALL = (
    1,
    2,
    3,
    4,
    5,
    7,
    11,
    13,
)


def note_exceptions(engine: unicorn.Uc) -> list[tuple[int, int]]:
    """(number, pc - CODE) of each; every one stops."""
    seen: list[tuple[int, int]] = []

    def interrupt(uc: unicorn.Uc, number: int, user: object) -> None:
        seen.append((number, uc.reg_read(PC) - CODE))
        uc.emu_stop()

    engine.hook_add(const.UC_HOOK_INTR, interrupt)
    return seen


@pytest.mark.parametrize(
    ("word", "number", "pc"),
    [
        (SVC_18, SUPERVISOR_CALL, 8),  # behind the instruction
        (HVC, HYPERVISOR_CALL, 8),
        (SMC, SECURE_CALL, 8),
        (BRK_5, BREAK, 4),  # on it
        (UDF, UNDEFINED, 4),
        (LDXR_X0, DATA_ABORT, 4),  # not aligned
    ],
    ids=["svc", "hvc", "smc", "brk", "undefined", "data-abort"],
)
def test_numbers_and_places(word: int, number: int, pc: int) -> None:
    engine = machine([NOP, word, NOP])
    seen = note_exceptions(engine)
    engine.reg_write(x(1), DATA + 1)
    run(engine, 3)
    assert seen == [(number, pc)]


def test_hvc_is_undefined_unless_scr_el3_allows_it() -> None:
    engine = machine([HVC])
    engine.reg_write(CP_REG, (*SCR_EL3, 0x431))
    engine.reg_write(CP_REG, (*ELR_EL1, 0))
    seen = note_exceptions(engine)
    run(engine, 1)
    assert seen == [(UNDEFINED, 0)]


@pytest.mark.parametrize(
    ("word", "error"),
    [(LDR_W0, const.UC_ERR_READ_UNMAPPED), (STR_W0, const.UC_ERR_WRITE_UNMAPPED)],
    ids=["load", "store"],
)
def test_a_hole_in_physical_memory_is_an_error_of_emu_start(word: int, error: int) -> None:
    engine = machine([NOP, word, NOP])
    engine.reg_write(x(1), HOLE)
    with pytest.raises(unicorn.UcError) as caught:
        run(engine, 3)
    assert caught.value.errno == error


def test_a_fetch_from_a_hole_is_an_error_with_pc_there() -> None:
    engine = machine([NOP])
    with pytest.raises(unicorn.UcError) as caught:
        engine.emu_start(HOLE, 0)
    assert caught.value.errno == const.UC_ERR_FETCH_UNMAPPED
    assert engine.reg_read(PC) == HOLE


@pytest.mark.parametrize("word", [LDR_W0, STR_W0], ids=["load", "store"])
def test_in_the_hook_of_an_unmapped_access_pc_is_on_it(word: int) -> None:
    engine = machine([NOP, NOP, word, NOP])
    engine.reg_write(x(1), HOLE)
    places: list[tuple[int, int]] = []

    def unmapped(uc: unicorn.Uc, kind: int, address: int, size: int, value: int, user: object) -> bool:
        places.append((uc.reg_read(PC) - CODE, address))
        return False

    engine.hook_add(const.UC_HOOK_MEM_READ_UNMAPPED | const.UC_HOOK_MEM_WRITE_UNMAPPED, unmapped)
    with pytest.raises(unicorn.UcError):
        run(engine, 4)
    assert places == [(8, HOLE)]


def test_syndrome_and_fault_address_stand_where_the_engine_reads_them() -> None:
    engine = machine([LDXR_X0])
    env = private.find_cpu_state(engine) + private.ENV
    note_exceptions(engine)
    engine.reg_write(x(1), DATA + 1)
    run(engine, 1)
    syndrome = ctypes.c_uint32.from_address(env + private.SYNDROME).value
    assert syndrome >> 26 == 0x25 and syndrome & 0x3F == 0x21  # data abort, same level, alignment
    assert ctypes.c_uint64.from_address(env + private.FAULT_ADDRESS).value == DATA + 1
    assert engine.reg_read(CP_REG, ESR_EL1) == 0  # not in the register


def enter(engine: unicorn.Uc, number: int) -> None:
    state = private.find_cpu_state(engine)
    ctypes.c_int32.from_address(state + EXCEPTION_INDEX).value = number
    exported("arm_cpu_do_interrupt_aarch64", None, ctypes.c_void_p)(state)
    ctypes.c_int32.from_address(state + EXCEPTION_INDEX).value = -1


def test_exception_entry_by_the_library_is_whole() -> None:
    """Entered from EL0 by its SVC: level, stack, mask, ELR, SPSR, ESR, vector; and back by ERET."""
    engine = machine([SVC_18, ADD_X0_1, HERE])
    write_code(engine, [MRS_CURRENTEL, ERET], VECTORS + 0x400)
    engine.reg_write(CP_REG, (*VBAR_EL1, VECTORS))
    engine.reg_write(CP_REG, (*SPSR_EL1, 0))
    engine.reg_write(CP_REG, (*ELR_EL1, CODE))
    write_code(engine, [ERET], DATA)
    entries: list[tuple[int, int, int]] = []

    def interrupt(uc: unicorn.Uc, number: int, user: object) -> None:
        enter(uc, number)
        entries.append((uc.reg_read(PC), uc.reg_read(PSTATE) & 0x3CF, uc.reg_read(CP_REG, ESR_EL1)))

    engine.hook_add(const.UC_HOOK_INTR, interrupt)
    engine.emu_start(DATA, CODE + 8)
    assert entries == [(VECTORS + 0x400, EL1H_MASKED, 0x15 << 26 | 1 << 25 | 18)]
    assert engine.reg_read(CP_REG, ELR_EL1) == CODE + 4
    assert engine.reg_read(x(0)) == (1 << 2) + 1  # CurrentEL was EL1
    assert engine.reg_read(PSTATE) & 0xF == 0


def test_an_interrupt_is_entered_by_the_library_too() -> None:
    engine = machine([NOP])
    engine.reg_write(CP_REG, (*VBAR_EL1, VECTORS))
    engine.reg_write(PC, CODE)
    env = private.find_cpu_state(engine) + private.ENV
    ctypes.c_uint32.from_address(env + private.TARGET_LEVEL).value = 1
    enter(engine, IRQ)
    assert engine.reg_read(PC) == VECTORS + 0x280
    assert engine.reg_read(CP_REG, ELR_EL1) == CODE
    assert engine.reg_read(CP_REG, FAR_EL1) == 0


def test_nothing_is_delivered_by_itself() -> None:
    """A fault that no hook takes ends emulation."""
    engine = machine([SVC_18, ADD_X0_1])
    with pytest.raises(unicorn.UcError) as caught:
        run(engine, 2)
    assert caught.value.errno == const.UC_ERR_EXCEPTION


@pytest.mark.parametrize("prelude", [NOP, UNMASK_IRQ], ids=["masked", "unmasked"])
def test_wfi_comes_back_behind_itself(prelude: int) -> None:
    engine = machine([prelude, WFI, ADD_X0_1, HERE])
    engine.ctl_exits_enabled(True)
    engine.emu_start(CODE, 0)
    assert engine.reg_read(PC) == CODE + 8
    assert engine.reg_read(x(0)) == 0
