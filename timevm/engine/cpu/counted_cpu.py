"""What x86-64 and RISC-V share beyond ``unicorn_cpu``: the Python side of ``native/counted.h``.

Blocks are counted by what Unicorn's translator says of them, and begin at breakpoints; translated code follows the
guest's stores; the TLB knows which pages are watched.
"""

from __future__ import annotations

import ctypes
from abc import abstractmethod
from ctypes import c_uint64
from typing import Any

from unicorn import unicorn_const as const

from timevm.engine.cpu import unicorn_library
from timevm.engine.cpu.base import Stop, StopKind, WatchKind
from timevm.engine.cpu.native import STOP_FIRMWARE_CALL
from timevm.engine.cpu.unicorn_cpu import UnicornCpu


class CountedCpu(UnicornCpu):
    """See ``UnicornCpu``; the native structures begin with ``counted.Counted``."""

    access_hook = "timevm_access"
    watches_physical = True

    #: the native structures, of which those of ``Counted`` are used here
    native: Any

    def _adopt_counted(self) -> None:
        """After ``_adopt``."""
        self._asked: tuple[StopKind, int | None] | None = None

    @abstractmethod
    def _forget_tlb(self) -> None:
        """Translations of addresses that Unicorn keeps."""

    # ---- memory

    def map_ram(self, base: int, host_address: int, size: int) -> None:
        """``base``, ``host_address`` and ``size`` in whole pages."""
        error = unicorn_library.mem_map_ptr(self._handle, base, size, const.UC_PROT_ALL, host_address)
        unicorn_library.check(error, f"map memory at {base:#x}")
        self._add_ram(base, host_address, size)

    def code_changed(self, base: int, size: int) -> None:
        self._library.timevm_code_changed(self._address, base, size)

    # ---- running

    @property
    def icount(self) -> int:
        machine = self.native
        return int(machine.engine.horizon - machine.engine.budget - machine.in_access)

    def ask_stop(self, kind: StopKind, exit_code: int | None = None) -> None:
        """CPU thread, also in a device access: ``run`` returns with this kind of stop before the next instruction.

        For what devices of the board do: POWER_OFF (``exit_code``: see ``Stop``), RESET.
        """
        self._asked = kind, exit_code
        self.native.engine.stop = STOP_FIRMWARE_CALL
        self._look_soon()

    def _asked_stop(self) -> Stop | None:
        if self._asked is None:
            return None
        (kind, exit_code), self._asked = self._asked, None
        return Stop(kind, self.icount, self._stop_pc, exit_code=exit_code)

    def limit_blocks(self, instructions: int) -> None:
        """Let no block run for longer; 0: as long as it was translated.  Changes nothing but speed.

        1 is the reference that fast runs are compared with: the native hooks look before each instruction, as if the
        run were stopped there, and Unicorn translates each for itself.  About 150 ns an instruction.
        """
        self.native.longest_block = instructions

    def _place(self, icount: int) -> None:
        """The CPU stands between two instructions at ``icount``, whatever it did before."""
        engine = self.native.engine
        engine.skip_breakpoint_at = engine.skip_watchpoint_at = -1
        engine.horizon, engine.budget = icount, 0
        self.native.in_access = 0

    # ---- stops

    def _apply_breakpoints(self, changed: frozenset[int]) -> None:
        """Costs the translation of a few blocks for each that comes or goes: blocks begin at breakpoints."""
        ordered = sorted(self._breakpoints)
        self._breakpoint_table = (c_uint64 * max(1, len(ordered)))(*ordered)
        self.native.breakpoints = ctypes.addressof(self._breakpoint_table)
        self.native.breakpoint_count = len(ordered)

    def _apply_watchpoints(self) -> None:
        """Stores: the TLB knows which pages are watched.  Loads: all of them are looked at, and slow."""
        super()._apply_watchpoints()
        if any(watch.kind is not WatchKind.WRITE for watch in self._watchpoints):
            self._watch_hooks.append(self._hook(const.UC_HOOK_MEM_READ, self.access_hook))

    def _watched_ranges(self) -> list[tuple[int, int]]:
        return []

    def _forget_fast_paths(self, reads: bool) -> None:
        self._forget_tlb()
        if reads:
            self.flush_translations()
