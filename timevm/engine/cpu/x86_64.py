"""An x86 processor on Unicorn: the ``Cpu`` protocol for qemu64, qemu32 and max, in all modes of the architecture.

What runs per block, per exception or per translation is native (``native/x86_64*.c``); Python is called for device
registers and to acknowledge interrupts.  Not modelled: system management mode (the line ``smi`` is accepted and does
nothing), the local APIC (a device), performance counters (RDPMC is undefined).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_uint32, c_uint64, c_void_p
from typing import TYPE_CHECKING, Any

import unicorn
from unicorn import unicorn_const as const
from unicorn import x86_const as x86

from timevm.engine.cpu import unicorn_library
from timevm.engine.cpu import x86_64_private as private
from timevm.engine.cpu.base import MmioHandler, Stop, StopKind
from timevm.engine.cpu.counted_cpu import CountedCpu
from timevm.engine.cpu.native import x86_64 as hooks
from timevm.engine.cpu.private import HALTED
from timevm.engine.cpu.unicorn_cpu import TOP, UnicornWindow, no_output
from timevm.engine.cpu.x86_64_interposed import interpose
from timevm.engine.cpu.x86_64_models import CPUID_WORDS, EXTENDED_EDX, LEAF_1_EDX, LOCAL_APIC, MODELS
from timevm.engine.cpu.x86_64_native import native_cpu
from timevm.engine.cpu.x86_64_register_access import RegisterAccess
from timevm.engine.cpu.x86_64_registers import REGISTERS
from timevm.engine.cpu.x86_64_state import CODE_SEGMENT, RESET_VECTOR, CpuState
from timevm.errors import GuestError, UserError

if TYPE_CHECKING:  # who asks for these imports them, and the first instruction need not wait for that
    from timevm.engine.cpu.core_image import CoreImage
    from timevm.engine.cpu.mappings import Mappings, ReadMemory

LINES = {"intr": hooks.LINE_INTR}
#: physical addresses end here (CPUID leaf 80000008); a page table entry that reaches further is a fault
PHYSICAL_END = 1 << 40
TRANSLATION_BUFFER = 128 << 20
#: rflags.IF
INTERRUPTS_ON = 1 << 9


class X86Cpu(CountedCpu):
    """See ``Cpu``.  Addresses of stops and breakpoints are linear: the code segment's base plus ``rip``.

    ``time_shift``: virtual ns = (icount << time_shift) + warp, which is also the time-stamp counter (1 GHz).
    ``acknowledge()`` is called when an interrupt is taken and returns its vector.
    """

    registers = REGISTERS
    suffix = "x86_64"
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
        ``exit_checks`` (Unicorn's checks before each block and after each load and store) change nothing but speed.
        ``seed`` is for random numbers, which no model offers yet.
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
        self._set_a20 = unicorn_library.function("x86_cpu_set_a20_x86_64", None, c_void_p, ctypes.c_int)
        self._mapped: list[tuple[int, int]] = []
        self._holes_filled = False
        self._make_native(cpu_state, time_shift, exit_checks)
        if not exit_checks:
            ctypes.c_uint8.from_address(self._handle + private.no_exit_request_offset()).value = 1
        self._add_hooks()
        self._saved = CpuState(self._unicorn, cpu_state)
        self._registers = RegisterAccess(self._unicorn, self._env, self._saved)

    # ---- construction

    def features(self) -> dict[str, int]:
        """CPUID's words, by Unicorn's numbers of them."""
        return {f"word {number}": self._feature(number).value for number in range(CPUID_WORDS)}

    def _feature(self, number: int) -> c_uint64:
        return c_uint64.from_address(self._env + private.FEATURES + 8 * number)

    def _make_native(self, cpu_state: int, time_shift: int, exit_checks: bool) -> None:
        self._acknowledge_call = hooks.Acknowledge(self._take_acknowledge)
        env = self._env
        self.native = native_cpu(env, time_shift, self._acknowledge_call)
        self.native.block_checks = int(exit_checks)
        self._adopt(hooks.load(), self.native, self.native.engine, cpu_state)
        self._adopt_counted()
        self.native.engine.call = self._unicorn_calls("x86_cpu_do_interrupt", "x86_cpu_get_phys_page_attrs_debug")
        self._place_common(env + private.EIP)
        self._ip = c_uint64.from_address(env + private.EIP)
        self._code_base = c_uint64.from_address(env + private.SEGMENTS + 24 * CODE_SEGMENT + 8)
        self._flags = c_uint32.from_address(env + private.EFLAGS)
        self._halted = c_uint32.from_address(cpu_state + HALTED)

    def _add_hooks(self) -> None:
        self.native.block_hook = self._hook(const.UC_HOOK_BLOCK, "timevm_block")
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
        super().map_ram(base, host_address, size)
        self._mapped.append((base, base + size))

    def map_rom(self, base: int, host_address: int, size: int) -> None:
        """Writes of the guest are dropped."""
        self.map_ram(base, host_address, size)
        self._unicorn.mem_protect(base, size, const.UC_PROT_READ | const.UC_PROT_EXEC)
        self._hook(const.UC_HOOK_MEM_WRITE_PROT, "timevm_drop_write", begin=base, end=base + size - 1)

    def map_mmio(
        self, base: int, size: int, handler: MmioHandler, output: Callable[[bytes], None] = no_output
    ) -> UnicornWindow:
        """``output`` gets what is written to the register named by ``UnicornWindow.set_output``."""
        window = super().map_mmio(base, size, handler, output)
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
    def _stop_pc(self) -> int:
        return (self._code_base.value + self._ip.value) & TOP

    def _wakes(self) -> bool:
        return self.interrupt_pending()

    def _start(self, icount: int) -> int:
        if not self._holes_filled:
            self._fill_holes()
        engine = self.native.engine
        engine.horizon, engine.budget = icount, 0
        return int(self._library.timevm_x86_run(self._address))

    def _stopped(self, reason: int, error: int) -> Stop | None:
        icount, pc = self.icount, self._stop_pc
        if error != const.UC_ERR_OK:
            raise GuestError(f"the CPU cannot go on at {pc:#x} after {icount} instructions: {unicorn.UcError(error)}")
        stop = self._asked_stop() or self._common_stop(reason)
        if stop is not None:
            return stop
        if not self._halted.value:
            return Stop(StopKind.RESET, icount, pc, detail="triple fault")
        self._waiting = not self.interrupt_pending()
        return Stop(StopKind.IDLE, icount, pc) if self._waiting else None

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

    def core_image(self) -> CoreImage:
        from timevm.engine.cpu.x86_64_core import describe

        return describe(self.read_register)

    def mappings(self, read: ReadMemory) -> Mappings:
        from timevm.engine.cpu.x86_64_mappings import mappings

        return mappings(self.read_register, read)

    def write_register(self, name: str, value: int) -> None:
        """Raises UserError for a name that is not in ``registers``."""
        icount = self.icount
        self._registers.write(name, value)
        self._place(icount)

    def _forget_tlb(self) -> None:
        self._saved.forget_translations()

    # ---- state

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
        self.native.nmi = self.native.nmi_line = self.native.engine.memory.tlb_stale = 0
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
        sizes = len(state["context"]), len(state["memory_types"])
        if state["model"] != self.model or sizes != (private.CONTEXT, private.MEMORY_TYPES_SIZE):
            raise UserError(f"the snapshot is of a {state['model']}, this machine has a {self.model}")
        self._saved.restore(state["context"], state["memory_types"])
        self._waiting = state["waiting"]
        self._asked = None
        self.native.engine.lines = state["lines"]
        self.native.nmi, self.native.nmi_line = state["nmi"], state["nmi_line"]
        self.native.warp_ns = state["warp_ns"]
        self._place(state["icount"])
