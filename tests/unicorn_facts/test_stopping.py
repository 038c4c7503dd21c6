"""Counting and stopping: what the block hook promises, and what an ``emu_stop`` elsewhere does."""

from __future__ import annotations

import ctypes

import pytest
import unicorn
from unicorn import arm64_const as arm64
from unicorn import unicorn_const as const
from unicorn.unicorn_py3 import unicorn as binding

from tests.unicorn_facts.scratch import (
    ADD_X0_1,
    ADD_X2_1,
    CMP_X1_X2,
    CODE,
    DEVICE,
    HERE,
    LDR_W0,
    MASK_IRQ,
    MRS_CURRENTEL,
    MSR_CVAL_X1,
    NOP,
    PC,
    UNMASK_IRQ,
    WFI,
    exit_request_flag,
    exported,
    machine,
    record_blocks,
    run,
    run_to_wfi,
    write_code,
    x,
)
from timevm.engine.cpu import aarch64_private as private
from timevm.engine.cpu.private import ACCESS_HOST_PC, NEXT_BLOCK_FLAGS


def test_the_version_is_the_measured_one() -> None:
    assert unicorn.__version__ == "2.1.4"


@pytest.mark.parametrize(
    "name",
    [
        "cpu_loop_exit_noexc",
        "cpu_restore_state",
        "tb_flush",
        "tb_invalidate_phys_range",
        "tlb_flush",
        "tlb_flush_page",
        "arm_cpu_do_interrupt",
        "arm_cpu_get_phys_page_attrs_debug",
        "qemu_ram_addr_from_host",
        "check_exit_request",
    ],
)
def test_private_functions_are_exported(name: str) -> None:
    assert hasattr(binding.uclib, f"{name}_aarch64")


def test_the_block_hook_is_called_before_its_block_with_its_bytes() -> None:
    engine = machine([ADD_X0_1, ADD_X0_1, ADD_X0_1])
    seen: list[tuple[int, int, int]] = []

    def block(uc: unicorn.Uc, address: int, size: int, user: object) -> None:
        seen.append((address, size, uc.reg_read(x(0))))

    engine.hook_add(const.UC_HOOK_BLOCK, block)
    run(engine, 3)
    assert seen[0] == (CODE, 12, 0)


def test_a_stop_in_the_block_hook_runs_nothing_of_the_block() -> None:
    engine = machine([ADD_X0_1, HERE])
    engine.hook_add(const.UC_HOOK_BLOCK, lambda uc, address, size, user: uc.emu_stop())
    engine.emu_start(CODE, CODE + 0x800)
    assert engine.reg_read(x(0)) == 0
    assert engine.reg_read(PC) == CODE


@pytest.mark.parametrize("word", [UNMASK_IRQ, MASK_IRQ, MSR_CVAL_X1], ids=["daifclr", "daifset", "cntv_cval"])
def test_what_may_unmask_an_interrupt_ends_its_block(word: int) -> None:
    engine = machine([NOP, word, NOP, NOP])
    blocks = record_blocks(engine)
    run(engine, 4)
    assert blocks[0] == (CODE, 8)
    assert blocks[1][0] == CODE + 8


def test_a_read_of_a_system_register_does_not_end_its_block() -> None:
    engine = machine([NOP, MRS_CURRENTEL, NOP, NOP])
    blocks = record_blocks(engine)
    run(engine, 4)
    assert blocks[0] == (CODE, 16)


def test_arm_pages_are_1_kib_unless_told() -> None:
    for page_size, expected in ((None, 0x200), (4096, 0x600)):
        engine = machine([NOP] * 0x200, page_size=page_size)
        blocks = record_blocks(engine)
        engine.emu_start(CODE + 0x200, CODE + 0x800)
        assert blocks[0] == (CODE + 0x200, expected)


def test_a_block_ends_at_its_page() -> None:
    engine = machine([NOP] * 0x800)
    blocks = record_blocks(engine)
    engine.emu_start(CODE + 0xF00, CODE + 0x1800)
    assert blocks[0] == (CODE + 0xF00, 0x100)


def test_the_next_block_can_be_limited_and_only_the_next() -> None:
    engine = machine([ADD_X0_1] * 6)
    blocks = record_blocks(engine)
    state = private.find_cpu_state(engine)
    ctypes.c_uint32.from_address(state + NEXT_BLOCK_FLAGS).value = 2
    run(engine, 6)
    assert blocks[0] == (CODE, 8)
    assert blocks[1][:1] == (CODE + 8,) and blocks[1][1] >= 16
    assert engine.reg_read(x(0)) == 6


def test_a_limited_block_does_not_replace_the_unlimited_one() -> None:
    engine = machine([ADD_X0_1] * 6)
    run(engine, 6)
    blocks = record_blocks(engine)
    engine.ctl_flush_tb()
    state = private.find_cpu_state(engine)
    for limit in (3, None):
        if limit:
            ctypes.c_uint32.from_address(state + NEXT_BLOCK_FLAGS).value = limit
        blocks.clear()
        run(engine, 6)
        assert blocks[0] == (CODE, 4 * (limit or 6))


def access_twice(no_exit_request: bool) -> tuple[int, int, int]:
    """Device reads, pc and x2 after a stop inside the read, and going on from there."""
    engine = machine([NOP, LDR_W0, ADD_X2_1, HERE])
    exit_request_flag(engine).value = int(no_exit_request)
    reads = 0

    def read(uc: unicorn.Uc, offset: int, size: int, user: object) -> int:
        nonlocal reads
        reads += 1
        uc.emu_stop()
        return 0

    engine.mmio_map(DEVICE, 0x1000, read, None, None, None)
    engine.reg_write(x(1), DEVICE)
    engine.emu_start(CODE, CODE + 0x800)
    stopped, added = engine.reg_read(PC), engine.reg_read(x(2))
    engine.emu_start(stopped, CODE + 12)
    return reads, stopped, added


def test_a_stop_inside_a_device_access_leaves_pc_on_it_and_it_happens_twice() -> None:
    assert access_twice(no_exit_request=False) == (2, CODE + 4, 0)


def test_without_exit_requests_a_stop_inside_a_device_access_waits_for_the_end_of_the_block() -> None:
    reads, stopped, added = access_twice(no_exit_request=True)
    assert (reads, added) == (1, 1)
    assert stopped == CODE + 12


def test_the_place_of_a_device_access_can_be_restored() -> None:
    engine = machine([NOP, NOP, LDR_W0, NOP])
    state = private.find_cpu_state(engine)
    restore = exported("cpu_restore_state_aarch64", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int)
    places = []

    def read(uc: unicorn.Uc, offset: int, size: int, user: object) -> int:
        places.append(uc.reg_read(PC))
        host_pc = ctypes.c_uint64.from_address(state + ACCESS_HOST_PC).value
        assert restore(state, host_pc, 1) == 1
        places.append(uc.reg_read(PC))
        return 0

    engine.mmio_map(DEVICE, 0x1000, read, None, None, None)
    engine.reg_write(x(1), DEVICE)
    run(engine, 4)
    assert places == [CODE, CODE + 8]  # before: where the block begins


def test_until_zero_with_exits_on_runs_on_at_address_zero() -> None:
    engine = machine([], mapped=False)
    engine.mem_map(0, 0x1000)
    write_code(engine, [ADD_X0_1, ADD_X0_1, HERE], 0)
    engine.ctl_exits_enabled(True)
    rounds = 0

    def block(uc: unicorn.Uc, address: int, size: int, user: object) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            uc.emu_stop()

    engine.hook_add(const.UC_HOOK_BLOCK, block)
    engine.emu_start(0, 0)
    assert engine.reg_read(x(0)) == 2


def test_a_hook_added_behind_a_translation_fires_only_after_a_flush() -> None:
    engine = machine([ADD_X0_1, ADD_X0_1, WFI])
    run_to_wfi(engine)
    hits: list[int] = []
    engine.hook_add(const.UC_HOOK_CODE, lambda uc, address, size, user: hits.append(address), None, CODE, CODE + 7)
    run_to_wfi(engine)
    before = list(hits)
    engine.ctl_flush_tb()
    run_to_wfi(engine)
    assert (before, hits) == ([], [CODE, CODE + 4])


def test_a_code_hook_is_called_before_its_instruction_with_pc_in_place() -> None:
    engine = machine([ADD_X0_1, ADD_X0_1, ADD_X0_1])
    seen: list[tuple[int, int]] = []

    def code(uc: unicorn.Uc, address: int, size: int, user: object) -> None:
        seen.append((uc.reg_read(PC) - CODE, uc.reg_read(x(0))))

    engine.hook_add(const.UC_HOOK_CODE, code, None, CODE + 4, CODE + 4)
    run(engine, 3)
    assert seen == [(4, 1)]


def test_condition_flags_are_whole_in_the_block_hook() -> None:
    engine = machine([CMP_X1_X2, UNMASK_IRQ, NOP])
    flags: list[int] = []
    engine.hook_add(
        const.UC_HOOK_BLOCK, lambda uc, address, size, user: flags.append(uc.reg_read(arm64.UC_ARM64_REG_NZCV) >> 28)
    )
    run(engine, 3)
    assert flags[-1] == 0b0110


def test_two_engines_do_not_meet() -> None:
    first, second = machine([ADD_X0_1]), machine([ADD_X0_1, ADD_X0_1])
    run(first, 1)
    run(second, 2)
    assert (first.reg_read(x(0)), second.reg_read(x(0))) == (1, 2)
