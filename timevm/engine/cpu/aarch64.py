"""An AArch64 processor on Unicorn: the ``Cpu`` protocol for cortex-a53, -a57, -a72 and max.

What runs per block, per exception or per hot register is native (``native/aarch64*.c``); Python is called for device
registers, timer lines and firmware calls only: some ten thousand times in a Linux boot.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_uint64, c_void_p
from typing import TYPE_CHECKING, Any

import unicorn
from unicorn import arm64_const as arm64
from unicorn import unicorn_const as const

from timevm.engine.cpu import aarch64_private as private
from timevm.engine.cpu import native, psci, unicorn_library
from timevm.engine.cpu.aarch64_interposed import interpose
from timevm.engine.cpu.aarch64_registers import REGISTERS, SYSTEM_BY_NAME, UNICORN_NUMBER
from timevm.engine.cpu.aarch64_state import CpuState
from timevm.engine.cpu.aarch64_system import SystemRegisters
from timevm.engine.cpu.aarch64_watched import watched_ranges
from timevm.engine.cpu.base import Stop, StopKind
from timevm.engine.cpu.unicorn_cpu import TOP, UnicornCpu
from timevm.errors import GuestError, UserError

if TYPE_CHECKING:  # who asks for these imports them, and the first instruction need not wait for that
    from timevm.engine.cpu.core_image import CoreImage
    from timevm.engine.cpu.mappings import Mappings, ReadMemory

MODELS = {
    "cortex-a53": arm64.UC_CPU_ARM64_A53,
    "cortex-a57": arm64.UC_CPU_ARM64_A57,
    "cortex-a72": arm64.UC_CPU_ARM64_A72,
    "max": arm64.UC_CPU_ARM64_MAX,
}
LINES = {"irq": 1, "fiq": 2}
#: the CPU's own timers in the order of the native structure, named by their line
TIMERS = ("virtual-timer", "physical-timer")

TRANSLATION_BUFFER = 128 << 20
#: ``uc_ctl``'s number for writing UC_CTL_TLB_TYPE with one argument (UC_CTL_WRITE in unicorn.h)
TRANSLATION_REQUEST = const.UC_CTL_TLB_TYPE | 1 << 26 | const.UC_CTL_IO_WRITE << 30


class Aarch64Cpu(UnicornCpu):
    """See ``Cpu``.  ``time_shift``: virtual ns = (icount << time_shift) + warp; ``seed``: 64 bits for RNDR."""

    registers = REGISTERS
    suffix = "aarch64"
    access_hook = "timevm_access"
    watches_physical = True
    shortest_instruction = 4

    def __init__(
        self,
        model: str,
        *,
        time_shift: int,
        seed: int,
        timer_line: Callable[[str, bool], None],
        translation_buffer: int = TRANSLATION_BUFFER,
        exit_checks: bool = False,
        flat_translation: bool = True,
    ) -> None:
        """Raises UserError for an unknown model, InternalError for a Unicorn that is not the known one.

        ``timer_line(name, level)`` is called when one of TIMERS changes its line.  ``translation_buffer`` (bytes),
        ``exit_checks`` (Unicorn's checks for a stop before each block and after each load and store) and
        ``flat_translation`` (our own translation while the MMU is off) change nothing but speed.
        """
        if model not in MODELS:
            raise UserError(f"unable to find CPU model '{model}' (known: {', '.join(MODELS)})")
        private.prove()
        self.model = model
        self._timer_changed = timer_line
        self._unicorn = unicorn.Uc(const.UC_ARCH_ARM64, const.UC_MODE_ARM, MODELS[model])
        self._unicorn.ctl_set_tcg_buffer_size(translation_buffer)
        self._unicorn.ctl_set_page_size(4096)
        self._unicorn.ctl_exits_enabled(True)
        self._unicorn.reg_read(arm64.UC_ARM64_REG_PC)  # Unicorn makes its CPU at the first use, after these settings
        self._system = SystemRegisters(self._unicorn)
        cpu_state = private.find_cpu_state(self._unicorn)
        self._env = cpu_state + private.ENV
        self._flush_tlb = unicorn_library.function("tlb_flush_aarch64", None, c_void_p)
        self._invalidate = unicorn_library.function(
            "tb_invalidate_phys_range_aarch64", None, c_void_p, c_uint64, c_uint64
        )
        self._saved = CpuState(self._unicorn, self._env)
        self._breakpoint_hooks: dict[int, int] = {}
        self._flat_translation = flat_translation
        self._make_native(cpu_state, time_shift, seed, exit_checks)
        if not exit_checks:
            ctypes.c_uint8.from_address(self._handle + private.no_exit_request_offset()).value = 1
        self._add_hooks()
        self._prepare_system()
        self._initial = self._saved.context()

    # ---- construction

    def _make_native(self, cpu_state: int, time_shift: int, seed: int, exit_checks: bool) -> None:
        env = self._env
        self._timer_call = native.TimerLine(self._timer_line)
        self.native = native.Aarch64(
            x=env + private.X0,
            pstate=env + private.PSTATE,
            daif=env + private.DAIF,
            carry=env + private.CARRY,
            overflow=env + private.OVERFLOW,
            negative=env + private.NEGATIVE,
            zero=env + private.ZERO,
            syndrome=env + private.SYNDROME,
            fault_address=env + private.FAULT_ADDRESS,
            target_level=env + private.TARGET_LEVEL,
            seed=seed & TOP,
            time_shift=time_shift,
            timer_line=self._timer_call,
            emu_start=unicorn_library.exported("uc_emu_start"),
            block_checks=int(exit_checks),
        )
        library = native.load()
        interpose(library)
        self._adopt(library, self.native, self.native.engine, cpu_state)
        self.native.engine.call = self._unicorn_calls("arm_cpu_do_interrupt", "arm_cpu_get_phys_page_attrs_debug")
        self._place_common(env + private.PC)
        self._pc = ctypes.c_uint64.from_address(env + private.PC)

    def _add_hooks(self) -> None:
        self._hook(const.UC_HOOK_BLOCK, "timevm_block")
        self._hook(const.UC_HOOK_INTR, "timevm_exception")
        self._hook(const.UC_HOOK_INSN, "timevm_system_read", arm64.UC_ARM64_INS_MRS)
        self._hook(const.UC_HOOK_INSN, "timevm_system_write", arm64.UC_ARM64_INS_MSR)
        self._hook(const.UC_HOOK_INSN, "timevm_system_instruction", arm64.UC_ARM64_INS_SYS)
        self._hook(const.UC_HOOK_TLB_FILL, "timevm_flat_translation")

    def _prepare_system(self) -> None:
        self._system.leave_firmware(is_max=self.model == "max")
        self.native.features_processor = self._system.features_processor()
        self.native.features_debug = self._system.features_debug()
        self.native.features_isa = self._system.features_isa()

    # ---- memory

    def map_ram(self, base: int, host_address: int, size: int) -> None:
        """``base``, ``host_address`` and ``size`` in whole pages.  One range only."""
        error = unicorn_library.mem_map_ptr(self._handle, base, size, const.UC_PROT_ALL, host_address)
        unicorn_library.check(error, "map the guest's RAM")
        self.native.ram_base, self.native.ram_end, self.native.ram_host = base, base + size, host_address
        self._add_ram(base, host_address, size)
        self.native.ram_offset = self.native.engine.memory.ram[0].offset
        if self._flat_translation:
            self._pages = ctypes.create_string_buffer(size >> 12)
            self.native.pages = ctypes.addressof(self._pages)
            self.native.translation_request = TRANSLATION_REQUEST
        # Outside RAM only, for a memory hook on a page keeps its stores in Unicorn's slow path.  READ_PROT never fires
        # (nothing is mapped unreadable): it keeps Unicorn from scanning its whole TLB at every translation.
        for begin, end in ((0, base - 1), (base + size, TOP)):
            for kind in (
                const.UC_HOOK_MEM_READ_UNMAPPED,
                const.UC_HOOK_MEM_WRITE_UNMAPPED,
                const.UC_HOOK_MEM_READ_PROT,
            ):
                self._hook(kind, "timevm_unmapped", begin=begin, end=end)

    def map_rom(self, base: int, host_address: int, size: int) -> None:
        """In whole pages, outside RAM.  Writes of the guest are dropped."""
        error = unicorn_library.mem_map_ptr(self._handle, base, size, const.UC_PROT_ALL, host_address)
        unicorn_library.check(error, f"map read-only memory at {base:#x}")
        # only what becomes read-only later on has its writes dropped; mapped so at once, they would be made
        self._unicorn.mem_protect(base, size, const.UC_PROT_READ | const.UC_PROT_EXEC)
        self._hook(const.UC_HOOK_MEM_WRITE_PROT, "timevm_drop_write", begin=base, end=base + size - 1)

    def code_changed(self, base: int, size: int) -> None:
        ram = self.native
        start, end = max(base, ram.ram_base), min(base + size, ram.ram_end)
        if start < end:
            offset = ram.ram_offset - ram.ram_base
            self._invalidate(self._handle, start + offset, end + offset)
            self._library.timevm_memory_changed(self._address, start, end - start)

    def _timer_line(self, timer: int, level: int) -> None:
        try:
            self._timer_changed(TIMERS[timer], bool(level))
        except BaseException as error:  # noqa: BLE001 - must not cross native frames; raised again by run()
            self._fail(error)

    # ---- running

    @property
    def icount(self) -> int:
        engine = self.native.engine
        return int(engine.horizon - engine.budget - ((engine.block_end - self._pc.value) >> 2))

    @property
    def _stop_pc(self) -> int:
        return self._pc.value

    def _wakes(self) -> bool:
        self._library.timevm_evaluate_timers(self._address, self.icount)
        self._raise_failure()
        return bool(self.native.engine.lines)

    def _start(self, icount: int) -> int:
        engine = self.native.engine
        engine.horizon, engine.budget, engine.block_end = icount, 0, self._pc.value
        return int(self._library.timevm_run(self._address))

    def _stopped(self, reason: int, error: int) -> Stop | None:
        if error == const.UC_ERR_FETCH_UNMAPPED:
            self._library.timevm_fetch_abort(self._address)
            return None
        if error != const.UC_ERR_OK:
            raise GuestError(
                f"the CPU cannot go on at pc {self._pc.value:#x} after {self.icount} instructions: "
                f"{unicorn.UcError(error)}"
            )
        if reason == native.STOP_FIRMWARE_CALL:
            return self._firmware_call()
        stop = self._common_stop(reason)
        if stop is not None:
            return stop
        # WFI: nothing stopped it, it halted by itself
        self._waiting = not self._wakes()
        return Stop(StopKind.IDLE, self.icount, self._pc.value) if self._waiting else None

    def _firmware_call(self) -> Stop | None:
        x = (c_uint64 * 4).from_address(self._env + private.X0)
        answer = psci.call(x[0], (x[1], x[2], x[3]), own_affinity=0)
        x[0] = answer.result & TOP
        if answer.stop is not None:
            return Stop(answer.stop, self.icount, self._pc.value)
        if answer.wait and not self.native.engine.lines:
            self._waiting = True
            return Stop(StopKind.IDLE, self.icount, self._pc.value)
        return None

    # ---- interrupts and time

    def set_interrupt(self, line: str, level: bool) -> None:
        engine = self.native.engine
        if level:
            engine.lines |= LINES[line]
            self._look_soon()
        else:
            engine.lines &= ~LINES[line]

    def interrupt_pending(self) -> bool:
        return bool(self.native.engine.lines)

    def set_warp(self, ns: int) -> None:
        self.native.warp_ns = ns
        self.native.engine.deadline = 0

    def next_timer(self) -> int | None:
        deadline = self._library.timevm_next_timer_ns(self._address, self.icount)
        return None if deadline < 0 else int(deadline)

    def fire_timers(self) -> None:
        self._library.timevm_evaluate_timers(self._address, self.icount)
        self._raise_failure()

    # ---- registers

    def features(self) -> dict[str, int]:
        return self._system.features()

    def read_register(self, name: str) -> int:
        """Raises UserError for a name that is not in ``registers``."""
        if name in SYSTEM_BY_NAME:
            return self._system.read(SYSTEM_BY_NAME[name])
        if name not in UNICORN_NUMBER:
            raise UserError(f"unknown register '{name}'")
        return int(self._unicorn.reg_read(UNICORN_NUMBER[name]))

    def core_image(self) -> CoreImage:
        from timevm.engine.cpu.aarch64_core import describe

        return describe(self.read_register)

    def mappings(self, read: ReadMemory) -> Mappings:
        from timevm.engine.cpu.aarch64_mappings import mappings

        return mappings(self.read_register, read)

    def write_register(self, name: str, value: int) -> None:
        """Raises UserError for a name that is not in ``registers``."""
        if name == "pc":
            # a new place, the same moment
            icount = self.icount
            self._pc.value = value & TOP
            self._place(icount)
        elif name in SYSTEM_BY_NAME:
            self._system.write(SYSTEM_BY_NAME[name], value)
        elif name in UNICORN_NUMBER:
            self._unicorn.reg_write(UNICORN_NUMBER[name], value)
            if name == "cpsr":
                self._system.state_changed()
        else:
            raise UserError(f"unknown register '{name}'")

    def _apply_breakpoints(self, changed: frozenset[int]) -> None:
        """Costs a hook and the translation of one block for each that comes or goes."""
        for address in sorted(changed):
            if address in self._breakpoint_hooks:
                error = unicorn_library.hook_delete(self._handle, self._breakpoint_hooks.pop(address))
                unicorn_library.check(error, "remove a breakpoint")
            else:
                self._breakpoint_hooks[address] = self._hook(
                    const.UC_HOOK_CODE, "timevm_breakpoint", begin=address, end=address
                )

    # ---- watchpoints: only their pages' accesses take the slow path

    def _watched_ranges(self) -> list[tuple[int, int]]:
        def translate_page(page: int) -> int:
            return int(self._translate_page(self._cpu_state, page, (c_uint64 * 4)()))

        return watched_ranges(self._watchpoints, self.native, translate_page)

    def _watched_pages_moved(self) -> bool:
        return bool(self._library.timevm_watched_pages_moved(self._address))

    def _forget_fast_paths(self, reads: bool) -> None:
        """For stores the TLB knows which pages are looked at; for loads the translated code, and then for all pages."""
        self._flush_tlb(self._cpu_state)
        if reads:
            self.flush_translations()

    # ---- state

    def _follow_mmu(self) -> None:
        """The CPU structure was replaced: translate as its SCTLR_EL1 says."""
        self._library.timevm_set_mmu(self._address, int(self._system.mmu_is_on()))

    def _place(self, icount: int) -> None:
        """The CPU stands between two instructions at ``icount``, whatever it did before."""
        engine = self.native.engine
        engine.skip_breakpoint_at = engine.skip_watchpoint_at = -1
        self.native.stored_count = 0
        engine.horizon, engine.budget, engine.block_end = icount, 0, self._pc.value

    def reset(self, pc: int, arguments: Sequence[int]) -> None:
        icount = self.icount
        self._saved.restore(self._initial)
        x = (c_uint64 * 31).from_address(self._env + private.X0)
        for index, value in enumerate(arguments):
            x[index] = value & TOP
        self._pc.value = pc
        self._place(icount)
        for timer in self.native.timer:
            timer.compare = timer.control = timer.level = 0
        self.native.counter_access = 0
        self.native.engine.lines = self.native.engine.translations_stale = 0
        self.native.engine.memory.tlb_stale = 0
        self.native.engine.deadline = 0
        self._waiting = False
        self._follow_mmu()
        self._flush_tlb(self._cpu_state)

    def state(self) -> dict[str, Any]:
        """``context`` is Unicorn's CPU structure up to where pointers and caches begin."""
        native_state, engine = self.native, self.native.engine
        if engine.translations_stale:  # of the translations that are here, not of the machine
            engine.translations_stale = 0
            self.flush_translations()
        return {
            "model": self.model,
            "context": self._saved.context(),
            "icount": self.icount,
            "waiting": self._waiting,
            "lines": int(engine.lines),
            "timers": [
                {"compare": int(timer.compare), "control": int(timer.control), "level": int(timer.level)}
                for timer in native_state.timer
            ],
            "counter_access": int(native_state.counter_access),
            "warp_ns": int(native_state.warp_ns),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The caller has written RAM, and names changed pages that may hold code by ``code_changed``."""
        if state["model"] != self.model or len(state["context"]) != self._saved.size:
            raise UserError(f"the snapshot is of a {state['model']}, this machine has a {self.model}")
        self._saved.restore(state["context"])
        native_state, engine = self.native, self.native.engine
        self._waiting = state["waiting"]
        engine.lines = state["lines"]
        for timer, saved in zip(native_state.timer, state["timers"], strict=True):
            timer.compare, timer.control, timer.level = saved["compare"], saved["control"], saved["level"]
        native_state.counter_access = state["counter_access"]
        native_state.warp_ns = state["warp_ns"]
        engine.deadline = 0
        self._place(state["icount"])
        self._follow_mmu()
        self._flush_tlb(self._cpu_state)
