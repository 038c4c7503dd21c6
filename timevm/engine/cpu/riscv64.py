"""A RISC-V processor on Unicorn: the ``Cpu`` protocol for rv64 and sifive-u54 (RV64IMAFDC, M, S and U mode, Sv39 to
Sv57).

What runs per block, per trap or per translation is native (``native/riscv64*.c``); Python is called for device
registers and for calls of the supervisor's firmware.  The supervisor's own timer (Sstc: ``stimecmp``) is native; the
board drives ``mtip``, and ``stip`` for a guest that asks its firmware for a timer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_uint64
from typing import TYPE_CHECKING, Any

import unicorn
from unicorn import riscv_const as riscv
from unicorn import unicorn_const as const

from timevm.engine.cpu import riscv64_private as private
from timevm.engine.cpu import unicorn_library
from timevm.engine.cpu.base import Stop, StopKind
from timevm.engine.cpu.counted_cpu import CountedCpu
from timevm.engine.cpu.native import STOP_FIRMWARE_CALL, STOP_KICK
from timevm.engine.cpu.native import riscv64 as hooks
from timevm.engine.cpu.riscv64_interposed import interpose
from timevm.engine.cpu.riscv64_registers import COUNTERS, REGISTERS
from timevm.engine.cpu.riscv64_state import LINES, CpuState
from timevm.engine.cpu.sbi import Arguments, Extension, SbiOutcome
from timevm.engine.cpu.unicorn_cpu import PAGE, TOP, address_of
from timevm.errors import GuestError, UserError

if TYPE_CHECKING:  # who asks for these imports them, and the first instruction need not wait for that
    from timevm.engine.cpu.core_image import CoreImage
    from timevm.engine.cpu.mappings import Mappings, ReadMemory

#: both are what Unicorn calls a U54; QEMU's rv64 has more extensions, which the device tree must not name
MODELS = ("rv64", "sifive-u54")
#: the ``time`` register counts 10 MHz, as on QEMU's virt
NS_PER_TICK = 100
TRANSLATION_BUFFER = 128 << 20
A0, A7 = 10, 17
#: of the firmware, that set the supervisor's timer
TIMER_CALLS = (Extension.SET_TIMER, Extension.TIME)
#: nothing answers there, or a device, which holds no instructions
FETCH_ERRORS = (const.UC_ERR_FETCH_UNMAPPED, const.UC_ERR_FETCH_PROT)


class Riscv64Cpu(CountedCpu):
    """See ``Cpu``.  ``time_shift``: virtual ns = (icount << time_shift) + warp.

    ``sbi(extension, function, arguments)`` is the supervisor's firmware (``timevm.engine.cpu.sbi``): with it a reset
    enters S-mode, and ECALL from there calls it.  None: a reset enters M-mode, and the guest is its own firmware.
    Interrupt lines are the bits of mip: ``ssip``, ``msip``, ``stip``, ``mtip``, ``seip``, ``meip``.
    """

    registers = REGISTERS
    suffix = "riscv64"
    shortest_instruction = 2

    def __init__(
        self,
        model: str,
        *,
        time_shift: int,
        seed: int,
        sbi: Callable[[int, int, Arguments], SbiOutcome] | None = None,
        translation_buffer: int = TRANSLATION_BUFFER,
        exit_checks: bool = False,
    ) -> None:
        """Raises UserError for an unknown model, InternalError for a Unicorn that is not the known one.

        ``translation_buffer`` (bytes) and ``exit_checks`` (Unicorn's slow checks before each block and after each load
        and store) change nothing but speed.  ``seed`` is for random numbers, which no model offers yet.
        """
        if model not in MODELS:
            raise UserError(f"unable to find CPU model '{model}' (known: {', '.join(MODELS)})")
        private.prove()
        interpose(hooks.load())
        self.model = model
        self._sbi = sbi
        self._unicorn = unicorn.Uc(const.UC_ARCH_RISCV, const.UC_MODE_RISCV64, private.MODEL)
        self._unicorn.ctl_set_tcg_buffer_size(translation_buffer)
        self._unicorn.ctl_exits_enabled(True)
        self._unicorn.reg_read(riscv.UC_RISCV_REG_PC)  # Unicorn makes its CPU at the first use, after these settings
        cpu_state = private.find_cpu_state(self._unicorn)
        self._env = cpu_state + private.ENV
        self._make_native(cpu_state, time_shift, exit_checks)
        if not exit_checks:
            ctypes.c_uint8.from_address(self._handle + private.no_exit_request_offset()).value = 1
        self._add_hooks()
        self._saved = CpuState(cpu_state)

    # ---- construction

    def _make_native(self, cpu_state: int, time_shift: int, exit_checks: bool) -> None:
        env, exported = self._env, unicorn_library.exported
        library = hooks.load()
        self.native = hooks.Riscv64(
            env=env,
            x=env + private.GENERAL,
            bad_address=env + private.BAD_ADDRESS,
            mode=env + private.MODE,
            status=env + private.STATUS,
            pending=env + private.PENDING,
            enabled=env + private.ENABLED,
            delegated=env + private.DELEGATED,
            translation=env + private.TRANSLATION,
            counters_supervisor=env + private.COUNTERS_SUPERVISOR,
            counters_user=env + private.COUNTERS_USER,
            error=unicorn_library.handle_of(self._unicorn) + private.error_offset(),
            time_shift=time_shift,
            has_firmware=int(self._sbi is not None),
            block_checks=int(exit_checks),
            emu_start=exported("uc_emu_start"),
            code_page=exported("get_page_addr_code_hostp_riscv64"),
        )
        self._adopt(library, self.native, self.native.engine, cpu_state)
        self._adopt_counted()
        calls = self._unicorn_calls("riscv_cpu_do_interrupt", "riscv_cpu_get_phys_page_debug")
        # Unicorn's would mark pages as accessed
        calls.translate = address_of(library, "timevm_riscv64_translate_page")
        self.native.engine.call = calls
        self._place_common(env + private.PC)
        self._pc = c_uint64.from_address(env + private.PC)
        self._pending = c_uint64.from_address(env + private.PENDING)
        self._enabled = c_uint64.from_address(env + private.ENABLED)

    def _add_hooks(self) -> None:
        self.native.block_hook = self._hook(const.UC_HOOK_BLOCK, "timevm_block")
        self._hook(const.UC_HOOK_INTR, "timevm_riscv64_exception")
        self._hook(const.UC_HOOK_INSN_INVALID, "timevm_riscv64_break")
        for kind in (const.UC_HOOK_MEM_READ_UNMAPPED, const.UC_HOOK_MEM_WRITE_UNMAPPED):
            self._hook(kind, "timevm_riscv64_unmapped")

    # ---- memory

    def translate(self, address: int) -> int | None:
        page = self._library.timevm_riscv64_page(self._address, address & TOP)
        return None if page == TOP else int(page) | (address & PAGE - 1)

    # ---- running

    @property
    def _stop_pc(self) -> int:
        return self._pc.value

    def _wakes(self) -> bool:
        self.fire_timers()
        return self.interrupt_pending()

    def _start(self, icount: int) -> int:
        engine = self.native.engine
        engine.horizon, engine.budget = icount, 0
        return int(self._library.timevm_riscv64_run(self._address))

    def _stopped(self, reason: int, error: int) -> Stop | None:
        if error in FETCH_ERRORS:
            self._library.timevm_riscv64_fetch_fault(self._address)
            return None
        icount, pc = self.icount, self._pc.value
        if error != const.UC_ERR_OK:
            raise GuestError(f"the CPU cannot go on at {pc:#x} after {icount} instructions: {unicorn.UcError(error)}")
        if reason == STOP_FIRMWARE_CALL:
            return self._asked_stop() or self._firmware_call()
        stop = self._common_stop(reason)
        if stop is not None:
            return stop
        # WFI: nothing stopped it, it halted by itself
        return self._wait()

    def _wait(self) -> Stop | None:
        self._waiting = not self._wakes()
        return Stop(StopKind.IDLE, self.icount, self._pc.value) if self._waiting else None

    def _firmware_call(self) -> Stop | None:
        """The CPU stands behind its ECALL, which is counted (SBI specification 3)."""
        assert self._sbi is not None
        x = (c_uint64 * 32).from_address(self._env + private.GENERAL)
        a0, a1, a2, a3, a4, a5, function, extension = x[A0 : A7 + 1]
        if extension & 0xFFFF_FFFF in TIMER_CALLS:
            self._lend_timer()
        outcome = self._sbi(extension, function, (a0, a1, a2, a3, a4, a5))
        x[A0] = outcome.error & TOP
        if outcome.value is not None:
            x[A0 + 1] = outcome.value & TOP
        if outcome.fence:
            self._saved.forget_translations()
        if outcome.stop is not None:
            return Stop(outcome.stop, self.icount, self._pc.value)
        asked = self._asked_stop()
        if asked is not None:
            return asked
        if outcome.wait:
            return self._wait()
        # a device that was asked for something may have a deadline now
        return self._common_stop(STOP_KICK) if self._common.kick else None

    def _lend_timer(self) -> None:
        """From now on the interrupt is the firmware's."""
        self.native.timer_is_ours = 0
        self.native.timer_compare = TOP
        self.native.engine.deadline = 0
        self._drive("stip", bool(self.native.timer_line))

    # ---- interrupts and time

    def set_interrupt(self, line: str, level: bool) -> None:
        if line == "stip":
            self.native.timer_line = int(level)
            if self.native.timer_is_ours:
                return
        self._drive(line, level)

    def _drive(self, line: str, level: bool) -> None:
        if level:
            self._pending.value |= LINES[line]
            self._look_soon()
        else:
            self._pending.value &= ~LINES[line]

    def interrupt_pending(self) -> bool:
        """True if an interrupt would wake the CPU from WFI: one that is not enabled does not."""
        return bool(self._pending.value & self._enabled.value)

    def set_warp(self, ns: int) -> None:
        self.native.warp_ns = ns
        self.native.engine.deadline = 0

    def next_timer(self) -> int | None:
        deadline = self._library.timevm_riscv64_next_timer_ns(self._address, self.icount)
        return None if deadline < 0 else int(deadline)

    def fire_timers(self) -> None:
        self._library.timevm_riscv64_evaluate_timer(self._address, self.icount)

    # ---- registers

    def features(self) -> dict[str, int]:
        return {name: self.read_register(name) for name in ("misa", "mhartid", "medeleg", "mideleg")}

    def read_register(self, name: str) -> int:
        """Raises UserError for a name that is not in ``registers``."""
        if name in COUNTERS:
            icount = self.icount
            now = (icount << self.native.time_shift) + self.native.warp_ns
            return now // NS_PER_TICK if name == "time" else icount
        return self._saved.read(name)

    def core_image(self) -> CoreImage:
        from timevm.engine.cpu.riscv64_core import describe

        return describe(self.read_register)

    def mappings(self, read: ReadMemory) -> Mappings:
        from timevm.engine.cpu.riscv64_mappings import mappings

        return mappings(self.read_register, read)

    def write_register(self, name: str, value: int) -> None:
        """Raises UserError for a name that is not in ``registers``."""
        if name in COUNTERS:
            raise UserError(f"'{name}' counts the instructions since reset: it cannot be written")
        icount = self.icount
        self._saved.write(name, value)
        self._place(icount)

    def _forget_tlb(self) -> None:
        self._saved.forget_translations()

    # ---- state

    def _place(self, icount: int) -> None:
        super()._place(icount)
        self.native.engine.deadline = 0

    def reset(self, pc: int, arguments: Sequence[int]) -> None:
        icount = self.icount
        self._saved.power_on()
        if self._sbi is not None:
            self._saved.leave_firmware()
        x = (c_uint64 * 32).from_address(self._env + private.GENERAL)
        for index, value in enumerate(arguments):
            x[A0 + index] = value & TOP
        self._pc.value = pc & TOP
        self._place(icount)
        self.native.engine.memory.tlb_stale = 0
        self._set_timer(TOP, False, False)
        self._waiting = False
        self._asked = None

    def _set_timer(self, compare: int, is_ours: bool, line: bool) -> None:
        self.native.timer_compare, self.native.timer_is_ours, self.native.timer_line = compare, is_ours, line

    def state(self) -> dict[str, Any]:
        """``context`` is Unicorn's CPU structure up to where pointers and caches begin; interrupt lines are in it."""
        return {
            "model": self.model,
            "context": self._saved.context(),
            "float_flags": self._saved.float_flags(),
            "icount": self.icount,
            "waiting": self._waiting,
            "warp_ns": int(self.native.warp_ns),
            "timer": {
                "compare": int(self.native.timer_compare),
                "is_ours": bool(self.native.timer_is_ours),
                "line": bool(self.native.timer_line),
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The caller has written RAM, and names changed pages that may hold code by ``code_changed``."""
        if state["model"] != self.model or len(state["context"]) != private.CONTEXT:
            raise UserError(f"the snapshot is of a {state['model']}, this machine has a {self.model}")
        self._saved.restore(state["context"], state["float_flags"])
        self._waiting = state["waiting"]
        self._asked = None
        self._set_timer(state["timer"]["compare"], state["timer"]["is_ours"], state["timer"]["line"])
        self.native.warp_ns = state["warp_ns"]
        self._place(state["icount"])
