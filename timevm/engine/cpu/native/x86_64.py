"""The structures of ``x86_64.h`` as ctypes sees them, and the library that goes with them."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import Any

from timevm.engine.cpu.native import MAX_WINDOWS, Engine, RamPage, Window, open_library
from timevm.engine.cpu.native.counted import Counted

MAX_STORED = 64
NO_WINDOW = 0xFF
PORTS = 65536
LINE_INTR = 1

Acknowledge = ctypes.CFUNCTYPE(c_int64)


class Calls(ctypes.Structure):
    _fields_ = [
        ("take_interrupt", c_void_p),
        ("compute_flags", c_void_p),
        ("update_hidden_flags", c_void_p),
        ("raise_exception", c_void_p),
        ("code_byte", c_void_p),
        ("check_port", c_void_p * 3),
    ]


class Originals(ctypes.Structure):
    _fields_ = [
        ("watch_by_address", c_void_p),
        ("store_to_watched", c_void_p),
        ("stop_watching", c_void_p),
        ("flush_tlb", c_void_p),
        ("translate", c_void_p),
        ("fill", c_void_p),
        ("store_byte", c_void_p),
        ("new_data_break", c_void_p),
        ("is_data_watched", c_void_p),
        ("watched_access", c_void_p),
    ]


class NotedStore(ctypes.Structure):
    _fields_ = [("host", c_void_p), ("before", c_uint64), ("size", c_uint64), ("host_pc", c_void_p)]


class Segment(ctypes.Structure):
    _fields_ = [("selector", c_uint32), ("base", c_uint64), ("limit", c_uint32), ("flags", c_uint32)]


class X86(ctypes.Structure):
    _anonymous_ = ("common",)
    _fields_ = [
        ("common", Counted),
        ("call", Calls),
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
        ("a20", c_void_p),
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
        ("kept_flags", c_uint64 * 3),
        ("kept_operation", c_uint32),
        ("bytes_left", c_uint32),
        ("next_byte", c_uint64),
        ("bytes_from", c_uint64),
        ("delivering", c_uint32),
        ("nmi", c_uint32),
        ("nmi_line", c_uint32),
        ("data_breaks", c_uint32),
        ("interrupts", c_uint64),
        ("acknowledge", Acknowledge),
        ("port_base", c_uint16 * MAX_WINDOWS),
        ("ports", c_uint8 * PORTS),
    ]


@cache
def load() -> Any:
    """The library of the x86 hooks.  Raises InternalError if it is not built or not of this version."""
    library = open_library("hooks_x86_64", "timevm_x86_layout", (Window, Engine, X86, RamPage))
    library.timevm_x86_run.restype = c_int
    library.timevm_x86_run.argtypes = [c_void_p]
    library.timevm_code_changed.restype = None
    library.timevm_code_changed.argtypes = [c_void_p, c_uint64, c_uint64]
    library.timevm_x86_set_write_register.restype = None
    library.timevm_x86_set_write_register.argtypes = [c_void_p]
    library.timevm_x86_set_originals.restype = None
    library.timevm_x86_set_originals.argtypes = [c_void_p]
    return library
