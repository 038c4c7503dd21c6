"""Unicorn's private AArch64 fields: where they are, and the provocations that prove it before anything relies on it.

The offsets are those of the wheel of Unicorn 2.1.4 for x86-64 Linux.  ``prove`` makes a scratch engine do things whose
effect on each field is known (set a register, fault, access a device, end a block early) and compares.  A Unicorn that
does not match is refused: with a wrong offset a guest would be silently wrong.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from ctypes import c_int, c_uint64, c_void_p
from functools import cache

import unicorn
from unicorn import arm64_const as arm64
from unicorn import unicorn_const as const

from timevm.engine.cpu import unicorn_library
from timevm.engine.cpu.private import (
    ACCESS_HOST_PC,
    EXCEPTION_INDEX,
    NEXT_BLOCK_FLAGS,
    cpu_state_of,
    exit_request_offset,
    expect,
    read_u32,
    read_u64,
)

ENV = 0xA350  # CPUARMState inside ARMCPU

# CPUARMState (QEMU's target/arm/cpu.h)
X0 = 0x40
PC = 0x140
PSTATE = 0x148
CARRY, OVERFLOW, NEGATIVE, ZERO = 0x208, 0x20C, 0x210, 0x214
DAIF = 0x230
SYNDROME = 0xBD0
FAULT_ADDRESS = 0xBD8
TARGET_LEVEL = 0xBE0
#: the cycle counter's base (c15_ccnt): the only place where host time gets in; the guest never sees it
HOST_CYCLES = 0x810

CODE = 0x10000
DEVICE = 0x900000
NOP = 0xD503201F


def find_cpu_state(engine: unicorn.Uc) -> int:
    """Address of the engine's CPUState.  Raises InternalError if nothing in ``uc_struct`` looks like one."""
    return cpu_state_of(engine, ENV)


def no_exit_request_offset() -> int:
    """See ``exit_request_offset``."""
    return exit_request_offset("aarch64")


def scratch(words: list[int]) -> tuple[unicorn.Uc, int]:
    engine = unicorn.Uc(const.UC_ARCH_ARM64, const.UC_MODE_ARM)
    engine.mem_map(CODE, 0x1000)
    engine.mem_write(CODE, struct.pack(f"<{len(words)}I", *words))
    return engine, find_cpu_state(engine)


def prove_registers() -> None:
    engine, state = scratch([0xEB02003F])  # cmp x1, x2
    env = state + ENV
    for number in (0, 7, 28):
        engine.reg_write(arm64.UC_ARM64_REG_X0 + number, 0x1122334455660000 + number)
        expect(read_u64(env + X0 + 8 * number) == 0x1122334455660000 + number, f"x{number}")
    for pstate in (0x3C5, 0x0):
        engine.reg_write(arm64.UC_ARM64_REG_PSTATE, pstate)
        expect(read_u32(env + PSTATE) & 0xF == pstate & 0xF, "PSTATE")
        expect(read_u64(env + DAIF) == pstate & 0x3C0, "DAIF")
    engine.reg_write(arm64.UC_ARM64_REG_PSTATE, 0x3C5)
    for left, right in ((1, 2), (2, 1), (5, 5), (1 << 63, 1)):
        engine.reg_write(arm64.UC_ARM64_REG_X1, left)
        engine.reg_write(arm64.UC_ARM64_REG_X2, right)
        engine.emu_start(CODE, CODE + 4)
        expect(read_u64(env + PC) == CODE + 4, "pc")
        found = (
            read_u32(env + CARRY) == 1,
            bool(read_u32(env + OVERFLOW) >> 31),
            bool(read_u32(env + NEGATIVE) >> 31),
            read_u32(env + ZERO) == 0,
        )
        difference = (left - right) & (1 << 64) - 1
        overflow = bool((left ^ right) & (left ^ difference) & 1 << 63)
        expect(found == (left >= right, overflow, bool(difference >> 63), left == right), "condition flags")


def prove_exceptions() -> None:
    seen: list[tuple[int, int, int, int, int]] = []

    def note(_: unicorn.Uc, number: int, __: object) -> None:
        seen.append(
            (
                number,
                read_u32(env + SYNDROME),
                read_u64(env + FAULT_ADDRESS) or 0,
                read_u32(env + TARGET_LEVEL),
                read_u32(state + EXCEPTION_INDEX),
            )
        )
        engine.emu_stop()

    # svc #0x123; brk #5; ldr x0, [x1] with an address that needs alignment checks: ldxr on an odd one
    engine, state = scratch([0xD4002461, 0xD42000A0, 0xC85F7C20])
    env = state + ENV
    engine.hook_add(const.UC_HOOK_INTR, note)
    engine.reg_write(arm64.UC_ARM64_REG_X1, CODE + 0x801)
    for index in range(3):
        engine.emu_start(CODE + 4 * index, CODE + 0x800)
    expect([entry[0] for entry in seen] == [2, 7, 4], f"exception numbers {[entry[0] for entry in seen]}")
    expect(all(entry[0] == entry[4] for entry in seen), "exception_index")
    expect(all(entry[3] == 1 for entry in seen), "exception target")
    expect(seen[0][1] == 0x15 << 26 | 1 << 25 | 0x123, "syndrome of SVC")
    expect(seen[1][1] == 0x3C << 26 | 1 << 25 | 5, "syndrome of BRK")
    expect(seen[2][1] >> 26 == 0x25 and seen[2][2] == CODE + 0x801, "fault address")


def prove_device_access() -> None:
    restore = unicorn_library.function("cpu_restore_state_aarch64", c_int, c_void_p, c_uint64, c_int)
    found: list[tuple[int, int]] = []

    def read(_: unicorn.Uc, offset: int, size: int, __: object) -> int:
        host_pc = read_u64(state + ACCESS_HOST_PC)
        known = restore(state, host_pc, 1) if host_pc else 0
        found.append((known, read_u64(state + ENV + PC) or 0))
        return 0x55

    engine, state = scratch([NOP, NOP, 0xB9400020, NOP])  # ldr w0, [x1] in mid-block
    engine.mmio_map(DEVICE, 0x1000, read, None, None, None)
    engine.reg_write(arm64.UC_ARM64_REG_X1, DEVICE)
    engine.emu_start(CODE, CODE + 16)
    expect(found == [(1, CODE + 8)], "place of a device access")


def prove_block_limit() -> None:
    sizes: list[tuple[int, int]] = []

    def block(_: unicorn.Uc, address: int, size: int, __: object) -> None:
        sizes.append((address - CODE, size))

    engine, state = scratch([NOP] * 6)
    engine.hook_add(const.UC_HOOK_BLOCK, block)
    engine.emu_start(CODE, CODE + 24)
    expect(read_u32(state + NEXT_BLOCK_FLAGS) == 0xFFFFFFFF, "cflags_next_tb at rest")
    ctypes.c_uint32.from_address(state + NEXT_BLOCK_FLAGS).value = 2
    sizes.clear()
    engine.emu_start(CODE, CODE + 24)
    # the last one is the exit that `until` makes, counted as an instruction in some shapes
    expect(sizes[0] == (0, 8) and sizes[1][0] == 8, f"limited block {sizes}")
    expect(read_u32(state + NEXT_BLOCK_FLAGS) == 0xFFFFFFFF, "cflags_next_tb is used once")


def prove_exit_request() -> None:
    """The flag works if an ``emu_stop`` in a device access stops in mid-block without it and not with it."""

    def stops_in_block(flag: bool) -> bool:
        engine, _ = scratch([0xB9400020, 0x91000442, NOP, 0x14000000])  # ldr w0,[x1]; add x2,x2,#1; nop; b .
        handle = unicorn_library.handle_of(engine)
        address = handle + no_exit_request_offset()
        expect(ctypes.c_uint8.from_address(address).value == 0, "no_exit_request at rest")
        ctypes.c_uint8.from_address(address).value = int(flag)
        read: Callable[..., int] = lambda uc, offset, size, user: (uc.emu_stop(), 0)[1]  # noqa: E731
        engine.mmio_map(DEVICE, 0x1000, read, None, None, None)
        engine.reg_write(arm64.UC_ARM64_REG_X1, DEVICE)
        engine.emu_start(CODE, CODE + 0x800)
        return int(engine.reg_read(arm64.UC_ARM64_REG_X2)) == 0

    expect(stops_in_block(False) and not stops_in_block(True), "no_exit_request")


@cache
def prove() -> None:
    """All provocations, once in a process (about 30 ms).  Raises InternalError if one has another outcome."""
    unicorn_library.check_version()
    prove_registers()
    prove_exceptions()
    prove_device_access()
    prove_block_limit()
    prove_exit_request()
