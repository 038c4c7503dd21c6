"""The x86 CPU's state as bytes: Unicorn's structure without what a run leaves in it by chance, and what lies outside.

Between runs Unicorn keeps all flags in ``eflags``; what their lazy form was last made of is left over and cleared here,
as are host addresses.  Of a vector register 16 bytes are the guest's (SSE), of an x87 register 10: Unicorn's helpers
assign all 64 and 16, and what they do not compute is what was on the host's stack.
Debug registers are put back through Unicorn, which keeps break- and watchpoints for them.
"""

from __future__ import annotations

import ctypes
from ctypes import c_uint32, c_uint64, c_void_p

import unicorn
from unicorn import x86_const as x86

from timevm.engine.cpu import unicorn_library
from timevm.engine.cpu import x86_64_private as private

#: the lazy form of flags that are all in ``eflags``
ALL_FLAGS = 1
NO_BREAKPOINTS = 0x400
#: real mode at F000:FFF0 (Intel SDM 3A, 9.1.4)
RESET_SEGMENT, RESET_BASE, RESET_OFFSET = 0xF000, 0xFFFF_0000, 0xFFF0
RESET_VECTOR = RESET_BASE + RESET_OFFSET
FLAT_CODE, FLAT_DATA = 0x10, 0x18
#: 4 GiB, present, 32 bits, accessed; readable code, writable data
FLAT_CODE_FLAGS, FLAT_DATA_FLAGS = 0x00CF_9B00, 0x00CF_9300
REAL_CODE_FLAGS, REAL_DATA_FLAGS = 0x0000_9B00, 0x0000_9300
CODE_SEGMENT = 1
PAGE_ATTRIBUTES = 0x277
#: in Unicorn's hidden flags: SVM's global interrupt flag
INTERRUPTS_GLOBALLY_ON = 1
SEGMENTS = 6
#: bytes of a vector register that instructions know: there is no AVX here
VECTOR_USED = 16
BEHIND_VECTOR = bytes(private.VECTOR_SIZE - VECTOR_USED)
VECTOR_STARTS = tuple(private.VECTORS + private.VECTOR_SIZE * number for number in range(private.VECTOR_COUNT))
#: bytes of an x87 register: 64 bits of fraction, 16 of sign and exponent
FLOAT_USED = 10
BEHIND_FLOAT = bytes(private.FLOAT_SIZE - FLOAT_USED)
FLOAT_STARTS = (
    *(private.FLOATS + private.FLOAT_SIZE * number for number in range(private.FLOAT_COUNT)),
    private.FLOAT_OPERAND,
)


class CpuState:
    def __init__(self, engine: unicorn.Uc, state: int) -> None:
        self._engine = engine
        self._env = state + private.ENV
        self._state = state
        self._debug = unicorn_library.function("cpu_x86_update_dr7_x86_64", None, c_void_p, c_uint32)
        self._hidden_flags = unicorn_library.function("x86_update_hflags_x86_64", None, c_void_p)
        self._update_cr0 = unicorn_library.function("cpu_x86_update_cr0_x86_64", None, c_void_p, c_uint32)
        self._flush_tlb = unicorn_library.function("tlb_flush_x86_64", None, c_void_p)
        self._power_on()
        self._initial = self.context()

    def _u64(self, offset: int) -> c_uint64:
        return c_uint64.from_address(self._env + offset)

    def _u32(self, offset: int) -> c_uint32:
        return c_uint32.from_address(self._env + offset)

    def _segment(self, number: int, selector: int, base: int, limit: int, flags: int) -> None:
        at = private.SEGMENTS + 24 * number
        self._segment_like(at, selector, limit, flags)
        self._u64(at + 8).value = base

    def _segment_like(self, at: int, selector: int, limit: int, flags: int) -> None:
        self._u32(at).value = selector
        self._u64(at + 8).value = 0
        self._u32(at + 16).value = limit
        self._u32(at + 20).value = flags

    def _power_on(self) -> None:
        """Registers after RESET; the rest of Unicorn's structure is as it was made."""
        ctypes.memset(self._env, 0, private.CC_DST)
        self._u32(private.EFLAGS).value = 2
        self._u64(private.REGS + 16).value = 0x663  # rdx: family, model, stepping
        self._u64(private.EIP).value = RESET_OFFSET
        self._u64(private.EFER).value = 0
        for offset in (16, 24, 32):
            self._u64(private.CONTROL + offset).value = 0
        self._update_cr0(self._env, 0x6000_0010)
        for number in range(SEGMENTS):
            self._segment(number, 0, 0, 0xFFFF, REAL_DATA_FLAGS)
        self._segment(CODE_SEGMENT, RESET_SEGMENT, RESET_BASE, 0xFFFF, REAL_CODE_FLAGS)
        for table in (private.GDT, private.IDT):
            self._u64(table + 8).value = 0
            self._u32(table + 16).value = 0xFFFF
        self._segment_like(private.LDT, 0, 0xFFFF, 0x8200)
        self._segment_like(private.TR, 0, 0xFFFF, 0x8B00)
        self._u32(private.HIDDEN_FLAGS2).value = INTERRUPTS_GLOBALLY_ON
        self._hidden_flags(self._env)
        for register, value in (
            (x86.UC_X86_REG_FPCW, 0x37F),
            (x86.UC_X86_REG_FPTAG, 0xFFFF),
            (x86.UC_X86_REG_MXCSR, 0x1F80),
            (x86.UC_X86_REG_MSR, (PAGE_ATTRIBUTES, 0x0007_0406_0007_0406)),
        ):
            self._engine.reg_write(register, value)

    def power_on(self) -> None:
        self.restore(self._initial, bytes(private.MEMORY_TYPES_SIZE))

    def flat_protected_mode(self, pc: int) -> None:
        """32 bits, paging off, flat segments: how boot protocols enter a kernel (multiboot, Linux's 32-bit entry)."""
        for number in range(SEGMENTS):
            self._segment(number, FLAT_DATA, 0, 0xFFFF_FFFF, FLAT_DATA_FLAGS)
        self._segment(CODE_SEGMENT, FLAT_CODE, 0, 0xFFFF_FFFF, FLAT_CODE_FLAGS)
        self._update_cr0(self._env, 0x6000_0011)
        self._hidden_flags(self._env)
        self._u64(private.EIP).value = pc

    def forget_translations(self) -> None:
        """Of addresses."""
        self._flush_tlb(self._state)

    def registers_changed(self) -> None:
        """Registers were written in place: what Unicorn keeps of them elsewhere follows."""
        self._hidden_flags(self._env)
        self._flush_tlb(self._state)

    def write_control(self, function: str, value: int) -> None:
        """By Unicorn's function for this control register."""
        unicorn_library.function(function, None, c_void_p, c_uint64)(self._env, value)

    def context(self) -> bytes:
        data = bytearray(ctypes.string_at(self._env, private.CONTEXT))
        for start, end in (
            (private.CC_DST, private.CC_OP),
            (private.ERROR_CODE, private.DEBUG),
            (private.DEBUG_POINTERS, private.DEBUG_POINTERS_END),
            (private.ACCESS_RETURN, private.ACCESS_RETURN + 8),
        ):
            data[start:end] = bytes(end - start)
        for start in VECTOR_STARTS:
            data[start + VECTOR_USED : start + private.VECTOR_SIZE] = BEHIND_VECTOR
        for start in FLOAT_STARTS:
            data[start + FLOAT_USED : start + private.FLOAT_SIZE] = BEHIND_FLOAT
        data[private.CC_OP : private.CC_OP + 8] = ALL_FLAGS.to_bytes(4, "little") + (1).to_bytes(4, "little")
        return bytes(data)

    def memory_types(self) -> bytes:
        """The MTRRs (Intel SDM 4, 2.1), which lie behind what a context holds."""
        return ctypes.string_at(self._env + private.MEMORY_TYPES, private.MEMORY_TYPES_SIZE)

    def restore(self, context: bytes, memory_types: bytes) -> None:
        """``context`` of ``private.CONTEXT`` bytes, ``memory_types`` of ``private.MEMORY_TYPES_SIZE``."""
        self._debug(self._env, NO_BREAKPOINTS)
        ctypes.memmove(self._env, context, private.CONTEXT)
        debug_control = self._u64(private.DEBUG + 56)
        wanted, debug_control.value = debug_control.value, NO_BREAKPOINTS
        self._debug(self._env, wanted & 0xFFFF_FFFF)
        ctypes.memmove(self._env + private.MEMORY_TYPES, memory_types, private.MEMORY_TYPES_SIZE)
        self._flush_tlb(self._state)
