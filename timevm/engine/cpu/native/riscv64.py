"""The structures of ``riscv64.h`` as ctypes sees them, and the library that goes with them."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_int64, c_uint16, c_uint32, c_uint64, c_void_p
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from timevm.engine.cpu.native import Engine, Window
from timevm.errors import InternalError

MAX_RAM_RANGES = 4


class Calls(ctypes.Structure):
    _fields_ = [
        ("emu_start", c_void_p),
        ("code_page", c_void_p),
        ("watch_writes", c_void_p),
        ("flush_tlb", c_void_p),
    ]


class RegisterCalls(ctypes.Structure):
    """What an access to a control register does."""

    _fields_ = [("allowed", c_void_p), ("read", c_void_p), ("write", c_void_p), ("modify", c_void_p)]


class Originals(ctypes.Structure):
    _fields_ = [
        ("translate", c_void_p),
        ("watch_by_address", c_void_p),
        ("store_to_watched", c_void_p),
        ("stop_watching", c_void_p),
        ("fill", c_void_p),
        ("is_data_watched", c_void_p),
        ("watched_access", c_void_p),
        ("update_pending", c_void_p),
        ("generate_call", c_void_p),
        ("block_check", c_void_p),
        ("counter", RegisterCalls),
        ("time", RegisterCalls),
        ("enabled", RegisterCalls),
        ("supervisor_enabled", RegisterCalls),
        ("translation", RegisterCalls),
        ("timer_compare", RegisterCalls),
        ("inhibited", RegisterCalls),
    ]


class TranslatorCalls(ctypes.Structure):
    _fields_ = [("functions", c_void_p * 7)]


class RamRange(ctypes.Structure):
    _fields_ = [("base", c_uint64), ("end", c_uint64), ("offset", c_uint64), ("host", c_void_p)]


class CodePage(ctypes.Structure):
    _fields_ = [("writes", c_uint32), ("has_code", c_uint16), ("patience", c_uint16)]


class Riscv64(ctypes.Structure):
    _fields_ = [
        ("engine", Engine),
        ("call", Calls),
        ("env", c_void_p),
        ("x", c_void_p),
        ("bad_address", c_void_p),
        ("mode", c_void_p),
        ("status", c_void_p),
        ("pending", c_void_p),
        ("enabled", c_void_p),
        ("delegated", c_void_p),
        ("translation", c_void_p),
        ("counters_supervisor", c_void_p),
        ("counters_user", c_void_p),
        ("error", c_void_p),
        ("block_hook", c_void_p),
        ("block", c_void_p),
        ("in_access", c_int64),
        ("fetch_failed_at", c_int64),
        ("warp_ns", c_int64),
        ("time_shift", c_uint32),
        ("has_firmware", c_uint32),
        ("timer_compare", c_uint64),
        ("timer_is_ours", c_uint32),
        ("timer_line", c_uint32),
        ("store_meets_code", c_uint32),
        ("tlb_stale", c_uint32),
        ("longest_block", c_uint32),
        ("breakpoint_count", c_uint32),
        ("breakpoints", c_void_p),
        ("unaligned_store", c_uint64),
        ("translator", TranslatorCalls),
        ("translate_instruction", c_void_p),
        ("code", c_void_p),
        ("code_pages", c_void_p),
        ("code_page_count", c_uint64),
        ("ram", RamRange * MAX_RAM_RANGES),
        ("ram_count", c_uint32),
        ("block_checks", c_uint32),
        ("executed", c_void_p),
    ]


@cache
def load() -> Any:
    """The library of the RISC-V hooks.  Raises InternalError if it is not built or not of this version."""
    folder = Path(__file__).parent
    found = [path for suffix in EXTENSION_SUFFIXES if (path := folder / f"hooks_riscv64{suffix}").exists()]
    if not found:
        raise InternalError(
            "the native part of timevm (timevm.engine.cpu.native.hooks_riscv64) is not built: "
            "install the package with pip, or run `make env` in a checkout"
        )
    library = ctypes.CDLL(str(found[0]))
    sizes = (c_uint64 * 5)()
    library.timevm_riscv64_layout(sizes)
    mirrored = [ctypes.sizeof(structure) for structure in (Window, Engine, Riscv64, CodePage, Originals)]
    if list(sizes) != mirrored:
        raise InternalError(
            f"the native part of timevm is of another version (structures of {list(sizes)} bytes, not {mirrored}): "
            "build it anew with `make env`"
        )
    library.timevm_riscv64_run.restype = c_int
    library.timevm_riscv64_run.argtypes = [c_void_p]
    library.timevm_riscv64_code_changed.restype = None
    library.timevm_riscv64_code_changed.argtypes = [c_void_p, c_uint64, c_uint64]
    library.timevm_riscv64_set_originals.restype = None
    library.timevm_riscv64_set_originals.argtypes = [c_void_p]
    library.timevm_riscv64_fetch_fault.restype = None
    library.timevm_riscv64_fetch_fault.argtypes = [c_void_p]
    library.timevm_riscv64_evaluate_timer.restype = None
    library.timevm_riscv64_evaluate_timer.argtypes = [c_void_p, c_int64]
    library.timevm_riscv64_next_timer_ns.restype = c_int64
    library.timevm_riscv64_next_timer_ns.argtypes = [c_void_p, c_int64]
    library.timevm_riscv64_page.restype = c_uint64
    library.timevm_riscv64_page.argtypes = [c_void_p, c_uint64]
    return library
