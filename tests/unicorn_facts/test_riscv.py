"""RISC-V in Unicorn: what the engine works around, so that a new Unicorn shows what is still needed."""

from __future__ import annotations

import ctypes
import struct
from ctypes import c_int, c_uint64, c_void_p

import pytest
import unicorn
from unicorn import riscv_const as riscv
from unicorn import unicorn_const as const

from tests.engine.cpu import riscv64_assembler as a
from timevm.engine.cpu import riscv64_private as private
from timevm.engine.cpu import unicorn_library

CODE, TABLES, DATA, SIZE = 0x1_0000, 0x4_0000, 0x8_0000, 0x1_0000
X0, PC = riscv.UC_RISCV_REG_X0, riscv.UC_RISCV_REG_PC
USER_CALL, LOAD_PAGE = 8, 13
PLAIN_ENTRY = 0xCF  # valid, readable, writable, executable, accessed, dirty


def machine(*instructions: int) -> unicorn.Uc:
    engine = unicorn.Uc(const.UC_ARCH_RISCV, const.UC_MODE_RISCV64, private.MODEL)
    for base in (CODE, TABLES, DATA):
        engine.mem_map(base, SIZE)
    engine.mem_write(CODE, a.code(*instructions))
    engine.ctl_exits_enabled(True)
    return engine


def run(engine: unicorn.Uc, begin: int = CODE) -> None:
    """Until WFI."""
    engine.emu_start(begin, 0)


def traps(engine: unicorn.Uc) -> list[tuple[int, int]]:
    """Numbers of exceptions and their pc; each ends the run."""
    found: list[tuple[int, int]] = []

    def note(_: unicorn.Uc, number: int, __: object) -> None:
        found.append((number, int(engine.reg_read(PC))))
        engine.emu_stop()

    engine.hook_add(const.UC_HOOK_INTR, note)
    return found


def env_of(engine: unicorn.Uc) -> int:
    return private.find_cpu_state(engine) + private.ENV


def paged(engine: unicorn.Uc) -> None:
    """Sv39, 4 KiB pages: CODE to DATA + SIZE mapped to themselves in a table at TABLES + 0x2000."""
    for at, entry in ((TABLES, TABLES + 0x1000), (TABLES + 0x1000, TABLES + 0x2000)):
        engine.mem_write(at, struct.pack("<Q", entry >> 12 << 10 | 1))
    for page in range(CODE, DATA + SIZE, 0x1000):
        map_page(engine, page, page, PLAIN_ENTRY)


def map_page(engine: unicorn.Uc, virtual: int, physical: int, rights: int) -> None:
    engine.mem_write(TABLES + 0x2000 + 8 * (virtual >> 12), struct.pack("<Q", physical >> 12 << 10 | rights))


SATP = 8 << 60 | TABLES >> 12


def test_the_model_has_what_linux_needs() -> None:
    engine = machine(a.WFI)
    extensions = {chr(ord("A") + bit) for bit in range(26) if engine.reg_read(riscv.UC_RISCV_REG_MISA) >> bit & 1}
    assert extensions == set("IMAFDCSU")


def test_exceptions_come_four_bytes_late() -> None:
    """Of a compressed instruction too; a break comes as an invalid instruction, in its place."""
    engine = machine(a.C_NOP, a.C_ILLEGAL)
    found = traps(engine)
    run(engine)
    assert found == [(2, CODE + 2 + 4)]
    engine = machine(a.NOP, a.EBREAK)
    with pytest.raises(unicorn.UcError):
        run(engine)
    assert engine.reg_read(PC) == CODE + 4


def test_an_illegal_instruction_of_two_bytes_makes_a_block_of_none() -> None:
    engine = machine(a.C_ILLEGAL)
    traps(engine)
    sizes: list[int] = []
    engine.hook_add(const.UC_HOOK_BLOCK, lambda _, address, size, user: sizes.append(size))
    run(engine)
    assert sizes == [0]


def test_the_cycle_counter_is_the_hosts() -> None:
    engine = machine(_csrr(1, 0xC00), _csrr(2, 0xC00), a.WFI)
    run(engine)
    first, second = (int(engine.reg_read(X0 + number)) for number in (1, 2))
    assert 0 < first < second and second - first > 10


def _csrr(rd: int, number: int) -> int:
    return number << 20 | 2 << 12 | rd << 7 | 0x73


def test_time_is_an_illegal_instruction_without_a_source() -> None:
    engine = machine(_csrr(1, 0xC01), a.WFI)
    found = traps(engine)
    run(engine)
    assert found == [(2, CODE + 4)]


def test_an_interrupt_that_the_guest_raises_is_taken_by_unicorn_itself() -> None:
    """Where it likes: at the next return to its main loop.  Ours never has one to see (riscv_cpu_update_mip)."""
    engine = machine(a.csrw("mip", 2), a.NOP, a.WFI)
    engine.mem_write(CODE + 0x100, a.code(a.addi(3, 3, 1), a.WFI))
    for name, value in (("MTVEC", CODE + 0x100), ("MIE", 2), ("MSTATUS", 8)):
        engine.reg_write(getattr(riscv, f"UC_RISCV_REG_{name}"), value)
    engine.reg_write(X0 + 2, 2)
    run(engine)
    assert engine.reg_read(X0 + 3) == 1


def test_flags_of_floating_point_are_outside_of_a_context() -> None:
    engine = machine(a.csrr(1, "fflags"), a.WFI)
    engine.reg_write(riscv.UC_RISCV_REG_MSTATUS, 1 << 13)
    engine.reg_write(riscv.UC_RISCV_REG_FFLAGS, 0)
    context = engine.context_save()
    engine.reg_write(riscv.UC_RISCV_REG_FFLAGS, 0x1F)
    engine.context_restore(context)
    run(engine)
    assert engine.reg_read(X0 + 1) == 0x1F


def test_a_fault_of_an_atomic_store_comes_as_a_loads() -> None:
    engine = machine(a.atomic(0, 1, 2, 3), a.WFI)
    paged(engine)
    map_page(engine, DATA, DATA, 0)
    found = traps(engine)
    for number, value in (
        (X0 + 2, DATA), (riscv.UC_RISCV_REG_SATP, SATP), (riscv.UC_RISCV_REG_MSTATUS, 1 << 17 | 1 << 11),
    ):  # fmt: skip
        engine.reg_write(number, value)
    run(engine)
    assert found[0][0] == LOAD_PAGE


def supervisor(engine: unicorn.Uc, **x: int) -> None:
    """S-mode and paging on; ``x1=`` and so on are registers."""
    paged(engine)
    for name, value in x.items():
        engine.reg_write(X0 + int(name[1:]), value)
    engine.reg_write(riscv.UC_RISCV_REG_SATP, SATP)
    engine.reg_write(riscv.UC_RISCV_REG_PRIV, 1)


def test_a_new_table_is_not_looked_at_while_its_address_space_has_the_same_number() -> None:
    engine = machine(a.load(1, 2), a.csrw("satp", 3), a.load(4, 2), a.WFI)
    supervisor(engine, x2=DATA, x3=8 << 60 | (TABLES + 0x8000) >> 12)
    engine.mem_write(DATA, struct.pack("<Q", 77))
    run(engine)
    assert engine.reg_read(X0 + 4) == 77, "there is nothing in the new table"


def test_a_fence_of_tables_does_not_end_its_block() -> None:
    """So whether the next instruction comes from the old page or the new one would depend on stops."""
    engine = machine(a.store(3, 2), a.SFENCE_VMA, a.addi(4, 4, 1), a.WFI)
    supervisor(engine, x2=TABLES + 0x2000 + 8 * (CODE >> 12), x3=DATA >> 12 << 10 | PLAIN_ENTRY)
    engine.mem_write(DATA, a.code(a.NOP, a.NOP, a.addi(4, 4, 100), a.WFI))
    run(engine)
    assert engine.reg_read(X0 + 4) == 1


def test_looking_up_an_address_marks_its_page() -> None:
    engine = machine(a.WFI)
    supervisor(engine)
    map_page(engine, DATA, DATA, 3)
    look = unicorn_library.function("riscv_cpu_get_phys_page_debug_riscv64", c_uint64, c_void_p, c_uint64)
    assert look(private.find_cpu_state(engine), DATA) == DATA
    assert engine.mem_read(TABLES + 0x2000 + 8 * (DATA >> 12), 1) == b"\x43"


def test_a_store_into_its_own_block_is_not_seen() -> None:
    engine = machine(a.store(3, 2, 4, 2), a.addi(4, 4, 1), a.WFI)
    for number, value in ((2, CODE), (3, a.addi(4, 4, 100))):
        engine.reg_write(X0 + number, value)
    run(engine)
    assert engine.reg_read(X0 + 4) == 1


def test_a_store_through_another_mapping_is_not_seen_the_second_time() -> None:
    function, alias = DATA, DATA + 0x1000
    engine = machine(a.jalr(1, 2), a.store(3, 5, 0, 2), a.FENCE_I, a.jalr(1, 2), a.store(6, 5, 0, 2), a.FENCE_I,
                     a.jalr(1, 2), a.WFI)  # fmt: skip
    supervisor(engine, x2=function, x3=a.addi(4, 4, 10), x5=alias, x6=a.addi(4, 4, 100))
    map_page(engine, alias, function, 0xC7)  # not executable
    engine.mem_write(function, a.code(a.addi(4, 4, 1), a.jalr(0, 1)))
    run(engine)
    assert engine.reg_read(X0 + 4) != 111


def test_control_registers_can_be_given_other_functions() -> None:
    """For all engines of the process."""
    get = unicorn_library.function("riscv_get_csr_ops_riscv64", None, c_int, c_void_p)
    put = unicorn_library.function("riscv_set_csr_ops_riscv64", None, c_int, c_void_p)
    calls, ours = (c_void_p * 4)(), (c_void_p * 4)()
    seen: list[int] = []

    def read(env: int, number: int, value: int) -> int:
        seen.append(env)
        c_uint64.from_address(value).value = 0x1234
        return 0

    native_read = ctypes.CFUNCTYPE(c_int, c_void_p, c_int, c_void_p)(read)
    scratch = 0x340
    get(scratch, ctypes.addressof(calls))
    ours[:] = list(calls)
    ours[1] = ctypes.cast(native_read, c_void_p).value
    put(scratch, ctypes.addressof(ours))
    try:
        engine = machine(a.csrr(1, "mscratch"), a.WFI)
        run(engine)
    finally:
        put(scratch, ctypes.addressof(calls))
    assert engine.reg_read(X0 + 1) == 0x1234
    assert seen == [env_of(engine)]
