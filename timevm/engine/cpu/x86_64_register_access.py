"""x86's registers read and written by name, for debuggers: where each is, and what follows from a change."""

from __future__ import annotations

import ctypes
from ctypes import c_uint8, c_uint64

import unicorn
from unicorn import x86_const as x86

from timevm.engine.cpu import x86_64_private as private
from timevm.engine.cpu.unicorn_cpu import TOP
from timevm.engine.cpu.x86_64_registers import CONTROL, FLOAT, PLACES
from timevm.engine.cpu.x86_64_state import CpuState
from timevm.errors import UserError

#: exceptions in MXCSR that Unicorn notes with the same bits; that a result was flushed, and what that is in MXCSR
NOTED, NOTED_FLUSHED, FLUSHED = 0x3D, 0x80, 0x30


class RegisterAccess:
    """``env``: address of the CPUX86State, which ``state`` is of.  The CPU stands between two instructions."""

    def __init__(self, engine: unicorn.Uc, env: int, state: CpuState) -> None:
        self._engine, self._env, self._state = engine, env, state

    def read(self, name: str) -> int:
        """Raises UserError for a name that is not in ``REGISTERS``."""
        if name in PLACES:
            offset, bits, _ = PLACES[name]
            return int.from_bytes(ctypes.string_at(self._env + offset, bits // 8), "little")
        if name in CONTROL:
            return int(c_uint64.from_address(self._env + CONTROL[name][0]).value)
        if name not in FLOAT:
            raise UserError(f"unknown register '{name}'")
        if name == "mxcsr":
            return int(self._engine.reg_read(FLOAT[name][0])) | self._noted_exceptions()
        if name.startswith("st"):
            mantissa, exponent = self._engine.reg_read(self._stack_register(name))
            return int(mantissa) | int(exponent) << 64
        return int(self._engine.reg_read(FLOAT[name][0]))

    def write(self, name: str, value: int) -> None:
        """Raises UserError for a name that is not in ``REGISTERS``."""
        if name in PLACES:
            offset, bits, _ = PLACES[name]
            data = (value & (1 << bits) - 1).to_bytes(bits // 8, "little")
            ctypes.memmove(self._env + offset, data, bits // 8)
            self._state.registers_changed()
        elif name in CONTROL:
            self._state.write_control(CONTROL[name][1], value)
        elif name not in FLOAT:
            raise UserError(f"unknown register '{name}'")
        elif name.startswith("st"):
            self._engine.reg_write(self._stack_register(name), (value & TOP, value >> 64))
        else:
            self._engine.reg_write(FLOAT[name][0], value)

    def _noted_exceptions(self) -> int:
        """What the next instruction that stores MXCSR will add to it (``show_exceptions`` in x86_64_vectors.c)."""
        noted = c_uint8.from_address(self._env + private.SSE_STATUS + private.NOTED_EXCEPTIONS).value
        return noted & NOTED | (FLUSHED if noted & NOTED_FLUSHED else 0)

    def _stack_register(self, name: str) -> int:
        top = int(self._engine.reg_read(x86.UC_X86_REG_FPSW)) >> 11 & 7
        return int(x86.UC_X86_REG_FP0) + (top + int(name[2:])) % 8
