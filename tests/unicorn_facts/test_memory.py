"""Memory and translated code: what is seen by itself, and what must be told."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import unicorn
from unicorn import unicorn_const as const

from tests.unicorn_facts.scratch import (
    ADD_X0_1,
    ADD_X0_2,
    BR_X1,
    CODE,
    DATA,
    DEVICE,
    IC_IALLU,
    IC_IVAU_X1,
    ISB,
    LDR_W0,
    LDR_X0,
    NOP,
    PC,
    SIZE,
    STR_W0,
    STR_X0,
    WFI,
    exported,
    handle,
    machine,
    run,
    run_to_wfi,
    write_code,
    x,
)
from timevm.engine.cpu import aarch64_private as private

FETCH, READ, WRITE = 18, 16, 17  # UC_MEM_FETCH, UC_MEM_READ, UC_MEM_WRITE


@contextmanager
def own_memory(size: int) -> Iterator[tuple[mmap.mmap, int]]:
    memory = mmap.mmap(-1, size)
    holder = ctypes.c_char.from_buffer(memory)
    try:
        yield memory, ctypes.addressof(holder)
    finally:
        del holder


def test_memory_by_pointer_is_shared_with_the_host() -> None:
    with own_memory(SIZE) as (memory, address):
        engine = machine([LDR_X0, STR_X0])
        engine.mem_map_ptr(0x20_0000, SIZE, const.UC_PROT_ALL, address)
        memory[8:16] = (0x1122334455667788).to_bytes(8, "little")
        engine.reg_write(x(1), 0x20_0008)
        run(engine, 1)
        assert engine.reg_read(x(0)) == 0x1122334455667788
        engine.reg_write(x(0), 7)
        engine.emu_start(CODE + 4, CODE + 8)
        assert int.from_bytes(memory[8:16], "little") == 7


def test_a_host_write_to_code_is_not_seen_until_its_translations_are_dropped() -> None:
    for drop in ("remove_cache", "flush", "invalidate"):
        with own_memory(SIZE) as (memory, address):
            engine = machine([], mapped=False)
            engine.mem_map_ptr(CODE, SIZE, const.UC_PROT_ALL, address)
            write_code(engine, [ADD_X0_1, WFI])
            run_to_wfi(engine)
            memory[0:4] = ADD_X0_2.to_bytes(4, "little")
            run_to_wfi(engine)
            assert engine.reg_read(x(0)) == 2, "the old instruction"
            if drop == "remove_cache":
                engine.ctl_remove_cache(CODE, CODE + 4)
            elif drop == "flush":
                engine.ctl_flush_tb()
            else:
                ram_offset = exported(
                    "qemu_ram_addr_from_host_aarch64", ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64
                )
                invalidate = exported(
                    "tb_invalidate_phys_range_aarch64", None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64
                )
                start = ram_offset(handle(engine), address)
                invalidate(handle(engine), start, start + 4)
            run_to_wfi(engine)
            assert engine.reg_read(x(0)) == 4, drop


def test_a_guest_store_to_its_own_executable_page_is_seen() -> None:
    """MMU off: every page may be executed, and the store drops what it overwrites."""
    engine = machine([STR_W0, ISB, NOP, ADD_X0_1])
    engine.reg_write(x(1), CODE + 12)
    engine.reg_write(x(0), ADD_X0_1)
    run(engine, 4)
    engine.reg_write(x(0), ADD_X0_2)
    run(engine, 4)
    assert engine.reg_read(x(0)) == ADD_X0_2 + 2


def fill(engine: unicorn.Uc, pages: dict[int, int], fills: list[tuple[int, int]]) -> None:
    """Translate by ``pages`` (virtual to physical page); READ+EXEC for a fetch, READ+WRITE for data."""
    engine.ctl_set_tlb_mode(const.UC_TLB_VIRTUAL)

    def answer(uc: unicorn.Uc, address: int, kind: int, entry: unicorn.UcTLBEntry, user: object) -> bool:
        fills.append((address, kind))
        entry.paddr = pages.get(address & ~0xFFF, address & ~0xFFF)
        entry.perms = const.UC_PROT_READ | (const.UC_PROT_EXEC if kind == FETCH else const.UC_PROT_WRITE)
        return True

    engine.hook_add(const.UC_HOOK_TLB_FILL, answer)


def test_translation_can_be_answered_by_a_hook() -> None:
    engine = machine([LDR_W0, LDR_W0, STR_W0])
    fills: list[tuple[int, int]] = []
    fill(engine, {0x7000_0000: DATA}, fills)
    engine.mem_write(DATA + 8, (5).to_bytes(4, "little"))
    engine.reg_write(x(1), 0x7000_0008)
    run(engine, 3)
    assert engine.reg_read(x(0)) == 5
    assert [(address & ~0xFFF, kind) for address, kind in fills] == [(CODE, FETCH), (0x7000_0000, READ)]


def test_a_fill_without_the_right_is_asked_again() -> None:
    engine = machine([LDR_W0, STR_W0])
    engine.ctl_set_tlb_mode(const.UC_TLB_VIRTUAL)
    kinds: list[int] = []

    def answer(uc: unicorn.Uc, address: int, kind: int, entry: object, user: object) -> bool:
        kinds.append(kind)
        entry.paddr = address & ~0xFFF  # type: ignore[attr-defined]  # ctypes structure of the binding
        right = {FETCH: const.UC_PROT_EXEC, WRITE: const.UC_PROT_WRITE}.get(kind, 0)
        entry.perms = const.UC_PROT_READ | right  # type: ignore[attr-defined]
        return True

    engine.hook_add(const.UC_HOOK_TLB_FILL, answer)
    engine.reg_write(x(1), DATA)
    run(engine, 2)
    assert kinds == [FETCH, READ, WRITE]


PATCH, RUNNER, ALIAS = CODE + 0x800, CODE + 0x1000, 0x7000_0000


def patch_through_an_alias(maintenance: list[int], *, warm: bool) -> unicorn.Uc:
    """ADD x0, x0, #1 at PATCH was executed, is overwritten by ADD x0, x0, #2 through ALIAS, and is executed again.

    ``warm``: the alias was stored to before PATCH was translated, so that the store needs no fill of the TLB.
    """
    engine = machine([])
    write_code(engine, [ADD_X0_1, WFI], PATCH)
    write_code(engine, [STR_W0, *maintenance, ISB, WFI], RUNNER)  # on a page of its own: only the alias is written
    fill(engine, {ALIAS: CODE}, [])
    if warm:
        engine.reg_write(x(1), ALIAS + 0xC00)
        run_to_wfi(engine, RUNNER)
    run_to_wfi(engine, PATCH)
    engine.reg_write(x(0), ADD_X0_2)
    engine.reg_write(x(1), ALIAS + 0x800)
    run_to_wfi(engine, RUNNER)
    assert engine.mem_read(PATCH, 4) == ADD_X0_2.to_bytes(4, "little")
    engine.reg_write(x(0), 0)
    run_to_wfi(engine, PATCH)
    return engine


@pytest.mark.parametrize("maintenance", [[], [IC_IVAU_X1], [IC_IALLU]], ids=["none", "ic-ivau", "ic-iallu"])
def test_a_store_through_an_alias_is_not_seen_by_itself(maintenance: list[int]) -> None:
    """The kernel patches its text through another, non-executable mapping: cache maintenance must be hooked."""
    engine = patch_through_an_alias(maintenance, warm=True)
    assert engine.reg_read(x(0)) == 1, "the old instruction"
    engine.ctl_remove_cache(PATCH, PATCH + 4)
    engine.reg_write(x(0), 0)
    run_to_wfi(engine, PATCH)
    assert engine.reg_read(x(0)) == 2


def test_a_store_that_fills_the_tlb_is_seen() -> None:
    """So whether a store drops translations depends on the TLB: code between the store and IC IVAU is not exact."""
    assert patch_through_an_alias([], warm=False).reg_read(x(0)) == 2


def test_64_bit_device_accesses_come_whole_or_as_two_halves_from_the_lower_on() -> None:
    engine = machine([LDR_X0])
    reads: list[tuple[int, int]] = []

    def read(uc: unicorn.Uc, offset: int, size: int, user: object) -> int:
        reads.append((offset, size))
        return 0x1111 if offset == 0 else 0x2222

    engine.mmio_map(DEVICE, 0x1000, read, None, None, None)
    engine.reg_write(x(1), DEVICE)
    run(engine, 1)
    assert reads in ([(0, 8)], [(0, 4), (4, 4)])
    assert engine.reg_read(x(0)) & 0xFFFF == 0x1111


def test_a_prot_hook_outside_of_ram_never_fires() -> None:
    engine = machine([LDR_W0, STR_W0])
    fired: list[int] = []

    def unreadable(uc: unicorn.Uc, kind: int, address: int, size: int, value: int, user: object) -> bool:
        fired.append(address)
        return False

    engine.hook_add(const.UC_HOOK_MEM_READ_PROT, unreadable, None, 0, CODE - 1)
    engine.hook_add(const.UC_HOOK_MEM_READ_PROT, unreadable, None, DATA + SIZE, (1 << 64) - 1)
    engine.reg_write(x(1), DATA)
    run(engine, 2)
    assert fired == []


def test_a_watch_by_memory_hook_covers_its_range_only() -> None:
    engine = machine([STR_W0, LDR_W0])
    seen: list[tuple[int, int]] = []

    def access(uc: unicorn.Uc, kind: int, address: int, size: int, value: int, user: object) -> None:
        seen.append((kind, address))

    engine.hook_add(const.UC_HOOK_MEM_READ | const.UC_HOOK_MEM_WRITE, access, None, DATA + 8, DATA + 11)
    for address in (DATA, DATA + 8, DATA + 12):
        engine.reg_write(x(1), address)
        run(engine, 2)
    assert seen == [(WRITE, DATA + 8), (READ, DATA + 8)]


def test_a_debug_translation_has_no_side_effect() -> None:
    engine = machine([NOP])
    state = private.find_cpu_state(engine)
    translate = exported(
        "arm_cpu_get_phys_page_attrs_debug_aarch64", ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p
    )
    before = bytes(engine.mem_read(DATA, SIZE))
    attributes = (ctypes.c_uint64 * 4)()
    assert translate(state, DATA + 0x1000, attributes) == DATA + 0x1000  # MMU off: itself
    assert bytes(engine.mem_read(DATA, SIZE)) == before


def test_blocks_survive_a_register_write() -> None:
    """Nothing but code changes drops translations: a debugger's register write must stay cheap."""
    engine = machine([ADD_X0_1, BR_X1, WFI])
    engine.reg_write(x(1), CODE + 8)
    translated: list[int] = []
    engine.hook_add(const.UC_HOOK_EDGE_GENERATED, lambda uc, now, before, user: translated.append(now.pc))
    run_to_wfi(engine)
    run_to_wfi(engine)
    first = list(translated)
    engine.reg_write(x(0), 9)
    engine.reg_write(PC, CODE)
    run_to_wfi(engine)
    assert first and translated == first


def test_until_drops_the_translation_before_it() -> None:
    """Why the engine never uses it: each run would translate its last block again."""
    engine = machine([ADD_X0_1, ADD_X0_1])
    hooked: list[int] = []
    engine.hook_add(const.UC_HOOK_BLOCK, lambda uc, address, size, user: hooked.append(address))
    run(engine, 2)
    write_code(engine, [ADD_X0_2, ADD_X0_2])
    run(engine, 2)
    assert engine.reg_read(x(0)) == 2 + 4
    assert hooked == [CODE, CODE]
