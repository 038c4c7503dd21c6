"""Unicorn's private x86 fields: where they are, and the provocations that prove it before anything relies on it.

The offsets are those of the wheel of Unicorn 2.1.4 for x86-64 Linux.  ``prove`` makes a scratch engine do things whose
effect on each field is known and compares; a Unicorn that does not match is refused.  See ``aarch64_private``.
"""

from __future__ import annotations

import ctypes
import struct
from ctypes import c_int32, c_uint16, c_uint32, c_uint64
from functools import cache

import unicorn
from unicorn import unicorn_const as const
from unicorn import x86_const as x86

from timevm.engine.cpu import linkage, unicorn_library
from timevm.engine.cpu.native import counted as native
from timevm.engine.cpu.private import (
    ACCESS_HOST_PC,
    EXCEPTION_INDEX,
    HALTED,
    NEXT_BLOCK_FLAGS,
    cpu_state_of,
    exit_request_offset,
    expect,
    read_u32,
    read_u64,
)

ENV = 0x8A50  # CPUX86State inside X86CPU

# CPUX86State (QEMU's target/i386/cpu.h)
REGS = 0
EIP = 128
EFLAGS = 136
CC_DST, CC_SRC, CC_SRC2 = 144, 152, 160
CC_OP, DF = 168, 172
HIDDEN_FLAGS, HIDDEN_FLAGS2 = 176, 180
SEGMENTS = 184
LDT, TR, GDT, IDT = 328, 352, 376, 400
CONTROL = 424
A20_MASK = 496
EFER = 592
FLOAT_TOP, FLOAT_STATUS, FLOAT_CONTROL, FLOAT_TAGS = 604, 608, 610, 612  # fpstt, fpus, fpuc, fptags
FLOATS, FLOAT_SIZE, FLOAT_COUNT = 624, 16, 8  # fpregs, of which 10 bytes are the register
FLOAT_OPERAND = 784  # ft0
X87_STATUS, SSE_STATUS, MXCSR = 776, 808, 816  # fp_status, sse_status
NOTED_EXCEPTIONS = 2  # float_exception_flags in such a status
VECTORS, VECTOR_SIZE = 824, 64  # xmm_regs, of which SSE has 16 bytes, and behind them xmm_t0
VECTOR_COUNT = 33
SYSENTER_CS, SYSENTER_SP, SYSENTER_IP = 4800, 4808, 4816
STAR = 4824
LSTAR, CSTAR, FMASK = 4840, 4848, 4856
KERNEL_GS = 4864
TSC_AUX = 4896
ERROR_CODE = 5384
IS_SOFTWARE_INTERRUPT = 5388
AFTER_SOFTWARE_INTERRUPT = 5392
DEBUG = 5400
DEBUG_POINTERS, DEBUG_POINTERS_END = 5464, 5496
EXCEPTION_IN_FLIGHT = 5496
ACCESS_RETURN = 5560  # retaddr
CONTEXT = 0x15C0  # bytes that a context holds
FEATURES = 0x1600
#: mtrr_fixed, mtrr_deftype, mtrr_var, and their numbers among the model-specific registers
MEMORY_TYPES, MEMORY_TYPES_SIZE = 0x18B0, 224
MEMORY_TYPE_REGISTERS = (0x250, 0x258, 0x259, *range(0x268, 0x270), 0x2FF, *range(0x200, 0x210))

#: bit of hidden_flags: code of 64 bits
CODE_64 = 1 << 15
CODE, DATA, DEVICE = 0x10000, 0x20000, 0x900000


def find_cpu_state(engine: unicorn.Uc) -> int:
    """Address of the engine's CPUState.  Raises InternalError if nothing in ``uc_struct`` looks like one."""
    return cpu_state_of(engine, ENV)


def no_exit_request_offset() -> int:
    """See ``exit_request_offset``."""
    return exit_request_offset("x86_64")


def scratch(code: bytes) -> tuple[unicorn.Uc, int]:
    engine = unicorn.Uc(const.UC_ARCH_X86, const.UC_MODE_64, x86.UC_CPU_X86_QEMU64)
    engine.mem_map(CODE, 0x1000)
    engine.mem_map(DATA, 0x1000)
    engine.mem_write(CODE, code)
    return engine, find_cpu_state(engine)


def prove_registers() -> None:
    engine, state = scratch(b"\x90")
    env = state + ENV
    names = ("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", *(f"R{n}" for n in range(8, 16)), "RIP")
    for number, name in enumerate(names):
        value = 0x1122_3344_5566_0000 + number
        engine.reg_write(getattr(x86, f"UC_X86_REG_{name}"), value)
        expect(read_u64(env + REGS + 8 * number) == value, name)
    for name, offset in (("CR2", CONTROL + 16), ("CR3", CONTROL + 24), ("DR0", DEBUG), ("DR6", DEBUG + 48)):
        engine.reg_write(getattr(x86, f"UC_X86_REG_{name}"), 0x1234_5000)
        expect(read_u64(env + offset) == 0x1234_5000, name)
    for index, name in enumerate(("ES", "CS", "SS", "DS")):
        engine.reg_write(getattr(x86, f"UC_X86_REG_{name}"), 0x60 + 8 * index)
        expect(read_u32(env + SEGMENTS + 24 * index) == 0x60 + 8 * index, name)
    for number in range(FLOAT_COUNT):
        engine.reg_write(getattr(x86, f"UC_X86_REG_FP{number}"), (0x8765_4321_0000_0000 + number, 0x3FFF))
        expect(read_u64(env + FLOATS + FLOAT_SIZE * number) == 0x8765_4321_0000_0000 + number, f"FP{number}")
    engine.reg_write(x86.UC_X86_REG_FPCW, 0x0B7F)
    engine.reg_write(x86.UC_X86_REG_FPSW, 5 << 11 | 0x4141)
    engine.reg_write(x86.UC_X86_REG_FPTAG, 0x5555)
    words = (read_u32(env + FLOAT_TOP), read_u32(env + FLOAT_STATUS) & 0xFFFF, read_u32(env + FLOAT_CONTROL) & 0xFFFF)
    expect(words == (5, 0x4141, 0x0B7F), "top, status and control of the x87")
    expect(ctypes.string_at(env + FLOAT_TAGS, FLOAT_COUNT) == bytes(FLOAT_COUNT), "tags of the x87")
    for number in (0, 1, 15):
        engine.reg_write(getattr(x86, f"UC_X86_REG_XMM{number}"), 0x1122_3344_5566_0000 + number)
        expect(read_u64(env + VECTORS + VECTOR_SIZE * number) == 0x1122_3344_5566_0000 + number, f"XMM{number}")
    for index, number in enumerate(MEMORY_TYPE_REGISTERS):
        engine.reg_write(x86.UC_X86_REG_MSR, (number, 0x0606_0606_0000_0000 + number))
        expect(read_u64(env + MEMORY_TYPES + 8 * index) == 0x0606_0606_0000_0000 + number, f"MTRR {number:#x}")
    for name, index in (("FS_BASE", 4), ("GS_BASE", 5)):
        engine.reg_write(getattr(x86, f"UC_X86_REG_{name}"), 0x7777_0000_1111)
        expect(read_u64(env + SEGMENTS + 24 * index + 8) == 0x7777_0000_1111, name)
    for name, offset in (("LDTR", LDT), ("TR", TR), ("GDTR", GDT), ("IDTR", IDT)):
        engine.reg_write(getattr(x86, f"UC_X86_REG_{name}"), (0, 0x1234_5678_9ABC, 0x123, 0))
        expect((read_u64(env + offset + 8), read_u32(env + offset + 16)) == (0x1234_5678_9ABC, 0x123), name)
    model_specific = {
        0x175: SYSENTER_SP,
        0x176: SYSENTER_IP,
        0xC000_0081: STAR,
        0xC000_0082: LSTAR,
        0xC000_0083: CSTAR,
        0xC000_0084: FMASK,
        0xC000_0102: KERNEL_GS,
        0xC000_0103: TSC_AUX,
    }
    for number, offset in model_specific.items():
        engine.reg_write(x86.UC_X86_REG_MSR, (number, 0x0123_4567_0000_0000 | number))
        expect(read_u64(env + offset) == 0x0123_4567_0000_0000 | number, f"MSR {number:#x}")
    engine.reg_write(x86.UC_X86_REG_MSR, (0x174, 0x10))
    expect(read_u32(env + SYSENTER_CS) == 0x10, "SYSENTER_CS")
    engine.reg_write(x86.UC_X86_REG_MSR, (0xC000_0080, 0xD01))
    expect((read_u64(env + EFER) or 0) & 0x901 == 0x901, "EFER")
    expect(read_u32(env + HIDDEN_FLAGS) & CODE_64 != 0, "hidden flags")
    expect(read_u32(env + A20_MASK) == 0xFFFF_FFFF, "A20 mask")
    features = (read_u32(env + FEATURES), read_u32(env + FEATURES + 8), read_u32(env + FEATURES + 48))
    expect(features == (0x78BFBFD, 0x80002001, 0x2193FBFD), "CPUID features")
    context = engine.context_save()
    size = ctypes.c_size_t.from_address(context.context.value).value
    expect(size == CONTEXT, f"{size} bytes of context")


def prove_flags() -> None:
    # cmp eax, ebx; std; hlt
    engine, state = scratch(b"\x39\xd8\xfd\xf4")
    env = state + ENV
    seen: list[tuple[int, int, int]] = []
    engine.hook_add(
        const.UC_HOOK_BLOCK,
        lambda *_: seen.append((c_int32.from_address(env + CC_OP).value, *struct.unpack("<Qi", _lazy(env)))),
    )
    engine.reg_write(x86.UC_X86_REG_RAX, 5)
    engine.reg_write(x86.UC_X86_REG_RBX, 7)
    engine.ctl_exits_enabled(True)
    engine.reg_write(x86.UC_X86_REG_EFLAGS, 0x8D7)
    engine.emu_start(CODE, 0)
    expect(seen[0] == (1, 0x8D5, 1), f"flags at a block start {seen}")
    expect(read_u32(env + EFLAGS) & 0xCD5 == 0x491, "flags of a comparison")
    expect(c_uint32.from_address(state + HALTED).value == 1, "halted")


def _lazy(env: int) -> bytes:
    return ctypes.string_at(env + CC_SRC, 8) + ctypes.string_at(env + DF, 4)


def prove_exceptions() -> None:
    # mov [rbx], eax; int 0x80
    engine, state = scratch(b"\x90\x89\x03\xcd\x80")
    env = state + ENV
    seen: list[tuple[int, ...]] = []

    def note(_: unicorn.Uc, number: int, __: object) -> None:
        software = c_int32.from_address(env + IS_SOFTWARE_INTERRUPT).value
        after = read_u64(env + AFTER_SOFTWARE_INTERRUPT) or 0
        in_flight = c_int32.from_address(env + EXCEPTION_IN_FLIGHT).value
        seen.append(
            (number, read_u32(state + EXCEPTION_INDEX), software, after, in_flight, read_u64(env + EIP) or 0,
             int((read_u64(env + ACCESS_RETURN) or 0) != 0))
        )  # fmt: skip
        engine.emu_stop()

    engine.hook_add(const.UC_HOOK_INTR, note)
    engine.reg_write(x86.UC_X86_REG_RBX, 1 << 60)  # not canonical
    engine.reg_write(x86.UC_X86_REG_MSR, (0xC000_0080, 0x500))
    engine.reg_write(x86.UC_X86_REG_CR4, 0x20)
    engine.emu_start(CODE + 3, CODE + 0x800)
    expect(seen[0][:4] == (0x80, 0x80, 1, CODE + 5) and seen[0][5] == CODE + 5, f"software interrupt {seen}")


def prove_vector_status() -> None:
    engine, state = scratch(b"\xf2\x0f\x5e\xc8")  # divsd xmm1, xmm0
    env = state + ENV
    engine.reg_write(x86.UC_X86_REG_MXCSR, 0x5FC0)  # rounding up, denormal operands are zero
    rounding, flushes = (ctypes.c_uint8.from_address(env + SSE_STATUS + at).value for at in (1, 5))
    expect((read_u32(env + MXCSR), rounding, flushes) == (0x5FC0, 2, 1), "MXCSR")
    engine.reg_write(x86.UC_X86_REG_FPCW, 0x0B7F)
    expect(ctypes.c_uint8.from_address(env + X87_STATUS + 1).value == 2, "the x87's direction of rounding")
    engine.reg_write(x86.UC_X86_REG_CR4, 0x620)
    engine.reg_write(x86.UC_X86_REG_XMM1, 0x3FF0_0000_0000_0000)
    engine.emu_start(CODE, CODE + 4)
    expect(ctypes.c_uint8.from_address(env + SSE_STATUS + NOTED_EXCEPTIONS).value == 4, "a division by zero")


def prove_device_access() -> None:
    restore = unicorn_library.function(
        "cpu_restore_state_x86_64", ctypes.c_int, ctypes.c_void_p, c_uint64, ctypes.c_int
    )
    found: list[tuple[int, int]] = []

    def read(_: unicorn.Uc, offset: int, size: int, __: object) -> int:
        host_pc = read_u64(state + ACCESS_HOST_PC)
        found.append((restore(state, host_pc, 1) if host_pc else 0, read_u64(state + ENV + EIP) or 0))
        return 0x55

    engine, state = scratch(b"\x90\x90\x90\x8b\x03\x90")  # mov eax, [rbx] in mid-block
    engine.mmio_map(DEVICE, 0x1000, read, None, None, None)
    engine.reg_write(x86.UC_X86_REG_RBX, DEVICE)
    engine.emu_start(CODE, CODE + 6)
    expect(found == [(1, CODE + 3)], "place of a device access")


def prove_block_limit() -> None:
    sizes: list[tuple[int, int]] = []
    engine, state = scratch(b"\x90" * 6)
    engine.hook_add(const.UC_HOOK_BLOCK, lambda _, address, size, __: sizes.append((address - CODE, size)))
    engine.emu_start(CODE, CODE + 6)
    expect(read_u32(state + NEXT_BLOCK_FLAGS) == 0xFFFFFFFF, "cflags_next_tb at rest")
    c_uint32.from_address(state + NEXT_BLOCK_FLAGS).value = 2
    sizes.clear()
    engine.emu_start(CODE, CODE + 6)
    expect(sizes[0] == (0, 2) and sizes[1][0] == 2, f"limited block {sizes}")


def prove_hook_record() -> None:
    """A hook's handle points to its record, whose user pointer is what the hook is given."""
    engine, _ = scratch(b"\x90")
    handle = engine.hook_add(const.UC_HOOK_BLOCK, lambda *_: None, None, 0x1111, 0x2222)
    record = native.HookRecord.from_address(handle)
    expect((record.type, record.begin, record.end) == (const.UC_HOOK_BLOCK, 0x1111, 0x2222), "hook record")
    expect(bool(record.callback), "hook record's callback")


def prove_translation_block() -> None:
    """The translator is called through its slot, with the structures of ``x86_64.h``."""
    seen: list[tuple[int, ...]] = []
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
    where = linkage.slot("translator_loop_x86_64")
    before = where.value
    original = prototype(before)

    def look(calls: int, translating: int, state: int, block: int, limit: int) -> None:
        original(calls, translating, state, block, limit)
        pc, cs_base = (c_uint64 * 2).from_address(block)
        (flags,) = (c_uint32 * 1).from_address(block + 16)
        size, icount = (c_uint16 * 2).from_address(block + 20)
        first, following = (c_uint64 * 2).from_address(translating + 8)
        end, instructions = (c_int32 * 2).from_address(translating + 24)
        seen.append(
            (pc, cs_base, flags & CODE_64, size, icount, c_uint64.from_address(translating).value - block,
             first, following, end > 1, instructions)
        )  # fmt: skip

    callback = prototype(look)
    where.value = ctypes.cast(callback, ctypes.c_void_p).value or 0
    try:
        engine, _ = scratch(b"\x90\x48\x89\xc3\xeb\xfe")  # nop; mov rbx, rax; jmp .
        engine.emu_start(CODE, CODE + 4)
        engine.emu_start(CODE, CODE + 0x800, count=3)
    finally:
        where.value = before
    expect(seen[0][:3] == (CODE, 0, CODE_64), f"translation block {seen[:1]}")
    last = [entry for entry in seen if entry[0] == CODE][-1]
    expect(last == (CODE, 0, CODE_64, 6, 3, 0, CODE, CODE + 6, True, 3), f"translation {last}")


@cache
def prove() -> None:
    """All provocations, once in a process (about 60 ms).  Raises InternalError if one has another outcome."""
    unicorn_library.check_version()
    prove_registers()
    prove_flags()
    prove_exceptions()
    prove_vector_status()
    prove_device_access()
    prove_block_limit()
    prove_hook_record()
    prove_translation_block()
