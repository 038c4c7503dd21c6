"""The structures of ``counted.h`` as ctypes sees them."""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_int64, c_uint8, c_uint32, c_uint64, c_void_p

from timevm.engine.cpu.native import Engine


class TranslatorCalls(ctypes.Structure):
    _fields_ = [("functions", c_void_p * 7)]


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


class Counted(ctypes.Structure):
    _fields_ = [
        ("engine", Engine),
        ("env", c_void_p),
        ("emu_start", c_void_p),
        ("code_page", c_void_p),
        ("block_hook", c_void_p),
        ("block", c_void_p),
        ("in_access", c_int64),
        ("warp_ns", c_int64),
        ("time_shift", c_uint32),
        ("limit_requested", c_uint32),
        ("store_is_watched", c_uint32),
        ("is_prepared", c_uint32),
        ("longest_block", c_uint32),
        ("breakpoint_count", c_uint32),
        ("breakpoints", c_void_p),
        ("unaligned_store", c_uint64),
        ("translator", TranslatorCalls),
        ("translate_instruction", c_void_p),
        ("code", c_void_p),
        ("padding", c_uint32),
        ("block_checks", c_uint32),
        ("trace", c_void_p),
    ]
