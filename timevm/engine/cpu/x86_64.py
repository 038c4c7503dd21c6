"""An x86 processor on Unicorn: the ``Cpu`` protocol for qemu64, qemu32 and max, in all modes of the architecture.

What runs per block, per exception or per translation is native (``native/x86_64*.c``); Python is called for device
registers and to acknowledge interrupts.  Not modelled: system management mode (the line ``smi`` is accepted and does
nothing), the local APIC (a device), performance counters (RDPMC is undefined).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_uint32, c_uint64, c_void_p
from typing import Any

import unicorn
from unicorn import unicorn_const as const
from unicorn import x86_const as x86

from timevm.engine.cpu import unicorn_library
from timevm.engine.cpu import x86_64_private as private
from timevm.engine.cpu.base import MmioHandler, Stop, StopKind, WatchKind
from timevm.engine.cpu.code_trace import CodeTrace
from timevm.engine.cpu.native import STOP_FIRMWARE_CALL
from timevm.engine.cpu.native import x86_64 as hooks
from timevm.engine.cpu.unicorn_cpu import PAGE, TOP, UnicornCpu, UnicornWindow, no_output
from timevm.engine.cpu.x86_64_interposed import interpose
from timevm.engine.cpu.x86_64_models import EXTENDED_EDX, LEAF_1_EDX, LOCAL_APIC, MODELS
from timevm.engine.cpu.x86_64_native import native_cpu
from timevm.engine.cpu.x86_64_register_access import RegisterAccess
from timevm.engine.cpu.x86_64_registers import REGISTERS
from timevm.engine.cpu.x86_64_state import CODE_SEGMENT, RESET_VECTOR, CpuState
from timevm.errors import GuestError, InternalError, UserError

LINES = {"intr": hooks.LINE_INTR}
#: physical addresses end here (CPUID leaf 80000008); a page table entry that reaches further is a fault
PHYSICAL_END = 1 << 40
TRANSLATION_BUFFER = 128 << 20
#: rflags.IF
INTERRUPTS_ON = 1 << 9


class X86Cpu(UnicornCpu):
    """See ``Cpu``.  Addresses of stops and breakpoints are linear: the code segment's base plus ``rip``.

    ``time_shift``: virtual ns = (icount << time_shift) + warp, which is also the time-stamp counter (1 GHz).
    ``acknowledge()`` is called when an interrupt is taken and returns its vector.
    """

    registers = REGISTERS
    suffix = "x86_64"
    access_hook = "timevm_x86_access"
    watches_physical = True
    shortest_instruction = 1

    def __init__(
        self,
        model: str,
        *,
        time_shift: int,
        seed: int,
        acknowledge: Callable[[], int],
        local_apic: bool = False,
        translation_buffer: int = TRANSLATION_BUFFER,
        exit_checks: bool = False,
    ) -> None:
        """Raises UserError for an unknown model, InternalError for a Unicorn that is not the known one.

        ``local_apic``: the board has one at the usual address, and CPUID says so.  ``translation_buffer`` (bytes) and
        ``exit_checks`` (Unicorn's slow check after each load and store) change nothing but speed.  ``seed`` is for
        random numbers, which no model offers yet.
        """
        if model not in MODELS:
            raise UserError(f"unable to find CPU model '{model}' (known: {', '.join(MODELS)})")
        private.prove()
        interpose(hooks.load())
        self.model = model
        self._acknowledge = acknowledge
        self._unicorn = unicorn.Uc(const.UC_ARCH_X86, const.UC_MODE_64, MODELS[model].unicorn)
        self._unicorn.ctl_set_tcg_buffer_size(translation_buffer)
        self._unicorn.ctl_exits_enabled(True)
        self._unicorn.reg_read(x86.UC_X86_REG_RIP)  # Unicorn makes its CPU at the first use, after these settings
        cpu_state = private.find_cpu_state(self._unicorn)
        self._env = cpu_state + private.ENV
        for number, word in MODELS[model].features.items():
            self._feature(number).value = word
        for number in (LEAF_1_EDX, EXTENDED_EDX):
            if not local_apic:
                self._feature(number).value &= ~LOCAL_APIC
        self._ram_offset = unicorn_library.function("qemu_ram_addr_from_host_x86_64", c_uint64, c_void_p, c_uint64)
        self._set_a20 = unicorn_library.function("x86_cpu_set_a20_x86_64", None, c_void_p, ctypes.c_int)
        self._mapped: list[tuple[int, int]] = []
        self._holes_filled = False
        self._asked: tuple[StopKind, int | None] | None = None
        self._trace: CodeTrace | None = None
        self._make_native(cpu_state, time_shift)
        if not exit_checks:
            ctypes.c_uint8.from_address(self._handle + private.no_exit_request_offset()).value = 1
        self._add_hooks()
        self._saved = CpuState(self._unicorn, cpu_state)
        self._registers = RegisterAccess(self._unicorn, self._env, self._saved)

    # ---- construction

    def _feature(self, number: int) -> c_uint64:
        return c_uint64.from_address(self._env + private.FEATURES + 8 * number)

    def _make_native(self, cpu_state: int, time_shift: int) -> None:
        self._acknowledge_call = hooks.Acknowledge(self._take_acknowledge)
        env = self._env
        self.native = native_cpu(env, time_shift, self._acknowledge_call)
        self._adopt(hooks.load(), self.native, self.native.engine, cpu_state)
        self.native.engine.call = self._unicorn_calls("x86_cpu_do_interrupt", "x86_cpu_get_phys_page_attrs_debug")
        self._place_common(
            pc=env + private.EIP,
            next_block_flags=cpu_state + private.NEXT_BLOCK_FLAGS,
            exception_index=cpu_state + private.EXCEPTION_INDEX,
            access_host_pc=cpu_state + private.ACCESS_HOST_PC,
        )
        self._ip = c_uint64.from_address(env + private.EIP)
        self._code_base = c_uint64.from_address(env + private.SEGMENTS + 24 * CODE_SEGMENT + 8)
        self._flags = c_uint32.from_address(env + private.EFLAGS)
        self._halted = c_uint32.from_address(cpu_state + private.HALTED)

    def _add_hooks(self) -> None:
        self.native.block_hook = self._hook(const.UC_HOOK_BLOCK, "timevm_x86_block")
        self._hook(const.UC_HOOK_INTR, "timevm_x86_exception")
        self._hook(const.UC_HOOK_INSN_INVALID, "timevm_x86_undefined")
        self._hook(const.UC_HOOK_MEM_FETCH_PROT, "timevm_x86_fetch_from_device")
        for instruction, name in (
            (x86.UC_X86_INS_IN, "timevm_x86_in"),
            (x86.UC_X86_INS_OUT, "timevm_x86_out"),
            (x86.UC_X86_INS_SYSCALL, "timevm_x86_syscall"),
            (x86.UC_X86_INS_SYSENTER, "timevm_x86_sysenter"),
            (x86.UC_X86_INS_RDTSC, "timevm_x86_read_tsc"),
            (x86.UC_X86_INS_RDTSCP, "timevm_x86_read_tsc_and_processor"),
        ):
            self._hook(const.UC_HOOK_INSN, name, instruction)

    # ---- memory and ports

    def map_ram(self, base: int, host_address: int, size: int) -> None:
        """``base``, ``host_address`` and ``size`` in whole pages."""
        if self.native.ram_count == hooks.MAX_RAM_RANGES:
            raise InternalError(f"more than {hooks.MAX_RAM_RANGES} ranges of memory")
        error = unicorn_library.mem_map_ptr(self._handle, base, size, const.UC_PROT_ALL, host_address)
        unicorn_library.check(error, f"map memory at {base:#x}")
        offset = self._ram_offset(self._handle, host_address)
        self.native.ram[self.native.ram_count] = hooks.RamRange(base, base + size, offset, host_address)
        self.native.ram_count += 1
        self._mapped.append((base, base + size))
        pages = max((entry.offset + entry.end - entry.base) // PAGE for entry in self.native.ram)
        self._code_pages = (hooks.CodePage * pages)()
        self.native.code_pages = ctypes.addressof(self._code_pages)
        self.native.code_page_count = pages

    def map_rom(self, base: int, host_address: int, size: int) -> None:
        """Writes of the guest are dropped."""
        self.map_ram(base, host_address, size)
        self._unicorn.mem_protect(base, size, const.UC_PROT_READ | const.UC_PROT_EXEC)
        self._hook(const.UC_HOOK_MEM_WRITE_PROT, "timevm_drop_write", begin=base, end=base + size - 1)

    def map_mmio(
        self, base: int, size: int, handler: MmioHandler, output: Callable[[bytes], None] = no_output
    ) -> UnicornWindow:
        """``output`` gets what is written to the register named by ``UnicornWindow.set_output``."""
        window = self._new_window(handler, output)
        self._map_window(base, size, "timevm_x86_device", ctypes.addressof(window.twin))
        self._mapped.append((base, base + size))
        return window

    def map_ports(
        self, base: int, count: int, handler: MmioHandler, output: Callable[[bytes], None] = no_output
    ) -> UnicornWindow:
        """An access belongs to the window of its first port, whatever its size; a later window hides earlier ones."""
        window = self._new_window(handler, output)
        number = window.twin.number
        self.native.port_base[number] = base
        ctypes.memset(ctypes.addressof(self.native.ports) + base, number, count)
        return window

    def _fill_holes(self) -> None:
        """Physical addresses that nothing answers read as ones."""
        self._holes_filled = True
        at = 0
        for base, end in [*sorted(self._mapped), (PHYSICAL_END, PHYSICAL_END)]:
            if at < base:
                self._map_window(at, base - at, "timevm_x86_void", 0)
            at = end

    def code_changed(self, base: int, size: int) -> None:
        self._library.timevm_x86_code_changed(self._address, base, size)

    def set_a20(self, level: bool) -> None:
        """Address line 20; on after power-on."""
        self._set_a20(self._cpu_state, int(level))

    def _take_acknowledge(self) -> int:
        try:
            return self._acknowledge()
        except BaseException as error:  # noqa: BLE001 - must not cross native frames; raised again by run()
            self._fail(error)
            return -1

    # ---- running

    @property
    def icount(self) -> int:
        machine = self.native
        return int(machine.engine.horizon - machine.engine.budget - machine.pending)

    @property
    def _stop_pc(self) -> int:
        return (self._code_base.value + self._ip.value) & TOP

    def _wakes(self) -> bool:
        return self.interrupt_pending()

    def _start(self, icount: int) -> int:
        if not self._holes_filled:
            self._fill_holes()
        engine = self.native.engine
        engine.horizon, engine.budget = icount, 0
        return int(self._library.timevm_x86_run(self._address, self._ip.value))

    def ask_stop(self, kind: StopKind, exit_code: int | None = None) -> None:
        """CPU thread, also in a device access: ``run`` returns with this kind of stop before the next instruction.

        For what devices of the board do: POWER_OFF (``exit_code``: see ``Stop``), RESET.
        """
        self._asked = kind, exit_code
        self.native.engine.stop = STOP_FIRMWARE_CALL
        self._look_soon()

    def _stopped(self, reason: int, error: int) -> Stop | None:
        icount, pc = self.icount, self._stop_pc
        if error != const.UC_ERR_OK:
            raise GuestError(f"the CPU cannot go on at {pc:#x} after {icount} instructions: {unicorn.UcError(error)}")
        if self._asked is not None:
            (kind, exit_code), self._asked = self._asked, None
            return Stop(kind, icount, pc, exit_code=exit_code)
        stop = self._common_stop(reason)
        if stop is not None:
            return stop
        if not self._halted.value:
            return Stop(StopKind.RESET, icount, pc, detail="triple fault")
        self._waiting = not self.interrupt_pending()
        return Stop(StopKind.IDLE, icount, pc) if self._waiting else None

    def limit_blocks(self, instructions: int) -> None:
        """Let no block run for longer; 0: as long as it was translated.  Changes nothing but speed.

        1 is the reference that fast runs are compared with: the native hooks look before each instruction, as if the
        run were stopped there, and Unicorn translates each for itself.  About 150 ns an instruction.
        """
        self.native.longest_block = instructions

    # ---- interrupts and time

    def set_interrupt(self, line: str, level: bool) -> None:
        """``intr`` is a level, ``nmi`` an edge.  ``smi`` and ``init`` do nothing."""
        engine = self.native.engine
        if line == "nmi":
            if level and not self.native.nmi_line:
                self.native.nmi = 1
                self._look_soon()
            self.native.nmi_line = int(level)
        elif line in LINES:
            if level:
                engine.lines |= LINES[line]
                self._look_soon()
            else:
                engine.lines &= ~LINES[line]

    def interrupt_pending(self) -> bool:
        """True if an interrupt would wake the CPU from HLT: one that is masked does not."""
        return bool(self.native.nmi or (self.native.engine.lines and self._flags.value & INTERRUPTS_ON))

    def set_warp(self, ns: int) -> None:
        self.native.warp_ns = ns

    def next_timer(self) -> int | None:
        """None: all timers are the board's."""
        return None

    def fire_timers(self) -> None:
        """There are none."""

    # ---- registers

    def read_register(self, name: str) -> int:
        """Raises UserError for a name that is not in ``registers``."""
        return self._registers.read(name)

    def write_register(self, name: str, value: int) -> None:
        """Raises UserError for a name that is not in ``registers``."""
        icount = self.icount
        self._registers.write(name, value)
        self._place(icount)

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
        self._saved.forget_translations()
        if reads:
            self.flush_translations()

    def trace_code(self) -> CodeTrace:
        if self._trace is None:
            self._trace = CodeTrace()
            self.native.executed = self._trace.address
        return self._trace

    # ---- state

    def _place(self, icount: int) -> None:
        """The CPU stands between two instructions at ``icount``, whatever it did before."""
        engine = self.native.engine
        engine.skip_breakpoint_at = engine.skip_watchpoint_at = -1
        engine.horizon, engine.budget = icount, 0
        self.native.pending = 0

    def reset(self, pc: int, arguments: Sequence[int]) -> None:
        """At the reset vector: real mode, the state after RESET.  Elsewhere: 32 bits, flat, paging off.

        ``arguments`` go to eax, ebx and esi, where boot protocols have their magic number and information.
        """
        icount = self.icount
        self._saved.power_on()
        if pc != RESET_VECTOR:
            self._saved.flat_protected_mode(pc)
        for number, value in zip((0, 3, 6), arguments, strict=False):
            c_uint64.from_address(self._env + private.REGS + 8 * number).value = value & 0xFFFF_FFFF
        self._place(icount)
        self.native.engine.lines = self.native.engine.translations_stale = 0
        self.native.nmi = self.native.nmi_line = self.native.tlb_stale = 0
        self._waiting = False
        self._asked = None

    def state(self) -> dict[str, Any]:
        """``context`` is Unicorn's CPU structure up to where pointers and caches begin."""
        return {
            "model": self.model,
            "context": self._saved.context(),
            "memory_types": self._saved.memory_types(),
            "icount": self.icount,
            "waiting": self._waiting,
            "lines": int(self.native.engine.lines),
            "nmi": int(self.native.nmi),
            "nmi_line": int(self.native.nmi_line),
            "warp_ns": int(self.native.warp_ns),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The caller has written RAM, and names changed pages that may hold code by ``code_changed``."""
        if state["model"] != self.model or len(state["context"]) != private.CONTEXT:
            raise UserError(f"the snapshot is of a {state['model']}, this machine has a {self.model}")
        self._saved.restore(state["context"], state["memory_types"])
        self._waiting = state["waiting"]
        self._asked = None
        self.native.engine.lines = state["lines"]
        self.native.nmi, self.native.nmi_line = state["nmi"], state["nmi_line"]
        self.native.warp_ns = state["warp_ns"]
        self._place(state["icount"])
