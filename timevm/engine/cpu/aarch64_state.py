"""An AArch64 CPU's state as bytes: Unicorn's structure up to where pointers and caches begin."""

from __future__ import annotations

import ctypes
from ctypes import c_uint32, c_uint64

import unicorn

from timevm.engine.cpu import aarch64_private as private


class CpuState:
    """``env``: address of the CPUARMState."""

    def __init__(self, engine: unicorn.Uc, env: int) -> None:
        self._env = env
        # a `uc_context` begins with its size
        context = engine.context_save()
        self.size = int(ctypes.c_size_t.from_address(context.context.value).value)

    def context(self) -> bytes:
        # host time, and what exceptions and looks for an instruction's place leave behind: nothing reads it between two
        # instructions, and it depends on how code was translated
        for scratch in (private.HOST_CYCLES, private.SYNDROME, private.FAULT_ADDRESS):
            c_uint64.from_address(self._env + scratch).value = 0
        c_uint32.from_address(self._env + private.TARGET_LEVEL).value = 0
        return ctypes.string_at(self._env, self.size)

    def restore(self, context: bytes) -> None:
        """``context`` of ``size`` bytes."""
        ctypes.memmove(self._env, context, self.size)
