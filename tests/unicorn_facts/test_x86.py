"""What Unicorn alone does on x86, and the x86 CPU relies on or puts right (timevm/engine/cpu/native/x86_64*.c).

The scratch engines here are plain ones: the functions in the linkage table look at engines of a CPU of ours only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
import unicorn
from unicorn import unicorn_const as const
from unicorn import x86_const as x86

from tests.engine.cpu.x86_assembler import assemble
from tests.unicorn_facts.scratch import exported
from timevm.engine.cpu import linkage, unicorn_library
from timevm.engine.cpu import x86_64_private as private
from timevm.engine.cpu.private import NEXT_BLOCK_FLAGS
from timevm.engine.cpu.x86_64_interposed import HELPERS

CODE, DATA, STACK = 0x1_0000, 0x2_0000, 0x3_0000
SIZE = 0x1_0000
FLAGS = 0x8D5


def machine(source: str, **registers: int) -> unicorn.Uc:
    """An engine in 64-bit mode with the program at CODE; CODE and DATA are RAM; the stack ends DATA."""
    engine = unicorn.Uc(const.UC_ARCH_X86, const.UC_MODE_64)
    for base in (CODE, DATA):
        engine.mem_map(base, SIZE)
    engine.mem_write(CODE, assemble(source, CODE))
    engine.reg_write(x86.UC_X86_REG_RSP, STACK)
    for name, value in registers.items():
        engine.reg_write(register(name), value)
    return engine


def register(name: str) -> int:
    return int(getattr(x86, f"UC_X86_REG_{name.upper()}"))


def read(engine: unicorn.Uc, *names: str) -> list[int]:
    return [engine.reg_read(register(name)) for name in names]


def run(engine: unicorn.Uc, begin: int = CODE) -> None:
    """To a HLT, the way the CPU runs."""
    engine.ctl_exits_enabled(True)
    engine.emu_start(begin, 0)


def blocks_of(engine: unicorn.Uc) -> list[tuple[int, int]]:
    blocks: list[tuple[int, int]] = []
    engine.hook_add(const.UC_HOOK_BLOCK, lambda uc, address, size, user: blocks.append((address - CODE, size)))
    return blocks


def limit_next_block(engine: unicorn.Uc, instructions: int) -> None:
    state = private.find_cpu_state(engine)
    ctypes.c_uint32.from_address(state + NEXT_BLOCK_FLAGS).value = instructions


# ---- what is relied on


@pytest.mark.parametrize(
    "name",
    [
        "x86_cpu_do_interrupt",
        "do_interrupt_x86_hardirq",
        "cpu_cc_compute_all",
        "x86_update_hflags",
        "raise_exception_err",
        "get_page_addr_code_hostp",
        "tlb_reset_dirty",
        "tlb_flush",
        "cpu_ldub_code",
        "cpu_loop_exit_noexc",
        "cpu_restore_state",
        "tb_flush",
        "tb_invalidate_phys_range",
        "x86_cpu_get_phys_page_attrs_debug",
        "x86_cpu_set_a20",
        "cpu_x86_update_dr7",
        "cpu_x86_update_cr0",
        "qemu_ram_addr_from_host",
        "check_exit_request",
    ],
)
def test_private_functions_are_exported(name: str) -> None:
    assert unicorn_library.exported(f"{name}_x86_64")


@pytest.mark.parametrize(
    "name",
    [
        "translator_loop",
        "tlb_reset_dirty_by_vaddr",
        "tb_invalidate_phys_page_fast",
        "tlb_set_dirty",
        "tlb_set_page_with_attrs",
    ],
)
def test_unicorn_calls_itself_through_its_linkage_table(name: str) -> None:
    assert linkage.slot(f"{name}_x86_64").value


@pytest.mark.parametrize("name", HELPERS)
def test_a_helper_stands_in_the_table_of_helpers_and_in_the_global_offset_table(name: str) -> None:
    """Translated code has its address from one, which has to be known in the other."""
    address = unicorn_library.exported(f"helper_{name}_x86_64")
    places = linkage.places_of([address])[address]
    assert len(places) == 2
    values = {ctypes.c_uint64.from_address(place).value for place in places}
    assert len(values) == 1, "both are Unicorn's, or both are ours"


def test_the_private_fields_are_where_they_are_said_to_be() -> None:
    private.prove.__wrapped__()


@pytest.mark.parametrize(
    ("instruction", "ends"),
    [
        ("sti", True),
        ("popfq", True),
        ("mov ss, ax", True),
        ("mov cr3, rax", True),
        ("invlpg [rax]", True),
        ("cli", False),
        ("mov ds, ax", True),
        ("rdtsc", False),
        ("in al, dx", False),
        ("cpuid", False),
    ],
)
def test_what_ends_its_block(instruction: str, ends: bool) -> None:
    engine = machine(f"pushfq\n {instruction}\n nop\n nop\n hlt", rax=0)
    if instruction == "mov cr3, rax":
        engine.ctl_set_tlb_mode(const.UC_TLB_VIRTUAL)
    blocks = blocks_of(engine)
    size = len(assemble(f"pushfq\n {instruction}"))
    engine.hook_add(const.UC_HOOK_INTR, lambda uc, number, user: uc.emu_stop())
    run(engine)
    assert (blocks[0] == (0, size)) == ends


def test_each_iteration_of_a_repeated_string_instruction_is_a_block_and_one_more() -> None:
    engine = machine("nop\n rep stosb\n hlt", rdi=DATA, rcx=3)
    blocks = blocks_of(engine)
    run(engine)
    assert [start for start, _ in blocks] == [0, 1, 1, 1, 3]
    assert blocks[0] == (0, 3)  # the first iteration is the end of the block that leads there


def test_the_next_block_can_be_limited() -> None:
    engine = machine("inc eax\n inc eax\n inc eax\n hlt", rax=0)
    blocks = blocks_of(engine)
    limit_next_block(engine, 2)
    run(engine)
    assert blocks[:2] == [(0, 4), (4, 3)]


def test_a_software_interrupt_arrives_with_pc_behind_it_and_a_fault_with_pc_on_it() -> None:
    seen: list[tuple[int, int]] = []
    engine = machine("nop\n int 0x30\n xor ecx, ecx\n div ecx\n hlt")

    def note(uc: unicorn.Uc, number: int, user: object) -> None:
        seen.append((number, uc.reg_read(x86.UC_X86_REG_RIP) - CODE))
        if number == 0:
            uc.emu_stop()

    engine.hook_add(const.UC_HOOK_INTR, note)
    run(engine)
    assert seen == [(0x30, 3), (0, 5)]


def test_an_undefined_instruction_arrives_in_a_hook_of_its_own() -> None:
    engine = machine("nop\n ud2\n hlt")
    seen: list[int] = []

    def invalid(uc: unicorn.Uc, user: object) -> bool:
        seen.append(uc.reg_read(x86.UC_X86_REG_RIP) - CODE)
        uc.reg_write(x86.UC_X86_REG_RIP, CODE + 3)
        return True

    engine.hook_add(const.UC_HOOK_INSN_INVALID, invalid)
    run(engine)
    assert seen == [1]


def test_flags_are_whole_after_a_run_and_lazy_in_it() -> None:
    engine = machine("cmp eax, ebx\n jmp 1f\n1: hlt", rax=1, rbx=2)
    env = private.find_cpu_state(engine) + private.ENV
    kinds: list[int] = []
    engine.hook_add(
        const.UC_HOOK_BLOCK, lambda *_: kinds.append(ctypes.c_uint32.from_address(env + private.CC_OP).value)
    )
    run(engine)
    assert kinds[0] == 1 and kinds[1] != 1
    assert read(engine, "eflags")[0] & FLAGS == 0x95


def test_data_breakpoints_of_the_debug_registers_do_nothing() -> None:
    engine = machine("mov dr0, rax\n mov dr7, rbx\n mov [rax], ecx\n hlt", rax=DATA, rbx=0x000D0402)
    seen: list[int] = []
    engine.hook_add(const.UC_HOOK_INTR, lambda uc, number, user: seen.append(number))
    run(engine)
    assert not seen


# ---- what is put right


def cmpxchg16b_flags(split: bool) -> int:
    engine = machine(
        "add r9, rsi\n cmpxchg16b [rdi]\n pushfq\n pop r8\n hlt",
        rsi=0x1234567800454500, rdi=DATA, rax=0, rdx=0, r9=0,
    )  # fmt: skip
    if split:
        limit_next_block(engine, 1)
    run(engine)
    return read(engine, "r8")[0]


def test_cmpxchg16b_reads_stale_flags_unless_it_is_first_in_its_block() -> None:
    assert cmpxchg16b_flags(split=False) != 0x46
    assert cmpxchg16b_flags(split=True) == 0x46


def bit_test_flags(split: bool) -> int:
    engine = machine("add eax, 0x7fffffff\n bt eax, 3\n pushfq\n pop r8\n hlt", rax=5)
    if split:
        limit_next_block(engine, 1)
    run(engine)
    return read(engine, "r8")[0]


def test_the_undefined_flags_of_a_bit_test_depend_on_where_its_block_begins() -> None:
    whole, split = bit_test_flags(False), bit_test_flags(True)
    assert whole & 1 == split & 1
    assert whole != split


def flags_at_fault(instruction: str) -> tuple[int, int]:
    """Flags at a faulting store, and what they are architecturally (0x91: 5 - 7)."""
    engine = machine(f"cmp eax, 7\n {instruction}\n hlt", rax=5, rbx=1 << 60)
    found: list[int] = []

    def note(uc: unicorn.Uc, number: int, user: object) -> None:
        compute = exported("cpu_cc_compute_all_x86_64", ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int)
        env = private.find_cpu_state(uc) + private.ENV
        found.append(compute(env, ctypes.c_uint32.from_address(env + private.CC_OP).value))
        uc.emu_stop()

    engine.hook_add(const.UC_HOOK_INTR, note)
    engine.hook_add(const.UC_HOOK_MEM_WRITE_UNMAPPED | const.UC_HOOK_MEM_READ_UNMAPPED, lambda *_: False)
    engine.reg_write(x86.UC_X86_REG_MSR, (0xC000_0080, 0x500))
    with_tables(engine)
    run(engine)
    return found[0], 0x91


def with_tables(engine: unicorn.Uc) -> None:
    """Paging on, one to one, so that a fault is the guest's."""
    engine.mem_map(0x8000, 0x4000)
    engine.mem_write(0x8000, (0x9007).to_bytes(8, "little"))
    engine.mem_write(0x9000, (0xA007).to_bytes(8, "little"))
    engine.mem_write(0xA000, (0x0087).to_bytes(8, "little"))
    engine.reg_write(x86.UC_X86_REG_CR3, 0x8000)
    engine.reg_write(x86.UC_X86_REG_CR4, 0x20)
    engine.reg_write(x86.UC_X86_REG_CR0, 0x8000_0011)


def test_a_setcc_that_faults_leaves_other_flags() -> None:
    found, right = flags_at_fault("seto byte ptr [rbx]")
    assert found != right
    found, right = flags_at_fault("mov byte ptr [rbx], al")
    assert found == right


def test_a_store_into_its_own_block_begins_a_block_again_for_itself() -> None:
    engine = machine("nop\n mov byte ptr [rip + patch], 0x90\n nop\npatch: nop\n hlt")
    blocks = blocks_of(engine)
    run(engine)
    assert blocks[0][0] == 0
    assert blocks[1] == (1, 7)  # the store alone
    assert blocks[2][0] == 8


def test_a_store_through_another_mapping_is_not_seen_once_it_is_fast() -> None:
    engine = unicorn.Uc(const.UC_ARCH_X86, const.UC_MODE_64)
    engine.mem_map(0, 0x40_0000)
    # DATA's page again at 4 MiB, not executable
    tables = {0x8000: 0x9007, 0x9000: 0xA007, 0xA000: 0x0087, 0xA010: 0xB007, 0xB000: DATA | 7 | 1 << 63}
    for address, entry in tables.items():
        engine.mem_write(address, entry.to_bytes(8, "little"))
    source = """
    mov byte ptr [rbx + 0x800], 1
    mov ecx, 3
1:  call rdi
    inc byte ptr [rbx + 2]
    loop 1b
    hlt
    """
    engine.mem_write(CODE, assemble(source, CODE))
    engine.mem_write(DATA, assemble("mov r9d, 0x00\n ret\n"))
    engine.mem_write(DATA, b"\x83\xc0\x01\xc3")  # add eax, 1; ret
    for name, value in (("rsp", STACK), ("rbx", 0x40_0000), ("rdi", DATA), ("rax", 0)):
        engine.reg_write(register(name), value)
    engine.reg_write(x86.UC_X86_REG_MSR, (0xC000_0080, 0xD00))
    engine.reg_write(x86.UC_X86_REG_CR3, 0x8000)
    engine.reg_write(x86.UC_X86_REG_CR4, 0x20)
    engine.reg_write(x86.UC_X86_REG_CR0, 0x8000_0011)
    run(engine)
    assert engine.mem_read(DATA, 3) == b"\x83\xc0\x04"
    assert read(engine, "rax") == [3]  # a processor adds 1, 2 and 3


def test_a_hooks_record_is_read_when_a_block_is_translated() -> None:
    """Its user pointer there is what the hook is given whenever that block runs."""
    engine = machine("nop\n jmp 1f\n1: hlt")
    got: list[int | None] = []
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)

    def block(_: int, address: int, size: int, user: int | None) -> None:
        got.append(user)
        ctypes.c_uint64.from_address(handle + 48).value = 0x2222

    native: Callable[..., None] = prototype(block)
    address = ctypes.cast(native, ctypes.c_void_p).value  # type: ignore[arg-type]  # ctypes types
    assert address is not None
    handle = unicorn_library.add_hook(engine, const.UC_HOOK_BLOCK, address, 0x1111)
    run(engine)
    assert got == [0x1111, 0x2222]
