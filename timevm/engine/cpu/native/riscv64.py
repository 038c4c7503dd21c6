"""The structures of ``riscv64.h`` as ctypes sees them, and the library that goes with them."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_int64, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

from timevm.engine.cpu.native import Engine, RamPage, Window, open_library
from timevm.engine.cpu.native.counted import Counted


class RegisterCalls(ctypes.Structure):
    """What an access to a control register does."""

    _fields_ = [("allowed", c_void_p), ("read", c_void_p), ("write", c_void_p), ("modify", c_void_p)]


class Originals(ctypes.Structure):
    _fields_ = [
        ("watch_by_address", c_void_p),
        ("store_to_watched", c_void_p),
        ("stop_watching", c_void_p),
        ("flush_tlb", c_void_p),
        ("translate", c_void_p),
        ("fill", c_void_p),
        ("is_data_watched", c_void_p),
        ("watched_access", c_void_p),
        ("update_pending", c_void_p),
        ("counter", RegisterCalls),
        ("time", RegisterCalls),
        ("enabled", RegisterCalls),
        ("supervisor_enabled", RegisterCalls),
        ("translation", RegisterCalls),
        ("timer_compare", RegisterCalls),
        ("inhibited", RegisterCalls),
        ("protection", RegisterCalls),
        ("protected_address", RegisterCalls),
    ]


class Riscv64(ctypes.Structure):
    _anonymous_ = ("common",)
    _fields_ = [
        ("common", Counted),
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
        ("fetch_failed_at", c_int64),
        ("has_firmware", c_uint32),
        ("timer_compare", c_uint64),
        ("timer_is_ours", c_uint32),
        ("timer_line", c_uint32),
    ]


@cache
def load() -> Any:
    """The library of the RISC-V hooks.  Raises InternalError if it is not built or not of this version."""
    library = open_library("hooks_riscv64", "timevm_riscv64_layout", (Window, Engine, Riscv64, RamPage, Originals))
    library.timevm_riscv64_run.restype = c_int
    library.timevm_riscv64_run.argtypes = [c_void_p]
    library.timevm_code_changed.restype = None
    library.timevm_code_changed.argtypes = [c_void_p, c_uint64, c_uint64]
    library.timevm_riscv64_set_originals.restype = None
    library.timevm_riscv64_set_originals.argtypes = [c_void_p]
    library.timevm_riscv64_set_return.restype = None
    library.timevm_riscv64_set_return.argtypes = [c_void_p]
    library.timevm_riscv64_fetch_fault.restype = None
    library.timevm_riscv64_fetch_fault.argtypes = [c_void_p]
    library.timevm_riscv64_evaluate_timer.restype = None
    library.timevm_riscv64_evaluate_timer.argtypes = [c_void_p, c_int64]
    library.timevm_riscv64_next_timer_ns.restype = c_int64
    library.timevm_riscv64_next_timer_ns.argtypes = [c_void_p, c_int64]
    library.timevm_riscv64_page.restype = c_uint64
    library.timevm_riscv64_page.argtypes = [c_void_p, c_uint64]
    return library
