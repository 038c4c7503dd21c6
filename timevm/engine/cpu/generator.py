"""Unicorn's generator of code, to whose output the native hooks add the count of blocks (``native/inlined.h``)."""

from __future__ import annotations

import ctypes
import struct
from ctypes import c_void_p
from functools import cache
from typing import Any

from timevm.engine.cpu import linkage, unicorn_library
from timevm.engine.cpu.private import expect
from timevm.engine.cpu.unicorn_cpu import address_of

#: its functions, in the order of C's ``struct generator``
FUNCTIONS = (
    "tcg_gen_callN",
    "tcg_gen_code",
    "tcg_emit_op",
    "tcg_op_insert_after",
    "tcg_temp_new_internal",
    "tcg_temp_free_internal",
    "gen_new_label",
    "tcg_gen_brcondi_i64",
    "helper_check_exit_request",
)
#: operations before, between and behind those that ``inlined.c`` emits (QEMU's include/tcg/tcg-opc.h, in which they are
#: counted), and who emits them: movi_i64, shr_i64, brcond_i64
NUMBERS = {"tcg_const_i64": 64, "tcg_gen_shri_i64": 91, "tcg_gen_brcond_i64": 103}
#: ``mov esi, imm32``: the operation's number as second argument
MOVE_SECOND_ARGUMENT = b"\xbe"
CODE_BYTES = 0x80


@cache
def interpose(library: Any, suffix: str) -> None:
    """Once in a process for each architecture, which Unicorn calls ``suffix``: the functions of ``library`` of hooks
    into Unicorn's linkage table, its own into those.

    Raises InternalError if this is not the known build.
    """
    _prove(suffix)
    functions = (c_void_p * len(FUNCTIONS))(*(unicorn_library.exported(f"{name}_{suffix}") for name in FUNCTIONS))
    library.timevm_set_generator(ctypes.byref(functions))
    linkage.slot(f"tcg_gen_callN_{suffix}").value = address_of(library, "timevm_generate_call")
    linkage.slot(f"tcg_gen_code_{suffix}").value = address_of(library, "timevm_generate_code")


def _prove(suffix: str) -> None:
    """The numbers of operations stand in the code of the functions that emit them; they ascend without a gap."""
    for name, number in NUMBERS.items():
        code = ctypes.string_at(unicorn_library.exported(f"{name}_{suffix}"), CODE_BYTES)
        expect(MOVE_SECOND_ARGUMENT + struct.pack("<I", number) in code, f"operation {number} of {name}")
