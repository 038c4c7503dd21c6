"""The structures of ``x86_64.h`` as ctypes sees them, and the library that goes with them."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from timevm.engine.cpu.native import MAX_WINDOWS, Engine, Window
from timevm.errors import InternalError

MAX_RAM_RANGES = 8
MAX_STORED = 64
NO_WINDOW = 0xFF
PORTS = 65536
LINE_INTR = 1

Acknowledge = ctypes.CFUNCTYPE(c_int64)


class Calls(ctypes.Structure):
    _fields_ = [
        ("emu_start", c_void_p),
        ("take_interrupt", c_void_p),
        ("compute_flags", c_void_p),
        ("update_hidden_flags", c_void_p),
        ("raise_exception", c_void_p),
        ("code_page", c_void_p),
        ("watch_writes", c_void_p),
        ("flush_tlb", c_void_p),
        ("code_byte", c_void_p),
        ("check_port", c_void_p * 3),
    ]


class Originals(ctypes.Structure):
    _fields_ = [
        ("translate", c_void_p),
        ("watch_by_address", c_void_p),
        ("store_to_watched", c_void_p),
        ("stop_watching", c_void_p),
        ("fill", c_void_p),
        ("new_data_break", c_void_p),
        ("is_data_watched", c_void_p),
        ("watched_access", c_void_p),
    ]


class TranslatorCalls(ctypes.Structure):
    _fields_ = [("functions", c_void_p * 7)]


class RamRange(ctypes.Structure):
    _fields_ = [("base", c_uint64), ("end", c_uint64), ("offset", c_uint64), ("host", c_void_p)]


class NotedStore(ctypes.Structure):
    _fields_ = [("host", c_void_p), ("before", c_uint64), ("size", c_uint64), ("host_pc", c_void_p)]


class CodePage(ctypes.Structure):
    _fields_ = [("writes", c_uint32), ("has_code", c_uint16), ("patience", c_uint16)]


class HookRecord(ctypes.Structure):
    _fields_ = [
        ("type", c_int32),
        ("instruction", c_int32),
        ("references", c_int32),
        ("op", c_int32),
        ("op_flags", c_int32),
        ("deleted", c_uint8),
        ("begin", c_uint64),
        ("end", c_uint64),
        ("callback", c_void_p),
        ("user", c_void_p),
    ]


class Segment(ctypes.Structure):
    _fields_ = [("selector", c_uint32), ("base", c_uint64), ("limit", c_uint32), ("flags", c_uint32)]


class X86(ctypes.Structure):
    _fields_ = [
        ("engine", Engine),
        ("call", Calls),
        ("env", c_void_p),
        ("regs", c_void_p),
        ("eflags", c_void_p),
        ("cc_source", c_void_p),
        ("lazy_flags", c_void_p),
        ("cc_operation", c_void_p),
        ("direction", c_void_p),
        ("hidden_flags", c_void_p),
        ("hidden_flags2", c_void_p),
        ("segments", c_void_p),
        ("control", c_void_p),
        ("efer", c_void_p),
        ("star", c_void_p),
        ("lstar", c_void_p),
        ("cstar", c_void_p),
        ("fmask", c_void_p),
        ("sysenter_cs", c_void_p),
        ("sysenter_sp", c_void_p),
        ("sysenter_ip", c_void_p),
        ("tsc_aux", c_void_p),
        ("is_software_interrupt", c_void_p),
        ("after_software_interrupt", c_void_p),
        ("exception_in_flight", c_void_p),
        ("debug", c_void_p),
        ("access_return", c_void_p),
        ("stored", NotedStore * MAX_STORED),
        ("stored_count", c_uint64),
        ("stored_in", c_int64),
        ("unaligned_store", c_uint64),
        ("block_hook", c_void_p),
        ("block", c_void_p),
        ("pending", c_int64),
        ("kept_flags", c_uint64 * 3),
        ("kept_operation", c_uint32),
        ("padding", c_uint32),
        ("delivering", c_uint32),
        ("limit_requested", c_uint32),
        ("warp_ns", c_int64),
        ("time_shift", c_uint32),
        ("store_meets_code", c_uint32),
        ("tlb_stale", c_uint32),
        ("breakpoint_count", c_uint32),
        ("breakpoints", c_void_p),
        ("translator", TranslatorCalls),
        ("translate_instruction", c_void_p),
        ("code", c_void_p),
        ("code_pages", c_void_p),
        ("code_page_count", c_uint64),
        ("ram", RamRange * MAX_RAM_RANGES),
        ("ram_count", c_uint32),
        ("nmi", c_uint32),
        ("nmi_line", c_uint32),
        ("data_breaks", c_uint32),
        ("longest_block", c_uint32),
        ("interrupts", c_uint64),
        ("acknowledge", Acknowledge),
        ("executed", c_void_p),
        ("port_base", c_uint16 * MAX_WINDOWS),
        ("ports", c_uint8 * PORTS),
    ]


@cache
def load() -> Any:
    """The library of the x86 hooks.  Raises InternalError if it is not built or not of this version."""
    folder = Path(__file__).parent
    found = [path for suffix in EXTENSION_SUFFIXES if (path := folder / f"hooks_x86_64{suffix}").exists()]
    if not found:
        raise InternalError(
            "the native part of timevm (timevm.engine.cpu.native.hooks_x86_64) is not built: "
            "install the package with pip, or run `make env` in a checkout"
        )
    library = ctypes.CDLL(str(found[0]))
    sizes = (c_uint64 * 4)()
    library.timevm_x86_layout(sizes)
    mirrored = [ctypes.sizeof(structure) for structure in (Window, Engine, X86, CodePage)]
    if list(sizes) != mirrored:
        raise InternalError(
            f"the native part of timevm is of another version (structures of {list(sizes)} bytes, not {mirrored}): "
            "build it anew with `make env`"
        )
    library.timevm_x86_run.restype = c_int
    library.timevm_x86_run.argtypes = [c_void_p, c_uint64]
    library.timevm_x86_code_changed.restype = None
    library.timevm_x86_code_changed.argtypes = [c_void_p, c_uint64, c_uint64]
    library.timevm_x86_set_originals.restype = None
    library.timevm_x86_set_originals.argtypes = [c_void_p]
    return library
