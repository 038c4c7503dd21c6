"""System registers by hook, and what a context holds."""

from __future__ import annotations

import ctypes
import time

import pytest
import unicorn
from unicorn import arm64_const as arm64
from unicorn import unicorn_const as const

from tests.unicorn_facts.scratch import (
    ADD_X0_1,
    CODE,
    CP_REG,
    DATA,
    EL1H_MASKED,
    ELR_EL1,
    ERET,
    HERE,
    IC_IVAU_X1,
    MRS_CNTVCT,
    MRS_CURRENTEL,
    MRS_RNDR,
    MRS_VBAR,
    MSR_CVAL_X1,
    MSR_SCTLR_X1,
    MSR_VBAR_X1,
    NOP,
    PC,
    PSTATE,
    STR_W0,
    SVC_18,
    VBAR_EL1,
    machine,
    on_instruction,
    run,
    x,
)
from timevm.engine.cpu import aarch64_private as private
from timevm.engine.cpu.private import EXCEPTION_INDEX

Key = tuple[int, int, int, int, int]


def note(engine: unicorn.Uc, instruction: int, answer: int = 0) -> list[tuple[int, Key, int]]:
    """(pc - CODE, (crn, crm, op0, op1, op2), value) of each instruction of the kind."""
    seen: list[tuple[int, Key, int]] = []

    def call(uc: unicorn.Uc, register: int, key: object, user: object) -> int:
        fields = (key.crn, key.crm, key.op0, key.op1, key.op2)  # type: ignore[attr-defined]  # ctypes structure
        seen.append((uc.reg_read(PC) - CODE, fields, key.val))  # type: ignore[attr-defined]
        return answer

    on_instruction(engine, instruction, call)
    return seen


def test_reads_and_writes_of_system_registers_are_seen_with_pc_in_place() -> None:
    engine = machine([NOP, MSR_VBAR_X1, NOP, MRS_VBAR])
    reads, writes = note(engine, arm64.UC_ARM64_INS_MRS), note(engine, arm64.UC_ARM64_INS_MSR)
    engine.reg_write(x(1), DATA)
    run(engine, 4)
    assert [(pc, key) for pc, key, _ in reads] == [(12, VBAR_EL1)]
    assert writes == [(4, VBAR_EL1, DATA)]
    assert engine.reg_read(x(0)) == DATA


def test_a_read_that_the_hook_has_done_leaves_the_register_alone() -> None:
    engine = machine([MRS_CNTVCT, ADD_X0_1])
    note(engine, arm64.UC_ARM64_INS_MRS, 1)
    engine.reg_write(x(0), 41)
    run(engine, 2)
    assert engine.reg_read(x(0)) == 42


def test_a_write_that_the_hook_has_done_is_left_out() -> None:
    engine = machine([MSR_VBAR_X1, NOP])
    note(engine, arm64.UC_ARM64_INS_MSR, 1)
    engine.reg_write(x(1), DATA)
    run(engine, 2)
    assert engine.reg_read(CP_REG, VBAR_EL1) == 0


def test_cache_maintenance_is_seen_with_its_address() -> None:
    engine = machine([NOP, IC_IVAU_X1])
    seen = note(engine, arm64.UC_ARM64_INS_SYS)
    engine.reg_write(x(1), DATA)
    run(engine, 2)
    assert seen == [(4, (7, 5, 1, 3, 1), DATA)]


def test_the_number_of_the_transfer_register() -> None:
    """x0 … x28 are 199 …, x29 and x30 are 1 and 2, xzr is 4 or another outside."""
    for number in (0, 7, 28, 29, 30):
        engine = machine([MRS_VBAR | number])
        names: list[int] = []

        def call(uc: unicorn.Uc, register: int, key: object, user: object, names: list[int] = names) -> int:
            names.append(register)
            return 0

        on_instruction(engine, arm64.UC_ARM64_INS_MRS, call)
        run(engine, 1)
        assert names == [{29: 1, 30: 2}.get(number, 199 + number)]


def test_the_counter_is_host_time_unless_hooked() -> None:
    engine = machine([MRS_CNTVCT])
    values = []
    for _ in range(2):
        run(engine, 1)
        values.append(engine.reg_read(x(0)))
        until = time.monotonic_ns() + 2_000_000
        while time.monotonic_ns() < until:
            pass
    assert values[0] != values[1]


def test_random_numbers_are_the_hosts_unless_hooked() -> None:
    engine = machine([MRS_RNDR], model=arm64.UC_CPU_ARM64_MAX)
    values = set()
    for _ in range(4):
        run(engine, 1)
        values.add(engine.reg_read(x(0)))
    assert len(values) > 1


def test_pstate_takes_effect_only_when_a_system_register_is_written() -> None:
    """``reg_write(PSTATE)`` alone leaves the flags of translated code: EL0 code would run as EL1."""
    levels = []
    for rebuild in (False, True):
        engine = machine([MSR_VBAR_X1])
        run(engine, 1)
        engine.reg_write(PSTATE, 0)
        if rebuild:
            engine.reg_write(CP_REG, (*ELR_EL1, 0))
        numbers: list[int] = []

        def interrupt(uc: unicorn.Uc, number: int, user: object, numbers: list[int] = numbers) -> None:
            numbers.append(number)
            uc.emu_stop()

        engine.hook_add(const.UC_HOOK_INTR, interrupt)
        run(engine, 1)
        levels.append(numbers)
    assert levels == [[], [1]]


def test_eret_is_illegal_to_where_hcr_el2_and_scr_el3_say_no() -> None:
    engine = machine([ERET, NOP])
    engine.reg_write(CP_REG, (*ELR_EL1, CODE + 4))
    engine.reg_write(CP_REG, (4, 0, 3, 0, 0, EL1H_MASKED))
    run(engine, 2)
    assert engine.reg_read(PSTATE) & 0xF == 5


def test_a_context_holds_registers_flags_and_system_registers() -> None:
    engine = machine([ADD_X0_1])
    engine.reg_write(x(0), 7)
    engine.reg_write(arm64.UC_ARM64_REG_V0, 1 << 127 | 1)
    engine.reg_write(arm64.UC_ARM64_REG_NZCV, 0xA000_0000)
    engine.reg_write(CP_REG, (*VBAR_EL1, DATA))
    context = engine.context_save()
    run(engine, 1)
    engine.reg_write(arm64.UC_ARM64_REG_V0, 0)
    engine.reg_write(arm64.UC_ARM64_REG_NZCV, 0)
    engine.reg_write(CP_REG, (*VBAR_EL1, 0))
    engine.context_restore(context)
    assert engine.reg_read(x(0)) == 7
    assert engine.reg_read(arm64.UC_ARM64_REG_V0) == 1 << 127 | 1
    assert engine.reg_read(arm64.UC_ARM64_REG_NZCV) == 0xA000_0000
    assert engine.reg_read(CP_REG, VBAR_EL1) == DATA


def test_a_context_begins_with_the_size_of_the_cpu_structure() -> None:
    """Which lets the engine copy it itself, without a call of Unicorn."""
    engine = machine([ADD_X0_1, MSR_VBAR_X1])
    engine.reg_write(x(0), 0x1234_5678)
    context = engine.context_save()
    size = ctypes.c_size_t.from_address(context.context.value).value
    env = private.find_cpu_state(engine) + private.ENV
    assert 0x2000 < size < 0x8000
    saved = ctypes.string_at(env, size)
    run(engine, 2)
    assert ctypes.string_at(env, size) != saved
    ctypes.memmove(env, saved, size)
    assert engine.reg_read(x(0)) == 0x1234_5678
    assert engine.reg_read(CP_REG, VBAR_EL1) == 0


def test_a_context_holds_no_memory_and_no_reason_to_stop() -> None:
    engine = machine([STR_W0, SVC_18, HERE])
    state = private.find_cpu_state(engine)
    context = engine.context_save()
    engine.hook_add(const.UC_HOOK_INTR, lambda uc, number, user: uc.emu_stop())
    engine.reg_write(x(0), 5)
    engine.reg_write(x(1), DATA)
    run(engine, 3)
    index = ctypes.c_int32.from_address(state + EXCEPTION_INDEX)
    engine.context_restore(context)
    assert engine.mem_read(DATA, 1) == b"\x05"
    size = ctypes.c_size_t.from_address(context.context.value).value
    assert not state + private.ENV <= ctypes.addressof(index) < state + private.ENV + size


def test_the_same_work_gives_the_same_context_in_another_engine() -> None:
    contexts = []
    for _ in range(2):
        engine = machine([ADD_X0_1] * 50 + [MSR_CVAL_X1, MSR_VBAR_X1, NOP])
        engine.reg_write(x(1), DATA)
        run(engine, 53)
        context = engine.context_save()
        size = ctypes.c_size_t.from_address(context.context.value).value
        contexts.append(ctypes.string_at(private.find_cpu_state(engine) + private.ENV, size))
    if contexts[0] != contexts[1]:
        differ = [i for i in range(len(contexts[0])) if contexts[0][i] != contexts[1][i]]
        pytest.fail(f"bytes that differ: {differ[:16]} …: host time or pointers in the CPU structure")


def test_the_mmu_switch_is_seen_before_it_happens() -> None:
    engine = machine([MSR_SCTLR_X1, MRS_CURRENTEL])
    writes = note(engine, arm64.UC_ARM64_INS_MSR)
    before = engine.reg_read(CP_REG, (1, 0, 3, 0, 0))
    engine.reg_write(x(1), before)
    run(engine, 2)
    assert writes == [(0, (1, 0, 3, 0, 0), before)]
