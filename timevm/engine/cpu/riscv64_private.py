"""Unicorn's private RISC-V fields: where they are, and the provocations that prove it before anything relies on it.

The offsets are those of the wheel of Unicorn 2.1.4 for x86-64 Linux.  ``prove`` makes a scratch engine do things whose
effect on each field is known and compares; a Unicorn that does not match is refused.  See ``aarch64_private``.
"""

from __future__ import annotations

import ctypes
import struct
from ctypes import c_int, c_int32, c_uint16, c_uint32, c_uint64, c_void_p
from functools import cache

import unicorn
from unicorn import riscv_const as riscv
from unicorn import unicorn_const as const

from timevm.engine.cpu import linkage, unicorn_library
from timevm.engine.cpu.private import (
    ACCESS_HOST_PC,
    EXCEPTION_INDEX,
    NEXT_BLOCK_FLAGS,
    SCAN,
    cpu_state_of,
    exit_request_offset,
    expect,
    read_u32,
    read_u64,
    refused,
)

ENV = 0x8D10  # CPURISCVState inside RISCVCPU

# CPURISCVState (QEMU's target/riscv/cpu.h)
GENERAL, FLOATS = 0, 256
PC = 512
RESERVATION, RESERVED_VALUE = 520, 528  # load_res, load_val
BAD_ADDRESS, GUEST_PHYSICAL_FAULT = 544, 552
MODE = 592
STATUS, PENDING = 624, 632
CLAIMED = 640
ENABLED, DELEGATED = 648, 656
TRANSLATION = 672
SUPERVISOR_BAD_ADDRESS, MACHINE_BAD_ADDRESS = 680, 688
DELEGATED_EXCEPTIONS = 696
SUPERVISOR_VECTOR, SUPERVISOR_PC, SUPERVISOR_CAUSE = 704, 712, 720
MACHINE_VECTOR, MACHINE_PC, MACHINE_CAUSE = 728, 736, 744
COUNTERS_USER, COUNTERS_SUPERVISOR = 952, 960
CONTEXT = 1528  # bytes that a context holds

CODE, DATA, DEVICE = 0x10000, 0x20000, 0x900000
NOP, EBREAK, ECALL = 0x13, 0x0010_0073, 0x73
MODEL = riscv.UC_CPU_RISCV64_SIFIVE_U54
USER_CALL = 8


def find_cpu_state(engine: unicorn.Uc) -> int:
    """Address of the engine's CPUState.  Raises InternalError if nothing in ``uc_struct`` looks like one."""
    return cpu_state_of(engine, ENV)


def no_exit_request_offset() -> int:
    """See ``exit_request_offset``."""
    return exit_request_offset("riscv64")


@cache
def error_offset() -> int:
    """Offset in ``uc_struct`` of the error that ends a run: the field that EBREAK changes to UC_ERR_EXCEPTION."""

    def fields() -> tuple[int, ...]:
        return struct.unpack(f"<{SCAN // 4}I", ctypes.string_at(unicorn_library.handle_of(engine), SCAN))

    engine, _ = scratch([NOP, EBREAK])
    before: list[tuple[int, ...]] = []

    def note(_: unicorn.Uc, __: object) -> bool:
        before.append(fields())
        return False

    engine.hook_add(const.UC_HOOK_INSN_INVALID, note)
    try:
        engine.emu_start(CODE, CODE + 0x800)
        raise refused("EBREAK is no error")
    except unicorn.UcError as error:
        expect(error.errno in (const.UC_ERR_EXCEPTION, const.UC_ERR_INSN_INVALID), f"EBREAK gives {error}")
    engine.ctl_flush_tb()
    engine.emu_start(CODE, CODE + 4)
    changed = [
        4 * place
        for place, (then, now) in enumerate(zip(before[0], fields(), strict=True))
        if then == const.UC_ERR_EXCEPTION and now == const.UC_ERR_OK
    ]
    expect(len(changed) == 1, f"the place of the engine's error {changed}")
    return changed[0]


def scratch(words: list[int]) -> tuple[unicorn.Uc, int]:
    engine = unicorn.Uc(const.UC_ARCH_RISCV, const.UC_MODE_RISCV64, MODEL)
    engine.mem_map(CODE, 0x1000)
    engine.mem_map(DATA, 0x1000)
    engine.mem_write(CODE, struct.pack(f"<{len(words)}I", *words))
    engine.reg_read(riscv.UC_RISCV_REG_PC)
    return engine, find_cpu_state(engine)


def prove_registers() -> None:
    engine, state = scratch([NOP])
    env = state + ENV
    for number in (1, 7, 31):
        engine.reg_write(riscv.UC_RISCV_REG_X0 + number, 0x1122_3344_5566_0000 + number)
        expect(read_u64(env + GENERAL + 8 * number) == 0x1122_3344_5566_0000 + number, f"x{number}")
        engine.reg_write(riscv.UC_RISCV_REG_F0 + number, 0x2122_3344_5566_0000 + number)
        expect(read_u64(env + FLOATS + 8 * number) == 0x2122_3344_5566_0000 + number, f"f{number}")
    engine.reg_write(riscv.UC_RISCV_REG_PC, 0x1234_5678)
    expect(read_u64(env + PC) == 0x1234_5678, "pc")
    for name, offset, value in (
        ("MIE", ENABLED, 0x222),
        ("MIDELEG", DELEGATED, 0x222),
        ("MEDELEG", DELEGATED_EXCEPTIONS, 0xB109),
        ("SATP", TRANSLATION, 8 << 60 | 0x1234),
        ("STVAL", SUPERVISOR_BAD_ADDRESS, 0x1111),
        ("MTVAL", MACHINE_BAD_ADDRESS, 0x2222),
        ("STVEC", SUPERVISOR_VECTOR, 0x3000),
        ("SEPC", SUPERVISOR_PC, 0x4000),
        ("SCAUSE", SUPERVISOR_CAUSE, 5),
        ("MTVEC", MACHINE_VECTOR, 0x6000),
        ("MEPC", MACHINE_PC, 0x7000),
        ("MCAUSE", MACHINE_CAUSE, 8),
        ("SCOUNTEREN", COUNTERS_USER, 5),
        ("MCOUNTEREN", COUNTERS_SUPERVISOR, 7),
        ("MSTATUS", STATUS, 0x6000),
    ):
        engine.reg_write(getattr(riscv, f"UC_RISCV_REG_{name}"), value)
        found = (read_u64(env + offset) or 0) & ~(1 << 63) if name == "MSTATUS" else read_u64(env + offset)
        expect(found == value, name)
    for mode in (1, 0, 3):
        engine.reg_write(riscv.UC_RISCV_REG_PRIV, mode)
        expect(read_u64(env + MODE) == mode, "privilege mode")
    context = engine.context_save()
    size = ctypes.c_size_t.from_address(context.context.value).value
    expect(size == CONTEXT, f"{size} bytes of context")


def prove_exceptions() -> None:
    """ECALL comes with pc behind it, a fault with its address and pc 4 too far."""
    seen: list[tuple[int, ...]] = []

    def note(_: unicorn.Uc, number: int, __: object) -> None:
        pc, address = read_u64(env + PC) or 0, read_u64(env + BAD_ADDRESS) or 0
        seen.append((number, read_u32(state + EXCEPTION_INDEX), pc - CODE, address))
        engine.emu_stop()

    # ecall; amoadd.w x0, x0, (x1) with an address that is not aligned; lr.d x2, (x3)
    engine, state = scratch([ECALL, 0x0000_A02F, 0x1001_B12F])
    env = state + ENV
    engine.hook_add(const.UC_HOOK_INTR, note)
    engine.emu_start(CODE, CODE + 0x800)
    expect(seen[0][:3] == (USER_CALL, USER_CALL, 4), f"ECALL {seen}")
    engine.reg_write(riscv.UC_RISCV_REG_X3, DATA + 8)
    engine.mem_write(DATA + 8, b"\x77")
    engine.emu_start(CODE + 8, CODE + 12)
    expect((read_u64(env + RESERVATION), read_u64(env + RESERVED_VALUE)) == (DATA + 8, 0x77), "reservation")
    # lw x1, 0(x1) in S-mode with Sv39 and empty tables
    engine.mem_write(CODE, struct.pack("<I", 0x0000_A083))
    engine.ctl_flush_tb()
    engine.reg_write(riscv.UC_RISCV_REG_X1, 0x1238)
    engine.reg_write(riscv.UC_RISCV_REG_SATP, 8 << 60 | DATA >> 12)
    engine.reg_write(riscv.UC_RISCV_REG_MSTATUS, 1 << 17 | 1 << 11)  # MPRV: loads as in S-mode
    seen.clear()
    engine.emu_start(CODE, CODE + 0x800)
    expect(seen[0] == (13, 13, 4, 0x1238), f"load page fault {seen}")


def prove_device_access() -> None:
    restore = unicorn_library.function("cpu_restore_state_riscv64", c_int, c_void_p, c_uint64, c_int)
    found: list[tuple[int, int]] = []

    def read(_: unicorn.Uc, offset: int, size: int, __: object) -> int:
        host_pc = read_u64(state + ACCESS_HOST_PC)
        found.append((restore(state, host_pc, 1) if host_pc else 0, read_u64(state + ENV + PC) or 0))
        return 0x55

    engine, state = scratch([NOP, NOP, 0x0000_A103, NOP])  # lw x2, 0(x1) in mid-block
    engine.mmio_map(DEVICE, 0x1000, read, None, None, None)
    engine.reg_write(riscv.UC_RISCV_REG_X1, DEVICE)
    engine.emu_start(CODE, CODE + 16)
    expect(found == [(1, CODE + 8)], "place of a device access")


def prove_block_limit() -> None:
    sizes: list[tuple[int, int]] = []
    engine, state = scratch([NOP] * 6)
    engine.hook_add(const.UC_HOOK_BLOCK, lambda _, address, size, __: sizes.append((address - CODE, size)))
    engine.emu_start(CODE, CODE + 24)
    expect(read_u32(state + NEXT_BLOCK_FLAGS) == 0xFFFF_FFFF, "cflags_next_tb at rest")
    c_uint32.from_address(state + NEXT_BLOCK_FLAGS).value = 2
    sizes.clear()
    engine.emu_start(CODE, CODE + 24)
    expect(sizes[0] == (0, 8) and sizes[1][0] == 8, f"limited block {sizes}")


def prove_translation_block() -> None:
    """The translator is called through its slot, with the structures of ``riscv64.h``."""
    seen: list[tuple[int, ...]] = []
    prototype = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_void_p, c_void_p, c_int)
    where = linkage.slot("translator_loop_riscv64")
    before = where.value
    original = prototype(before)

    def look(calls: int, translating: int, state: int, block: int, limit: int) -> None:
        original(calls, translating, state, block, limit)
        pc, cs_base = (c_uint64 * 2).from_address(block)
        size, icount = (c_uint16 * 2).from_address(block + 20)
        first, following = (c_uint64 * 2).from_address(translating + 8)
        end, instructions = (c_int32 * 2).from_address(translating + 24)
        seen.append(
            (pc, cs_base, size, icount, c_uint64.from_address(translating).value - block,
             first, following, end > 1, instructions)
        )  # fmt: skip

    callback = prototype(look)
    where.value = ctypes.cast(callback, c_void_p).value or 0
    try:
        # c.nop; addi x1, x1, 1; j .
        engine, _ = scratch([])
        engine.mem_write(CODE, struct.pack("<HII", 1, 0x0010_8093, 0x6F))
        engine.ctl_exits_enabled(True)
        engine.emu_start(CODE, 0, count=4)
    finally:
        where.value = before
    last = [entry for entry in seen if entry[0] == CODE][-1]
    expect(last == (CODE, 0, 10, 3, 0, CODE, CODE + 10, True, 3), f"translation {seen}")


@cache
def prove() -> None:
    """All provocations, once in a process (about 60 ms).  Raises InternalError if one has another outcome."""
    unicorn_library.check_version()
    prove_registers()
    prove_exceptions()
    prove_device_access()
    prove_block_limit()
    prove_translation_block()
    error_offset()
