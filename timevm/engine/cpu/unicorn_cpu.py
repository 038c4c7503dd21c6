"""What every processor on Unicorn does alike: device windows, the run loop, calls from native code.

An architecture's class gives it the native structures (``engine`` is their common part), says how a run is begun, what
made it come back, and how code and addresses are found.
"""

from __future__ import annotations

import ctypes
from abc import abstractmethod
from collections.abc import Callable
from ctypes import c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

import numpy as np
import unicorn

from timevm.engine.cpu import linkage, native, private, unicorn_library
from timevm.engine.cpu.base import Collected, MmioHandler, Stop, StopKind
from timevm.engine.cpu.code_trace import CodeTrace
from timevm.engine.cpu.unicorn_stops import UnicornStops
from timevm.errors import InternalError

PAGE = 4096
TOP = (1 << 64) - 1


def no_output(data: bytes) -> None:
    """What becomes of the output of a window that has none."""


def address_of(library: Any, name: str) -> int:
    """Of a function of the native library."""
    address = ctypes.cast(getattr(library, name), c_void_p).value
    assert address is not None
    return address


class UnicornWindow:
    """A window of device registers and its native twin: hot registers cost no Python call."""

    def __init__(self, engine: int, number: int, handler: MmioHandler, output: Callable[[bytes], None]) -> None:
        self.handler = handler
        self._output = output
        self.twin = native.Window(
            engine=engine, number=number, constant_offset=native.NO_OFFSET, output_offset=native.NO_OFFSET
        )

    def set_constant_read(self, offset: int | None, value: int = 0) -> None:
        """Reads at ``offset`` give ``value`` and have no effect."""
        self.twin.constant_value = value
        self.twin.constant_offset = native.NO_OFFSET if offset is None else offset

    def set_output(self, offset: int | None) -> None:
        """Writes at ``offset`` have no other effect than their low byte going to ``output``."""
        self.twin.output_offset = native.NO_OFFSET if offset is None else offset

    def drain(self) -> None:
        """Hand over what was collected."""
        used = self.twin.output_used
        if used:
            data = bytes(self.twin.output[:used])
            self.twin.output_used = 0
            self._output(data)


@cache
def hide_the_clock(library: Any) -> None:
    """Once in a process, whatever is emulated in it: Unicorn's own looks at the host's time see some pass at each."""
    linkage.slot("gettimeofday").value = address_of(library, "timevm_time_of_day")


class UnicornCpu(UnicornStops):
    """The common part of a ``Cpu``.

    The subclass's constructor makes ``_unicorn`` and calls ``_adopt`` with its native structures before any other
    method is used.
    """

    #: of Unicorn's exported functions
    suffix: str

    _unicorn: unicorn.Uc

    def _adopt(self, library: Any, structures: ctypes.Structure, engine: native.Engine, cpu_state: int) -> None:
        """``structures`` hold ``engine``; ``cpu_state`` is the address of Unicorn's CPUState."""
        hide_the_clock(library)
        self._library = library
        self._structures = structures
        self._address = ctypes.addressof(structures)
        self._common = engine
        self._cpu_state = cpu_state
        self._handle = unicorn_library.handle_of(self._unicorn)
        self._windows: list[UnicornWindow] = []
        self._failure: BaseException | None = None
        self._waiting = False
        self._trace: CodeTrace | None = None
        self._forget_stops()
        self._flush_translations = unicorn_library.function(f"tb_flush_{self.suffix}", None, c_void_p)
        self._device_calls = (
            native.DeviceRead(self._device_read),
            native.DeviceWrite(self._device_write),
            native.DrainOutput(self._drain_output),
        )
        engine.unicorn, engine.cpu_state = self._handle, cpu_state
        engine.settle_at = -1
        memory = engine.memory
        memory.watch_writes = unicorn_library.exported(f"tlb_reset_dirty_{self.suffix}")
        memory.flush_tlb = unicorn_library.exported(f"tlb_flush_{self.suffix}")
        memory.flushes, memory.begun_anew_at = 1, -1
        name = f"qemu_ram_addr_from_host_{self.suffix}"
        self._ram_offset = unicorn_library.function(name, c_uint64, c_void_p, c_uint64)
        engine.device_read, engine.device_write, engine.drain_output = self._device_calls

    def _add_ram(self, base: int, host_address: int, size: int) -> None:
        """Mapped at ``base``: the native hooks are told.  Raises InternalError if there are too many ranges."""
        memory = self._common.memory
        if memory.ram_count == native.MAX_RAM_RANGES:
            raise InternalError(f"more than {native.MAX_RAM_RANGES} ranges of memory")
        offset = self._ram_offset(self._handle, host_address)
        memory.ram[memory.ram_count] = native.RamRange(base, base + size, offset, host_address)
        memory.ram_count += 1
        pages = max((entry.offset + entry.end - entry.base) // PAGE for entry in memory.ram)
        self._pages_of_ram = (native.RamPage * pages)()
        # the host has memory for those that are used only
        self._tables = np.zeros(pages * ctypes.sizeof(native.Table), dtype=np.uint8)
        memory.pages, memory.tables = ctypes.addressof(self._pages_of_ram), self._tables.ctypes.data
        memory.page_count = pages

    def _place_common(self, pc: int) -> None:
        """Addresses of the fields of Unicorn's structures that the common hooks use."""
        engine, state = self._common, self._cpu_state
        engine.pc, engine.next_block_flags = pc, state + private.NEXT_BLOCK_FLAGS
        engine.exception_index, engine.access_host_pc = state + private.EXCEPTION_INDEX, state + private.ACCESS_HOST_PC
        self._next_block_flags = c_uint32.from_address(state + private.NEXT_BLOCK_FLAGS)

    def _unicorn_calls(self, take_exception: str, translate: str) -> native.UnicornCalls:
        """The functions that the common hooks call; two have another name in each architecture."""
        exported, suffix = unicorn_library.exported, self.suffix
        self._translate_page = unicorn_library.function(f"{translate}_{suffix}", c_uint64, c_void_p, c_uint64, c_void_p)
        return native.UnicornCalls(
            emu_stop=exported("uc_emu_stop"),
            leave_block=exported(f"cpu_loop_exit_noexc_{suffix}"),
            restore_state=exported(f"cpu_restore_state_{suffix}"),
            flush_translations=exported(f"tb_flush_{suffix}"),
            invalidate_range=exported(f"tb_invalidate_phys_range_{suffix}"),
            take_exception=exported(f"{take_exception}_{suffix}"),
            flush_tlb_page=exported(f"tlb_flush_page_{suffix}"),
            control=exported("uc_ctl"),
            translate=exported(f"{translate}_{suffix}"),
        )

    # ---- what an architecture does its own way

    @abstractmethod
    def _wakes(self) -> bool:
        """A CPU that waits for an interrupt goes on: something is active that wakes it now."""

    @abstractmethod
    def _start(self, icount: int) -> int:
        """Emulate from ``icount`` on until something stops it.  Unicorn's error code."""

    @abstractmethod
    def _stopped(self, reason: int, error: int) -> Stop | None:
        """Why emulation came back; None: go on."""

    # ---- devices

    def _new_window(self, handler: MmioHandler, output: Callable[[bytes], None]) -> UnicornWindow:
        number = len(self._windows)
        if number == native.MAX_WINDOWS:
            raise InternalError(f"more than {native.MAX_WINDOWS} device windows")
        window = UnicornWindow(ctypes.addressof(self._common), number, handler, output)
        self._windows.append(window)
        self._common.windows[number] = ctypes.pointer(window.twin)
        self._common.window_count = number + 1
        return window

    def _map_window(self, base: int, size: int, functions: str, user: int) -> None:
        """``functions`` with ``_read`` and ``_write`` behind it are native; they get ``user``."""
        read, write = (address_of(self._library, f"{functions}_{way}") for way in ("read", "write"))
        error = unicorn_library.mmio_map(self._handle, base, size, read, user, write, user)
        unicorn_library.check(error, f"map a device at {base:#x}")

    def _hook(self, kind: int, name: str, instruction: int = 0, begin: int = 1, end: int = 0) -> int:
        """A native function for a kind of event between two addresses; ``begin > end``: everywhere."""
        function = address_of(self._library, name)
        return unicorn_library.add_hook(self._unicorn, kind, function, self._address, begin, end, instruction)

    def map_mmio(
        self, base: int, size: int, handler: MmioHandler, output: Callable[[bytes], None] = no_output
    ) -> UnicornWindow:
        """``output`` gets what is written to the register named by ``UnicornWindow.set_output``."""
        window = self._new_window(handler, output)
        self._map_window(base, size, "timevm_device", ctypes.addressof(window.twin))
        return window

    # ---- calls from native code; an exception is kept and raised by `run`

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._common.stop = native.STOP_CALLBACK_FAILED
        self._look_soon()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _look_soon(self) -> None:
        engine = self._common
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

    # ---- running

    @property
    def pc(self) -> int:
        return self._stop_pc

    @property
    def waiting(self) -> bool:
        """The CPU waits for an interrupt and nothing wakes it."""
        return self._waiting

    def kick(self) -> None:
        self._common.kick = 1

    def ask_attention(self) -> None:
        self._common.kick = 1
        self._look_soon()

    def run(self, limit: int) -> Stop:
        """Run until ``icount == limit`` at the latest.  About 10 us a call, nothing per block."""
        engine = self._common
        self._apply_stops()
        if self._waiting:
            if not self._wakes():
                return Stop(StopKind.IDLE, self.icount, self._stop_pc)
            self._waiting = False
        while True:
            start = self.icount
            if start >= limit:
                return Stop(StopKind.LIMIT, start, self._stop_pc)
            engine.limit, engine.entered, engine.stop = limit, start, native.STOP_NONE
            self._next_block_flags.value = 0xFFFF_FFFF
            error = self._start(start)
            for window in self._windows:
                window.drain()
            self._raise_failure()
            stop = self._stopped(engine.stop, error)
            if stop is not None:
                return stop
            if engine.kick:  # a guest whose every fetch aborts enters its vector for ever and executes nothing
                return self._kicked()

    def _kicked(self) -> Stop:
        self._common.kick = 0
        return Stop(StopKind.KICK, self.icount, self._stop_pc)

    def _common_stop(self, reason: int) -> Stop | None:
        """The stop for a reason that all architectures have; None: it halted by itself."""
        engine, icount, pc = self._common, self.icount, self._stop_pc
        if reason in (native.STOP_LIMIT, native.STOP_SETTLED):
            return Stop(StopKind.LIMIT, icount, pc)
        if reason == native.STOP_KICK:
            return self._kicked()
        if reason == native.STOP_BREAKPOINT:
            self.pass_breakpoint()
            return Stop(StopKind.BREAKPOINT, icount, pc)
        if reason == native.STOP_WATCHPOINT:
            engine.skip_watchpoint_at = icount
            return Stop(StopKind.WATCHPOINT, icount, pc, int(engine.stop_address), bool(engine.stop_is_write))
        if reason != native.STOP_NONE:
            raise InternalError(f"the native hooks stopped for an unknown reason ({reason})")
        return None

    def run_collecting(self, limit: int) -> Collected:
        """10^5 stops cost native time only; about 1 us for each that is kept."""
        engine = self._common
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
        engine = self._common
        engine.settle_at = self.icount
        engine.collect = 1
        try:
            return self.run(self.icount + 1)
        finally:
            engine.settle_at = -1
            engine.collect = 0

    # ---- memory

    def translate(self, address: int) -> int | None:
        attributes = (c_uint64 * 4)()
        page = self._translate_page(self._cpu_state, address & ~(PAGE - 1) & TOP, attributes)
        return None if page == TOP else int(page) | (address & PAGE - 1)

    def trace_code(self) -> CodeTrace:
        if self._trace is None:
            self._trace = CodeTrace(self.flush_translations)
            self._structures.trace = self._trace.address
            self.flush_translations()
        return self._trace

    def flush_translations(self) -> None:
        """Drop all translated code; only speed changes."""
        self._flush_translations(self._cpu_state)


def _passed_stop(passed: native.PassedStop) -> Stop:
    if not passed.is_watchpoint:
        return Stop(StopKind.BREAKPOINT, int(passed.icount), int(passed.pc))
    return Stop(StopKind.WATCHPOINT, int(passed.icount), int(passed.pc), int(passed.address), bool(passed.is_write))
