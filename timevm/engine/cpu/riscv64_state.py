"""The RISC-V CPU's state as bytes, and its registers by name: Unicorn's structure without what a run leaves in it."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_uint32, c_uint64, c_void_p

from timevm.engine.cpu import riscv64_private as private
from timevm.engine.cpu import unicorn_library
from timevm.engine.cpu.riscv64_registers import CONTROL, FLOATS, GENERAL, MODE, NAMES
from timevm.errors import UserError

TOP = (1 << 64) - 1
#: bits of mip and mie (Privileged specification 3.1.9)
LINES = {"ssip": 1 << 1, "msip": 1 << 3, "stip": 1 << 5, "mtip": 1 << 7, "seip": 1 << 9, "meip": 1 << 11}
SUPERVISOR_LINES = LINES["ssip"] | LINES["stip"] | LINES["seip"]
#: what firmware leaves to S-mode: all exceptions but its own calls and those of M-mode (causes 9 and 11)
FIRMWARE_DELEGATES = 0xB1FF
ALL_COUNTERS = 0xFFFF_FFFF


class CpuState:
    """``state``: address of Unicorn's CPUState."""

    def __init__(self, state: int) -> None:
        self._state = state
        self._env = state + private.ENV
        self._flags = unicorn_library.function("riscv_cpu_get_fflags_riscv64", c_uint64, c_void_p)
        self._set_flags = unicorn_library.function("riscv_cpu_set_fflags_riscv64", None, c_void_p, c_uint64)
        self._flush_tlb = unicorn_library.function("tlb_flush_riscv64", None, c_void_p)
        self._access = unicorn_library.function(
            "riscv_csrrw_debug_riscv64", c_int, c_void_p, c_int, c_void_p, c_uint64, c_uint64
        )
        self._initial = self.context()

    def _u64(self, offset: int) -> c_uint64:
        return c_uint64.from_address(self._env + offset)

    def context(self) -> bytes:
        # what a fault leaves behind: nothing reads it between two instructions
        self._u64(private.BAD_ADDRESS).value = self._u64(private.GUEST_PHYSICAL_FAULT).value = 0
        return ctypes.string_at(self._env, private.CONTEXT)

    def float_flags(self) -> int:
        """They lie outside of the context."""
        return int(self._flags(self._env))

    def restore(self, context: bytes, float_flags: int) -> None:
        """``context`` of ``private.CONTEXT`` bytes."""
        ctypes.memmove(self._env, context, private.CONTEXT)
        self._set_flags(self._env, float_flags)
        self._flush_tlb(self._state)

    def power_on(self) -> None:
        """M-mode, all registers 0 but those that say what this is."""
        self.restore(self._initial, 0)
        # the board's: software cannot change it
        c_uint32.from_address(self._env + private.CLAIMED).value = LINES["seip"]

    def leave_firmware(self) -> None:
        """S-mode, as SBI firmware hands a machine over: traps and interrupts delegated, counters readable."""
        self._u64(private.MODE).value = 1
        self._u64(private.DELEGATED).value = SUPERVISOR_LINES
        self._u64(private.DELEGATED_EXCEPTIONS).value = FIRMWARE_DELEGATES
        self._u64(private.COUNTERS_SUPERVISOR).value = ALL_COUNTERS

    def forget_translations(self) -> None:
        """Of addresses."""
        self._flush_tlb(self._state)

    # ---- by name; those in COUNTERS are not known here

    def _place(self, name: str) -> int | None:
        if name in GENERAL:
            return private.GENERAL + 8 * GENERAL.index(name)
        if name in FLOATS:
            return private.FLOATS + 8 * FLOATS.index(name)
        return {"pc": private.PC, MODE: private.MODE}.get(name)

    def read(self, name: str) -> int:
        """Raises UserError for a name that is not in ``REGISTERS``."""
        if name not in NAMES:
            raise UserError(f"unknown register '{name}'")
        place = self._place(name)
        if place is not None:
            return int(self._u64(place).value)
        value = c_uint64()
        self._access(self._env, CONTROL[name], ctypes.addressof(value), 0, 0)
        return int(value.value)

    def write(self, name: str, value: int) -> None:
        """Raises UserError for a name that is not in ``REGISTERS``; what cannot be written stays as it is."""
        if name not in NAMES:
            raise UserError(f"unknown register '{name}'")
        place = self._place(name)
        if name in ("mip", "sip"):
            # Unicorn's function would have it take the interrupt by itself
            writable = LINES["ssip"] if name == "sip" else SUPERVISOR_LINES
            pending = self._u64(private.PENDING)
            pending.value = pending.value & ~writable | value & writable
        elif name == MODE:
            if value not in (0, 1, 3):
                raise UserError(f"there is no privilege mode {value}: 0 is user, 1 supervisor, 3 machine")
            self._u64(private.MODE).value = value
        elif place is not None:
            if name != GENERAL[0]:
                self._u64(place).value = value & TOP
        else:
            old = c_uint64()
            self._access(self._env, CONTROL[name], ctypes.addressof(old), value & TOP, TOP)
        self._flush_tlb(self._state)
