"""Which of Unicorn's internal calls go to functions of ours on x86 (decisions 0080, 0083, 0140, 0142, 0170)."""

from __future__ import annotations

import ctypes
from ctypes import c_uint64
from typing import Any

from timevm.engine.cpu import generator, linkage, unicorn_library
from timevm.engine.cpu import x86_64_private as private
from timevm.engine.cpu.native import x86_64 as hooks
from timevm.engine.cpu.unicorn_cpu import address_of

#: for CPUs that are not ours each calls on what it replaces; in the order of ``hooks.Originals``
FUNCTIONS = {
    "tlb_reset_dirty_by_vaddr_x86_64": "timevm_watch_by_address",
    "tb_invalidate_phys_page_fast_x86_64": "timevm_store_to_watched",
    "tlb_set_dirty_x86_64": "timevm_stop_watching",
    "tlb_flush_x86_64": "timevm_flush_tlb",
    "translator_loop_x86_64": "timevm_x86_translate",
    "tlb_set_page_with_attrs_x86_64": "timevm_x86_fill",
    "helper_ret_stb_mmu_x86_64": "timevm_x86_store_byte",
    "cpu_watchpoint_insert_x86_64": "timevm_x86_new_data_break",
    "cpu_watchpoint_address_matches_x86_64": "timevm_x86_is_data_watched",
    "cpu_check_watchpoint_x86_64": "timevm_x86_watched_access",
}
#: functions of the host's libm that only Unicorn's x87 calls, and whose results depend on the host
HOST_FUNCTIONS = ("sin", "cos", "sincos", "tan", "atan2", "log", "pow")
#: helpers that do not always do what their instruction does, in the order of ``x86_64_vectors.c``
VECTOR_HELPERS = (
    *(f"{name}_mmx" for name in ("phaddw", "phaddd", "phaddsw", "phsubw", "phsubd", "phsubsw")),
    *(f"{name}_xmm" for name in ("phaddw", "phaddd", "phaddsw", "phsubw", "phsubd", "phsubsw")),
    *(f"{name}_xmm" for name in ("pcmpistri", "pcmpistrm", "pcmpestri", "pcmpestrm")),
)
UPDATE_MXCSR = "update_mxcsr_status_x86_64"
VECTOR_PLACES = (private.VECTORS, private.MXCSR, private.SSE_STATUS, private.X87_STATUS)
#: and in that of ``x87_extended.c``
FLOAT_HELPERS = ("f2xm1", "fyl2x", "fyl2xp1", "fpatan")
FLOAT_PLACES = (private.FLOAT_TOP, private.FLOAT_STATUS, private.FLOAT_CONTROL, private.FLOAT_TAGS, private.FLOATS)
#: all of them, and ours
HELPERS = {name: f"timevm_x86_{name}" for name in (*VECTOR_HELPERS, "wrmsr")} | {
    name: f"timevm_x87_{name}" for name in FLOAT_HELPERS
}
_interposed: list[object] = []


def interpose(library: Any) -> None:
    """Once in a process: our functions into Unicorn's linkage table, what they replace into ours.

    Before the first engine that is to use them is made: each takes the addresses of helpers into a table of its own.
    """
    if _interposed:
        return
    originals = hooks.Originals(*(unicorn_library.exported(name) for name in FUNCTIONS))
    library.timevm_x86_set_originals(ctypes.addressof(originals))
    generator.interpose(library, "x86_64")
    for name, function in FUNCTIONS.items():
        linkage.slot(name).value = address_of(library, function)
    for name in HOST_FUNCTIONS:
        linkage.slot(name).value = address_of(library, f"timevm_x87_{name}")
    _replace_helpers(library)
    _interposed.append(originals)


def _replace_helpers(library: Any) -> None:
    addresses = {name: unicorn_library.exported(f"helper_{name}_x86_64") for name in HELPERS}
    update = unicorn_library.exported(UPDATE_MXCSR)
    vectors = [*(addresses[name] for name in VECTOR_HELPERS), update, *VECTOR_PLACES]
    library.timevm_x86_set_vector_helpers((c_uint64 * len(vectors))(*vectors))
    linkage.slot(UPDATE_MXCSR).value = address_of(library, "timevm_x86_update_mxcsr")
    floats = [*(addresses[name] for name in FLOAT_HELPERS), *FLOAT_PLACES]
    library.timevm_x87_set_helpers((c_uint64 * len(floats))(*floats))
    library.timevm_x86_set_write_register(addresses["wrmsr"])
    places = linkage.places_of(addresses.values())
    for name, function in HELPERS.items():
        linkage.redirect(places[addresses[name]], address_of(library, function))
