"""The native hooks' structures as ctypes sees them; sizes are compared with the compiler's when the library is loaded.

Fields and their meaning: ``common.h`` and ``aarch64.h``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_int, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from timevm.errors import InternalError

STOP_NONE, STOP_LIMIT, STOP_KICK, STOP_BREAKPOINT, STOP_WATCHPOINT, STOP_FIRMWARE_CALL, STOP_CALLBACK_FAILED = range(7)
STOP_SETTLED = 7
OUTPUT_BYTES = 4096
MAX_WINDOWS = 64
MAX_WATCHES = 64
MAX_RAM_RANGES = 8
MAX_WATCHED_PAGES = 64
MAX_STORED = 64
MAX_WALKED = 8
WATCH_REACH = 63
MAX_PASSED = 256
WATCH_READ, WATCH_WRITE, WATCH_PHYSICAL = 1, 2, 4
NO_OFFSET = -1

DeviceRead = ctypes.CFUNCTYPE(c_uint64, c_uint32, c_uint64, c_uint32)
DeviceWrite = ctypes.CFUNCTYPE(None, c_uint32, c_uint64, c_uint32, c_uint64)
DrainOutput = ctypes.CFUNCTYPE(None, c_uint32)
TimerLine = ctypes.CFUNCTYPE(None, c_uint32, c_uint32)


class UnicornCalls(ctypes.Structure):
    _fields_ = [
        ("emu_stop", c_void_p),
        ("leave_block", c_void_p),
        ("restore_state", c_void_p),
        ("flush_translations", c_void_p),
        ("invalidate_range", c_void_p),
        ("take_exception", c_void_p),
        ("flush_tlb_page", c_void_p),
        ("control", c_void_p),
        ("translate", c_void_p),
    ]


class Window(ctypes.Structure):
    _fields_ = [
        ("engine", c_void_p),
        ("number", c_uint32),
        ("constant_offset", c_int32),
        ("constant_value", c_uint64),
        ("output_offset", c_int32),
        ("output_used", c_uint32),
        ("output", c_uint8 * OUTPUT_BYTES),
    ]


class Watch(ctypes.Structure):
    _fields_ = [("address", c_uint64), ("length", c_uint64), ("kind", c_uint32), ("padding", c_uint32)]


class PassedStop(ctypes.Structure):
    _fields_ = [
        ("icount", c_int64),
        ("pc", c_uint64),
        ("address", c_uint64),
        ("is_write", c_uint32),
        ("is_watchpoint", c_uint32),
    ]


class RamRange(ctypes.Structure):
    _fields_ = [("base", c_uint64), ("end", c_uint64), ("offset", c_uint64), ("host", c_void_p)]


class RamPage(ctypes.Structure):
    _fields_ = [
        ("writes", c_uint32),
        ("has_code", c_uint16),
        ("patience", c_uint16),
        ("table", c_uint32),
        ("filled", c_uint32),
    ]


class Table(ctypes.Structure):
    _fields_ = [("first", c_uint64), ("entry_size", c_uint32), ("changes", c_uint32), ("read", c_uint64 * 8)]


class Memory(ctypes.Structure):
    _fields_ = [
        ("watch_writes", c_void_p),
        ("flush_tlb", c_void_p),
        ("pages", c_void_p),
        ("tables", c_void_p),
        ("page_count", c_uint64),
        ("ram", RamRange * MAX_RAM_RANGES),
        ("ram_count", c_uint32),
        ("flushes", c_uint32),
        ("tlb_stale", c_uint32),
        ("padding", c_uint32),
        ("begun_anew_at", c_int64),
    ]


class Engine(ctypes.Structure):
    _fields_ = [
        ("call", UnicornCalls),
        ("unicorn", c_void_p),
        ("cpu_state", c_void_p),
        ("pc", c_void_p),
        ("next_block_flags", c_void_p),
        ("exception_index", c_void_p),
        ("access_host_pc", c_void_p),
        ("budget", c_int64),
        ("horizon", c_int64),
        ("limit", c_int64),
        ("deadline", c_int64),
        ("entered", c_int64),
        ("block_end", c_uint64),
        ("skip_breakpoint_at", c_int64),
        ("skip_watchpoint_at", c_int64),
        ("skip_breakpoint_pc", c_uint64),
        ("settle_at", c_int64),
        ("kick", c_int32),
        ("translations_stale", c_int32),
        ("stop", c_uint32),
        ("lines", c_uint32),
        ("stop_address", c_uint64),
        ("stop_is_write", c_uint32),
        ("collect", c_uint32),
        ("passed_count", c_uint64),
        ("passed", PassedStop * MAX_PASSED),
        ("slow_blocks", c_uint64),
        ("device_read", DeviceRead),
        ("device_write", DeviceWrite),
        ("drain_output", DrainOutput),
        ("windows", ctypes.POINTER(Window) * MAX_WINDOWS),
        ("window_count", c_uint32),
        ("watch_count", c_uint32),
        ("watches", Watch * MAX_WATCHES),
        ("memory", Memory),
    ]


class GenericTimer(ctypes.Structure):
    _fields_ = [("compare", c_uint64), ("control", c_uint32), ("level", c_uint32)]


class Stored(ctypes.Structure):
    _fields_ = [("place", c_void_p), ("size", c_uint64), ("before", c_uint8 * 16)]


class Aarch64(ctypes.Structure):
    _fields_ = [
        ("engine", Engine),
        ("x", c_void_p),
        ("pstate", c_void_p),
        ("daif", c_void_p),
        ("carry", c_void_p),
        ("overflow", c_void_p),
        ("negative", c_void_p),
        ("zero", c_void_p),
        ("syndrome", c_void_p),
        ("fault_address", c_void_p),
        ("target_level", c_void_p),
        ("timer", GenericTimer * 2),
        ("counter_access", c_uint64),
        ("seed", c_uint64),
        ("warp_ns", c_int64),
        ("time_shift", c_uint32),
        ("mmu_is_off", c_uint32),
        ("translation_request", c_uint32),
        ("padding", c_uint32),
        ("pages", c_void_p),
        ("ram_base", c_uint64),
        ("ram_end", c_uint64),
        ("ram_offset", c_uint64),
        ("features_processor", c_uint64),
        ("features_debug", c_uint64),
        ("features_isa", c_uint64),
        ("timer_line", TimerLine),
        ("emu_start", c_void_p),
        ("block_checks", c_uint32),
        ("padding2", c_uint32),
        ("trace", c_void_p),
        ("watched_pages", c_uint32),
        ("mapping_touched", c_uint32),
        ("watched_page", c_uint64 * MAX_WATCHED_PAGES),
        ("watched_place", c_uint64 * MAX_WATCHED_PAGES),
        ("ram_host", c_void_p),
        ("stored_at", c_int64),
        ("stored_count", c_uint64),
        ("stored", Stored * MAX_STORED),
        ("walked", c_uint64 * MAX_WALKED),
        ("roots", c_uint64 * 2),
        ("walked_count", c_uint32),
        ("modes_filled", c_uint32),
        ("store_is_watched", c_uint32),
        ("padding3", c_uint32),
    ]


def open_library(name: str, layout: str, structures: Sequence[type[ctypes.Structure]]) -> Any:
    """A library of hooks, whose function ``layout`` gives the sizes of its structures as C has them.

    Raises InternalError if it is not built or not of this version.
    """
    folder = Path(__file__).parent
    found = [path for suffix in EXTENSION_SUFFIXES if (path := folder / f"{name}{suffix}").exists()]
    if not found:
        raise InternalError(
            f"the native part of timevm (timevm.engine.cpu.native.{name}) is not built: "
            "install the package with pip, or run `make env` in a checkout"
        )
    library = ctypes.CDLL(str(found[0]))
    sizes = (c_uint64 * len(structures))()
    getattr(library, layout)(sizes)
    mirrored = [ctypes.sizeof(structure) for structure in structures]
    if list(sizes) != mirrored:
        raise InternalError(
            f"the native part of timevm is of another version (structures of {list(sizes)} bytes, not {mirrored}): "
            "build it anew with `make env`"
        )
    return library


@cache
def load() -> Any:
    """The library of the hooks.  Raises InternalError if it is not built or not of this version."""
    library = open_library("hooks", "timevm_aarch64_layout", (Window, Engine, Aarch64))
    library.timevm_watched_pages_moved.argtypes = [c_void_p]
    library.timevm_memory_changed.restype = None
    library.timevm_memory_changed.argtypes = [c_void_p, c_uint64, c_uint64]
    library.timevm_next_timer_ns.restype = c_int64
    library.timevm_next_timer_ns.argtypes = [c_void_p, c_int64]
    library.timevm_evaluate_timers.restype = None
    library.timevm_evaluate_timers.argtypes = [c_void_p, c_int64]
    library.timevm_fetch_abort.restype = None
    library.timevm_fetch_abort.argtypes = [c_void_p]
    library.timevm_set_mmu.restype = None
    library.timevm_set_mmu.argtypes = [c_void_p, c_int]
    library.timevm_run.restype = c_int
    library.timevm_run.argtypes = [c_void_p]
    library.timevm_undefined.restype = None
    library.timevm_undefined.argtypes = [c_void_p]
    return library
