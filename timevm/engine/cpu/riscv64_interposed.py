"""Which of Unicorn's internal calls go to functions of ours on RISC-V (decisions 0150, 0152, 0170)."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_uint64, c_void_p
from typing import Any

from timevm.engine.cpu import generator, linkage, unicorn_library
from timevm.engine.cpu.native import riscv64 as hooks
from timevm.engine.cpu.unicorn_cpu import address_of

#: for CPUs that are not ours each calls on what it replaces; in the order of ``hooks.Originals``
FUNCTIONS = {
    "tlb_reset_dirty_by_vaddr_riscv64": "timevm_watch_by_address",
    "tb_invalidate_phys_page_fast_riscv64": "timevm_store_to_watched",
    "tlb_set_dirty_riscv64": "timevm_stop_watching",
    "tlb_flush_riscv64": "timevm_flush_tlb",
    "translator_loop_riscv64": "timevm_riscv64_translate",
    "tlb_set_page_riscv64": "timevm_riscv64_fill",
    "cpu_watchpoint_address_matches_riscv64": "timevm_riscv64_is_data_watched",
    "cpu_check_watchpoint_riscv64": "timevm_riscv64_watched_access",
    "riscv_cpu_update_mip_riscv64": "timevm_riscv64_update_pending",
}
#: control registers that count, as all may read them (``cycle``, ``time``, ``instret`` and those behind) and as M-mode
TIME = 0xC01
COUNTERS = (0xC00, 0xC02, 0xB00, 0xB02)
PUBLIC_COUNTERS = range(0xC00, 0xC20)
SUPERVISOR_ENABLED, ENABLED, TRANSLATION, TIMER_COMPARE, INHIBITED = 0x104, 0x304, 0x180, 0x14D, 0x320
#: of physical memory protection: pmpcfg and pmpaddr
PROTECTION, PROTECTED_ADDRESSES = range(0x3A0, 0x3A4), range(0x3B0, 0x3C0)
#: helpers of floating point that do not do what their instruction does, in the order of ``riscv64_floats.c``
HELPERS = (
    *("fadd_s", "fsub_s", "fmul_s", "fdiv_s", "fmin_s", "fmax_s", "fmin_d", "fmax_d"),
    *("fmadd_s", "fmsub_s", "fnmsub_s", "fnmadd_s"),
    *("fsqrt_s", "fcvt_s_d", "fcvt_s_w", "fcvt_s_wu", "fcvt_s_l", "fcvt_s_lu"),
)
_interposed: list[object] = []


def interpose(library: Any) -> None:
    """Once in a process: our functions into Unicorn's tables, what they replace into ours.

    Before the first engine that is to use them is made: each takes the addresses of helpers into a table of its own.
    """
    if _interposed:
        return
    get = unicorn_library.function("riscv_get_csr_ops_riscv64", None, c_int, c_void_p)
    put = unicorn_library.function("riscv_set_csr_ops_riscv64", None, c_int, c_void_p)

    def calls_of(number: int) -> hooks.RegisterCalls:
        calls = hooks.RegisterCalls()
        get(number, ctypes.addressof(calls))
        return calls

    originals = hooks.Originals(
        *(unicorn_library.exported(name) for name in FUNCTIONS),
        counter=calls_of(COUNTERS[0]),
        time=calls_of(TIME),
        enabled=calls_of(ENABLED),
        supervisor_enabled=calls_of(SUPERVISOR_ENABLED),
        translation=calls_of(TRANSLATION),
        timer_compare=calls_of(TIMER_COMPARE),
        inhibited=calls_of(INHIBITED),
        protection=calls_of(PROTECTION[0]),
        protected_address=calls_of(PROTECTED_ADDRESSES[0]),
    )
    library.timevm_riscv64_set_originals(ctypes.addressof(originals))
    generator.interpose(library, "riscv64")
    for name, function in FUNCTIONS.items():
        linkage.slot(name).value = address_of(library, function)

    def replace(number: int, **functions: str) -> None:
        calls = calls_of(number)
        for field, name in functions.items():
            setattr(calls, field, address_of(library, f"timevm_riscv64_{name}"))
        put(number, ctypes.addressof(calls))

    for number in COUNTERS:
        replace(number, read="read_counter")
    replace(TIME, read="read_time")
    for number in PUBLIC_COUNTERS:
        replace(number, allowed="counter_allowed")
    replace(ENABLED, write="write_enabled")
    replace(SUPERVISOR_ENABLED, write="write_supervisor_enabled")
    replace(TRANSLATION, write="write_translation")
    replace(TIMER_COMPARE, allowed="timer_compare_allowed", read="read_timer_compare", write="write_timer_compare")
    replace(INHIBITED, read="read_inhibited", write="write_inhibited")
    for number in (*PROTECTION, *PROTECTED_ADDRESSES):
        replace(number, write="write_protection")
    _replace_helpers(library)
    _interposed.append(originals)


def _replace_helpers(library: Any) -> None:
    """Decision 0142 says how."""
    addresses = [unicorn_library.exported(f"helper_{name}_riscv64") for name in HELPERS]
    library.timevm_riscv64_set_float_helpers((c_uint64 * len(addresses))(*addresses))
    addresses.append(unicorn_library.exported("helper_mret_riscv64"))
    library.timevm_riscv64_set_return(addresses[-1])
    places = linkage.places_of(addresses)
    for name, address in zip((*HELPERS, "mret"), addresses, strict=True):
        linkage.redirect(places[address], address_of(library, f"timevm_riscv64_{name}"))
