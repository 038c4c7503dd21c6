"""An AArch64 processor on Unicorn: the ``Cpu`` protocol for cortex-a53, -a57, -a72 and max.

What runs per block, per exception or per hot register is native (``native/aarch64.c``); Python is called for device
registers, timer lines and firmware calls only: some ten thousand times in a Linux boot.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_uint64, c_void_p
from typing import Any, Protocol

import unicorn
from unicorn import arm64_const as arm64
from unicorn import unicorn_const as const

from timevm.engine.cpu import aarch64_private as private
from timevm.engine.cpu import native, psci, unicorn_library
from timevm.engine.cpu.aarch64_registers import REGISTERS, SYSTEM_BY_NAME, UNICORN_NUMBER, SystemRegister
from timevm.engine.cpu.base import Collected, MmioHandler, Stop, StopKind, WatchKind, Watchpoint
from timevm.errors import GuestError, InternalError, UserError

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
TOP = (1 << 64) - 1
#: ``uc_ctl``'s number for writing UC_CTL_TLB_TYPE with one argument (UC_CTL_WRITE in unicorn.h)
TRANSLATION_REQUEST = const.UC_CTL_TLB_TYPE | 1 << 26 | const.UC_CTL_IO_WRITE << 30
SCTLR_MMU = 1

# EL1h, all interrupts masked (Arm ARM D1.6.1: the state after a reset)
RESET_PSTATE = 0x3C5
SCR_EL3 = SystemRegister("SCR_EL3", 3, 6, 1, 1, 0)
HCR_EL2 = SystemRegister("HCR_EL2", 3, 4, 1, 1, 0)
CPTR_EL3 = SystemRegister("CPTR_EL3", 3, 6, 1, 1, 2)
#: NS, RES1, HCE, RW: EL1 is non-secure AArch64, HVC is defined
SCR_NONSECURE_AARCH64 = 0x531
SCR_POINTER_AUTHENTICATION = 3 << 16
HCR_AARCH64 = 1 << 31
HCR_POINTER_AUTHENTICATION = 3 << 40
CPTR_SVE = 1 << 8

ID_PROCESSOR = SystemRegister("ID_AA64PFR0_EL1", 3, 0, 0, 4, 0)
ID_DEBUG = SystemRegister("ID_AA64DFR0_EL1", 3, 0, 0, 5, 0)
ID_ISA = SystemRegister("ID_AA64ISAR0_EL1", 3, 0, 0, 6, 0)


def features_processor(raw: int) -> int:
    """No EL2, EL3 or GIC system registers here, and EL0 only in AArch64 (fields of four bits)."""
    return raw & ~(0xFFF << 4 | 0xF << 24 | 0xF) | 1 << 4 | 1


def features_debug(raw: int) -> int:
    """No performance monitors: their counters would be host time in Unicorn."""
    return raw & ~(0xF << 8)


def _passed_stop(passed: native.PassedStop) -> Stop:
    if not passed.is_watchpoint:
        return Stop(StopKind.BREAKPOINT, int(passed.icount), int(passed.pc))
    return Stop(StopKind.WATCHPOINT, int(passed.icount), int(passed.pc), int(passed.address), bool(passed.is_write))


class WindowPort(Protocol):
    """What a device may hand to the native side of its window, so that hot registers cost no Python call."""

    def set_constant_read(self, offset: int | None, value: int = 0) -> None:
        """Reads at ``offset`` give ``value`` and have no effect."""

    def set_output(self, offset: int | None) -> None:
        """Writes at ``offset`` have no other effect than their low byte going to ``output``."""


class Aarch64Window:
    """A window of device registers and its native twin."""

    def __init__(self, cpu: Aarch64Cpu, number: int, handler: MmioHandler, output: Callable[[bytes], None]) -> None:
        self.handler = handler
        self._output = output
        self.twin = native.Window(
            engine=ctypes.addressof(cpu.native.engine),
            number=number,
            constant_offset=native.NO_OFFSET,
            output_offset=native.NO_OFFSET,
        )

    def set_constant_read(self, offset: int | None, value: int = 0) -> None:
        self.twin.constant_value = value
        self.twin.constant_offset = native.NO_OFFSET if offset is None else offset

    def set_output(self, offset: int | None) -> None:
        self.twin.output_offset = native.NO_OFFSET if offset is None else offset

    def drain(self) -> None:
        used = self.twin.output_used
        if used:
            data = bytes(self.twin.output[:used])
            self.twin.output_used = 0
            self._output(data)


class Aarch64Cpu:
    """See ``Cpu``.  ``time_shift``: virtual ns = (icount << time_shift) + warp; ``seed``: 64 bits for RNDR."""

    registers = REGISTERS

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
        ``exit_checks`` (Unicorn's slow check after each load and store) and ``flat_translation`` (our own translation
        while the MMU is off) change nothing but speed.
        """
        if model not in MODELS:
            raise UserError(f"unable to find CPU model '{model}' (known: {', '.join(MODELS)})")
        private.prove()
        library = native.load()
        self.model = model
        self._library = library
        self._timer_changed = timer_line
        self._engine = unicorn.Uc(const.UC_ARCH_ARM64, const.UC_MODE_ARM, MODELS[model])
        self._engine.ctl_set_tcg_buffer_size(translation_buffer)
        self._engine.ctl_set_page_size(4096)
        self._engine.ctl_exits_enabled(True)
        self._engine.reg_read(arm64.UC_ARM64_REG_PC)  # Unicorn makes its CPU at the first use, after these settings
        self._handle = unicorn_library.handle_of(self._engine)
        self._state = private.find_cpu_state(self._engine)
        self._env = self._state + private.ENV
        if not exit_checks:
            ctypes.c_uint8.from_address(self._handle + private.no_exit_request_offset()).value = 1
        self._flush_tlb = unicorn_library.function("tlb_flush_aarch64", None, c_void_p)
        self._flush_translations = unicorn_library.function("tb_flush_aarch64", None, c_void_p)
        self._invalidate = unicorn_library.function(
            "tb_invalidate_phys_range_aarch64", None, c_void_p, c_uint64, c_uint64
        )
        self._translate = unicorn_library.function(
            "arm_cpu_get_phys_page_attrs_debug_aarch64", c_uint64, c_void_p, c_uint64, c_void_p
        )
        self._ram_offset = unicorn_library.function("qemu_ram_addr_from_host_aarch64", c_uint64, c_void_p, c_uint64)
        self._context_size = self._measure_context()
        self._windows: list[Aarch64Window] = []
        self._failure: BaseException | None = None
        self._waiting = False
        self._breakpoint_hooks: dict[int, int] = {}
        self._breakpoints: frozenset[int] = frozenset()
        self._watchpoints: frozenset[Watchpoint] = frozenset()
        self._applied_watchpoints: frozenset[Watchpoint] = frozenset()
        self._watch_hooks: list[int] = []
        self._flat_translation = flat_translation
        self._make_native(time_shift, seed)
        self._add_hooks()
        self._prepare_system()
        self._initial = self._context()

    # ---- construction

    def _measure_context(self) -> int:
        """Bytes of the CPU structure that make up its state (a ``uc_context`` begins with that size)."""
        context = self._engine.context_save()
        return int(ctypes.c_size_t.from_address(context.context.value).value)

    def _make_native(self, time_shift: int, seed: int) -> None:
        self._callbacks = (
            native.DeviceRead(self._device_read),
            native.DeviceWrite(self._device_write),
            native.DrainOutput(self._drain_output),
            native.TimerLine(self._timer_line),
        )
        env, state = self._env, self._state
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
            timer_line=self._callbacks[3],
        )
        engine = self.native.engine
        engine.call = native.UnicornCalls(
            emu_stop=unicorn_library.exported("uc_emu_stop"),
            leave_block=unicorn_library.exported("cpu_loop_exit_noexc_aarch64"),
            restore_state=unicorn_library.exported("cpu_restore_state_aarch64"),
            flush_translations=unicorn_library.exported("tb_flush_aarch64"),
            invalidate_range=unicorn_library.exported("tb_invalidate_phys_range_aarch64"),
            take_exception=unicorn_library.exported("arm_cpu_do_interrupt_aarch64"),
            flush_tlb_page=unicorn_library.exported("tlb_flush_page_aarch64"),
            control=unicorn_library.exported("uc_ctl"),
            translate=unicorn_library.exported("arm_cpu_get_phys_page_attrs_debug_aarch64"),
        )
        engine.unicorn, engine.cpu_state = self._handle, state
        engine.pc = env + private.PC
        engine.next_block_flags = state + private.NEXT_BLOCK_FLAGS
        engine.exception_index = state + private.EXCEPTION_INDEX
        engine.access_host_pc = state + private.ACCESS_HOST_PC
        engine.skip_breakpoint_at = engine.skip_watchpoint_at = engine.settle_at = -1
        engine.device_read, engine.device_write, engine.drain_output = self._callbacks[:3]
        self._pc = ctypes.c_uint64.from_address(env + private.PC)
        self._next_block_flags = ctypes.c_uint32.from_address(state + private.NEXT_BLOCK_FLAGS)
        self._address = ctypes.addressof(self.native)

    def _native_function(self, name: str) -> int:
        address = ctypes.cast(getattr(self._library, name), c_void_p).value
        assert address is not None
        return address

    def _hook(self, kind: int, name: str, instruction: int = 0, begin: int = 1, end: int = 0) -> int:
        """A native function for a kind of event between two addresses; ``begin > end``: everywhere."""
        function = self._native_function(name)
        return unicorn_library.add_hook(self._engine, kind, function, self._address, begin, end, instruction)

    def _add_hooks(self) -> None:
        self._hook(const.UC_HOOK_BLOCK, "timevm_block")
        self._hook(const.UC_HOOK_INTR, "timevm_exception")
        self._hook(const.UC_HOOK_INSN, "timevm_system_read", arm64.UC_ARM64_INS_MRS)
        self._hook(const.UC_HOOK_INSN, "timevm_system_write", arm64.UC_ARM64_INS_MSR)
        self._hook(const.UC_HOOK_INSN, "timevm_system_instruction", arm64.UC_ARM64_INS_SYS)
        self._hook(const.UC_HOOK_TLB_FILL, "timevm_flat_translation")

    def _prepare_system(self) -> None:
        """What firmware would have done before it left EL3."""
        is_max = self.model == "max"
        self._write_system(SCR_EL3, SCR_NONSECURE_AARCH64 | (SCR_POINTER_AUTHENTICATION if is_max else 0))
        self._write_system(HCR_EL2, HCR_AARCH64 | (HCR_POINTER_AUTHENTICATION if is_max else 0))
        if is_max:
            self._write_system(CPTR_EL3, self._read_system(CPTR_EL3) | CPTR_SVE)
        self._engine.reg_write(arm64.UC_ARM64_REG_PSTATE, RESET_PSTATE)
        # writing a register through this path also rebuilds the flags that translated code depends on
        self._write_system(SYSTEM_BY_NAME["ELR_EL1"], 0)
        self.native.features_processor = features_processor(self._read_system(ID_PROCESSOR))
        self.native.features_debug = features_debug(self._read_system(ID_DEBUG))
        self.native.features_isa = self._read_system(ID_ISA)

    # ---- memory

    def map_ram(self, base: int, host_address: int, size: int) -> None:
        """``base``, ``host_address`` and ``size`` in whole pages.  One range only."""
        error = unicorn_library.mem_map_ptr(self._handle, base, size, const.UC_PROT_ALL, host_address)
        unicorn_library.check(error, "map the guest's RAM")
        self.native.ram_base, self.native.ram_end = base, base + size
        self.native.ram_offset = self._ram_offset(self._handle, host_address)
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

    def map_mmio(
        self, base: int, size: int, handler: MmioHandler, output: Callable[[bytes], None] = lambda data: None
    ) -> Aarch64Window:
        """``output`` gets what is written to the register named by ``Aarch64Window.set_output``."""
        number = len(self._windows)
        if number == native.MAX_WINDOWS:
            raise InternalError(f"more than {native.MAX_WINDOWS} device windows")
        window = Aarch64Window(self, number, handler, output)
        self._windows.append(window)
        self.native.engine.windows[number] = ctypes.pointer(window.twin)
        self.native.engine.window_count = number + 1
        twin = ctypes.addressof(window.twin)
        error = unicorn_library.mmio_map(
            self._handle,
            base,
            size,
            self._native_function("timevm_device_read"),
            twin,
            self._native_function("timevm_device_write"),
            twin,
        )
        unicorn_library.check(error, f"map a device at {base:#x}")
        return window

    def code_changed(self, base: int, size: int) -> None:
        ram = self.native
        start, end = max(base, ram.ram_base), min(base + size, ram.ram_end)
        if start < end:
            offset = ram.ram_offset - ram.ram_base
            self._invalidate(self._handle, start + offset, end + offset)

    def flush_translations(self) -> None:
        """Drop all translated code; only speed changes."""
        self._flush_translations(self._state)

    # ---- calls from native code; an exception is kept and raised by `run`

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self.native.engine.stop = native.STOP_CALLBACK_FAILED
        self._look_soon()

    def _look_soon(self) -> None:
        engine = self.native.engine
        engine.horizon -= engine.budget
        engine.budget = 0

    def _device_read(self, window: int, offset: int, size: int) -> int:
        try:
            return self._windows[window].handler.read(offset, size) & TOP
        except BaseException as error:  # noqa: BLE001 - must not cross native frames; raised again by run()
            self._fail(error)
            return 0

    def _device_write(self, window: int, offset: int, size: int, value: int) -> None:
        try:
            target = self._windows[window]
            target.drain()
            target.handler.write(offset, size, value)
        except BaseException as error:  # noqa: BLE001 - must not cross native frames; raised again by run()
            self._fail(error)

    def _drain_output(self, window: int) -> None:
        try:
            self._windows[window].drain()
        except BaseException as error:  # noqa: BLE001 - must not cross native frames; raised again by run()
            self._fail(error)

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
    def waiting(self) -> bool:
        """The CPU executed WFI and no interrupt input is active."""
        return self._waiting

    def kick(self) -> None:
        self.native.engine.kick = 1

    def ask_attention(self) -> None:
        self.native.engine.kick = 1
        self._look_soon()

    def run(self, limit: int) -> Stop:
        """Run until ``icount == limit`` at the latest.  About 10 us a call, nothing per block."""
        engine = self.native.engine
        self._apply_stops()
        if self._waiting:
            self._library.timevm_evaluate_timers(self._address, self.icount)
            self._raise_failure()
            if not engine.lines:
                return Stop(StopKind.IDLE, self.icount, self._pc.value)
            self._waiting = False
        while True:
            start = self.icount
            if start >= limit:
                return Stop(StopKind.LIMIT, start, self._pc.value)
            engine.limit = limit
            engine.entered = start
            engine.stop = native.STOP_NONE
            engine.horizon, engine.budget, engine.block_end = start, 0, self._pc.value
            self._next_block_flags.value = 0xFFFF_FFFF
            error = unicorn_library.emu_start(self._handle, self._pc.value, 0, 0, 0)
            for window in self._windows:
                window.drain()
            self._raise_failure()
            stop = self._stopped(engine.stop, error)
            if stop is not None:
                return stop

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _stopped(self, reason: int, error: int) -> Stop | None:
        """Why emulation came back; None: go on."""
        engine = self.native.engine
        if error == const.UC_ERR_FETCH_UNMAPPED:
            self._library.timevm_fetch_abort(self._address)
            return None
        if error != const.UC_ERR_OK:
            raise GuestError(
                f"the CPU cannot go on at pc {self._pc.value:#x} after {self.icount} instructions: "
                f"{unicorn.UcError(error)}"
            )
        icount, pc = self.icount, self._pc.value
        if reason in (native.STOP_LIMIT, native.STOP_SETTLED):
            return Stop(StopKind.LIMIT, icount, pc)
        if reason == native.STOP_KICK:
            engine.kick = 0
            return Stop(StopKind.KICK, icount, pc)
        if reason == native.STOP_BREAKPOINT:
            self.pass_breakpoint()
            return Stop(StopKind.BREAKPOINT, icount, pc)
        if reason == native.STOP_WATCHPOINT:
            engine.skip_watchpoint_at = icount
            return Stop(StopKind.WATCHPOINT, icount, pc, int(engine.stop_address), bool(engine.stop_is_write))
        if reason == native.STOP_FIRMWARE_CALL:
            return self._firmware_call()
        if reason != native.STOP_NONE:
            raise InternalError(f"the native hooks stopped for an unknown reason ({reason})")
        # WFI: nothing stopped it, it halted by itself
        self._waiting = True
        self._library.timevm_evaluate_timers(self._address, icount)
        self._raise_failure()
        if engine.lines:
            self._waiting = False
            return None
        return Stop(StopKind.IDLE, icount, pc)

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

    def _read_system(self, register: SystemRegister) -> int:
        key = (register.crn, register.crm, register.op0, register.op1, register.op2)
        return int(self._engine.reg_read(arm64.UC_ARM64_REG_CP_REG, key))

    def _write_system(self, register: SystemRegister, value: int) -> None:
        key = (register.crn, register.crm, register.op0, register.op1, register.op2, value & TOP)
        self._engine.reg_write(arm64.UC_ARM64_REG_CP_REG, key)

    def read_register(self, name: str) -> int:
        """Raises UserError for a name that is not in ``registers``."""
        if name in SYSTEM_BY_NAME:
            return self._read_system(SYSTEM_BY_NAME[name])
        if name not in UNICORN_NUMBER:
            raise UserError(f"unknown register '{name}'")
        return int(self._engine.reg_read(UNICORN_NUMBER[name]))

    def write_register(self, name: str, value: int) -> None:
        """Raises UserError for a name that is not in ``registers``."""
        if name == "pc":
            # a new place, the same moment
            icount = self.icount
            self._pc.value = value & TOP
            self._place(icount)
        elif name in SYSTEM_BY_NAME:
            self._write_system(SYSTEM_BY_NAME[name], value)
        elif name in UNICORN_NUMBER:
            self._engine.reg_write(UNICORN_NUMBER[name], value)
            if name == "cpsr":
                self._write_system(SYSTEM_BY_NAME["ELR_EL1"], self._read_system(SYSTEM_BY_NAME["ELR_EL1"]))
        else:
            raise UserError(f"unknown register '{name}'")

    def translate(self, address: int) -> int | None:
        attributes = (c_uint64 * 4)()
        page = self._translate(self._state, address & ~0xFFF & TOP, attributes)
        return None if page == TOP else int(page) | (address & 0xFFF)

    # ---- break- and watchpoints

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """Free; what changed is applied when the CPU runs next."""
        self._breakpoints = addresses

    def set_watchpoints(self, watchpoints: frozenset[Watchpoint]) -> None:
        """Free; while there are any, every load and store of the guest takes Unicorn's slow path.

        Raises UserError for more than the native table holds.
        """
        if len(watchpoints) > native.MAX_WATCHES:
            raise UserError(f"more than {native.MAX_WATCHES} watchpoints")
        self._watchpoints = watchpoints

    def pass_breakpoint(self) -> None:
        self.native.engine.skip_breakpoint_at = self.icount
        self.native.engine.skip_breakpoint_pc = self._pc.value

    def _apply_breakpoints(self) -> None:
        """Costs a hook and the translation of one block for each that comes or goes."""
        changed = self._breakpoints ^ self._breakpoint_hooks.keys()
        for address in sorted(changed):
            if address in self._breakpoint_hooks:
                error = unicorn_library.hook_delete(self._handle, self._breakpoint_hooks.pop(address))
                unicorn_library.check(error, "remove a breakpoint")
            else:
                self._breakpoint_hooks[address] = self._hook(
                    const.UC_HOOK_CODE, "timevm_breakpoint", begin=address, end=address
                )
        places = [self.translate(address) for address in changed]
        if None in places:
            self.flush_translations()  # it may have been translated in another address space
        for place in places:
            if place is not None:
                self.code_changed(place, 4)

    def _apply_watchpoints(self) -> None:
        engine = self.native.engine
        self._applied_watchpoints = self._watchpoints
        for handle in self._watch_hooks:
            unicorn_library.check(unicorn_library.hook_delete(self._handle, handle), "remove a watchpoint")
        self._watch_hooks.clear()
        kinds = {
            WatchKind.READ: native.WATCH_READ,
            WatchKind.WRITE: native.WATCH_WRITE,
            WatchKind.ACCESS: native.WATCH_READ | native.WATCH_WRITE,
        }
        engine.watch_count = len(self._watchpoints)
        for place, watch in enumerate(sorted(self._watchpoints, key=lambda watch: (watch.address, watch.length))):
            engine.watches[place] = native.Watch(watch.address, watch.length, kinds[watch.kind])
        if self._watchpoints:
            for kind in (const.UC_HOOK_MEM_READ, const.UC_HOOK_MEM_WRITE):
                self._watch_hooks.append(self._hook(kind, "timevm_access"))
        self.flush_translations()  # whether accesses are looked at is decided when code is translated

    def _apply_stops(self) -> None:
        if self._breakpoints != self._breakpoint_hooks.keys():
            self._apply_breakpoints()
        if self._watchpoints != self._applied_watchpoints:
            self._apply_watchpoints()

    def run_collecting(self, limit: int) -> Collected:
        """10^5 stops cost native time only; about 1 us for each that is kept."""
        engine = self.native.engine
        engine.skip_breakpoint_at = engine.skip_watchpoint_at = -1
        engine.passed_count = 0
        engine.collect = 1
        try:
            stop = self.run(limit)
        finally:
            engine.collect = 0
        count = int(engine.passed_count)
        kept = range(max(0, count - native.MAX_PASSED), count)
        passed = [_passed_stop(engine.passed[number % native.MAX_PASSED]) for number in kept]
        return Collected(stop, passed, complete=count <= native.MAX_PASSED)

    def settle(self) -> Stop:
        engine = self.native.engine
        engine.settle_at = self.icount
        engine.collect = 1
        try:
            return self.run(self.icount + 1)
        finally:
            engine.settle_at = -1
            engine.collect = 0

    # ---- state

    def _follow_mmu(self) -> None:
        """The CPU structure was replaced: translate as its SCTLR_EL1 says."""
        self._library.timevm_set_mmu(self._address, self._read_system(SYSTEM_BY_NAME["SCTLR_EL1"]) & SCTLR_MMU)

    def _context(self) -> bytes:
        # host time, and what a look for an instruction's place leaves behind (it depends on how code was translated)
        for scratch in (private.HOST_CYCLES, private.SYNDROME):
            c_uint64.from_address(self._env + scratch).value = 0
        return ctypes.string_at(self._env, self._context_size)

    def _place(self, icount: int) -> None:
        """The CPU stands between two instructions at ``icount``, whatever it did before."""
        engine = self.native.engine
        engine.skip_breakpoint_at = engine.skip_watchpoint_at = -1
        engine.horizon, engine.budget, engine.block_end = icount, 0, self._pc.value

    def reset(self, pc: int, arguments: Sequence[int]) -> None:
        icount = self.icount
        ctypes.memmove(self._env, self._initial, self._context_size)
        x = (c_uint64 * 31).from_address(self._env + private.X0)
        for index, value in enumerate(arguments):
            x[index] = value & TOP
        self._pc.value = pc
        self._place(icount)
        for timer in self.native.timer:
            timer.compare = timer.control = timer.level = 0
        self.native.counter_access = 0
        self.native.engine.lines = self.native.engine.translations_stale = 0
        self.native.engine.deadline = 0
        self._waiting = False
        self._follow_mmu()
        self._flush_tlb(self._state)

    def state(self) -> dict[str, Any]:
        """``context`` is Unicorn's CPU structure up to where pointers and caches begin."""
        native_state, engine = self.native, self.native.engine
        if engine.translations_stale:  # of the translations that are here, not of the machine
            engine.translations_stale = 0
            self.flush_translations()
        return {
            "model": self.model,
            "context": self._context(),
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
        if state["model"] != self.model or len(state["context"]) != self._context_size:
            raise UserError(f"the snapshot is of a {state['model']}, this machine has a {self.model}")
        ctypes.memmove(self._env, state["context"], self._context_size)
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
        self._flush_tlb(self._state)
