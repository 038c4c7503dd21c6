"""Unicorn's C interface and the private functions it exports, by ctypes; nothing here knows an offset."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

import unicorn
from unicorn import unicorn_const as const
from unicorn.unicorn_py3 import unicorn as binding

from timevm.errors import InternalError

VERSION = "2.1.4"

#: the binding's own handle of the library
library: Any = binding.uclib


def check_version() -> None:
    """Raises InternalError if this is not the Unicorn that timevm was measured on."""
    if unicorn.__version__ != VERSION:
        raise InternalError(
            f"timevm needs Unicorn {VERSION}, this is {unicorn.__version__}: pip install unicorn=={VERSION}"
        )


def exported(name: str) -> int:
    """Address of an exported function.  Raises InternalError if this build has it not."""
    try:
        address = ctypes.cast(getattr(library, name), c_void_p).value
    except AttributeError:
        address = None
    if not address:
        raise InternalError(f"this build of Unicorn does not export {name}: use the wheel from PyPI")
    return address


def function(name: str, result: Any, *arguments: Any) -> Any:
    """An exported function with its C type."""
    return ctypes.CFUNCTYPE(result, *arguments)(exported(name))


emu_start = function("uc_emu_start", c_int, c_void_p, c_uint64, c_uint64, c_uint64, c_size_t)
mem_map_ptr = function("uc_mem_map_ptr", c_int, c_void_p, c_uint64, c_uint64, c_uint32, c_void_p)
mmio_map = function("uc_mmio_map", c_int, c_void_p, c_uint64, c_uint64, c_void_p, c_void_p, c_void_p, c_void_p)
hook_delete = function("uc_hook_del", c_int, c_void_p, c_size_t)


def check(error: int, doing: str) -> None:
    """Raises InternalError if a call of Unicorn failed."""
    if error != const.UC_ERR_OK:
        raise InternalError(f"Unicorn could not {doing}: {unicorn.UcError(error)}")


def add_hook(
    engine: unicorn.Uc, kind: int, callback: int, user: int, begin: int = 1, end: int = 0, instruction: int = 0
) -> int:
    """Give a native function to Unicorn; ``begin > end`` means everywhere.  Returns the hook's handle."""
    handle = c_size_t()
    # a variadic function: ctypes passes the extra argument as C's default promotions do
    error = library.uc_hook_add(engine._uch, ctypes.byref(handle), kind, callback, user, begin, end, c_int(instruction))
    check(error, f"add a hook of kind {kind}")
    return handle.value


def handle_of(engine: unicorn.Uc) -> int:
    """Address of the engine's ``uc_struct``."""
    address = engine._uch.value
    assert address is not None
    return int(address)
