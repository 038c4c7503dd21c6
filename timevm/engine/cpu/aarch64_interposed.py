"""Which of Unicorn's internal calls go to functions of ours on AArch64 (decisions 0170, 0175)."""

from __future__ import annotations

import ctypes
from ctypes import c_void_p
from functools import cache
from typing import Any

from timevm.engine.cpu import generator, linkage, unicorn_library
from timevm.engine.cpu.unicorn_cpu import address_of

#: for CPUs that are not ours each calls on what it replaces; in the order of ``aarch64_tables.c``
FUNCTIONS = {
    "tb_invalidate_phys_page_fast_aarch64": "timevm_store_to_watched",
    "tlb_set_dirty_aarch64": "timevm_stop_watching",
    "tlb_set_page_with_attrs_aarch64": "timevm_fill",
    "tlb_flush_by_mmuidx_aarch64": "timevm_flush_modes",
    "tlb_flush_by_mmuidx_all_cpus_synced_aarch64": "timevm_flush_modes_everywhere",
    "get_phys_addr_aarch64": "timevm_translate",
    "address_space_ldq_le_aarch64": "timevm_read_little",
    "address_space_ldq_be_aarch64": "timevm_read_big",
}


@cache
def interpose(library: Any) -> None:
    """Once in a process: our functions into Unicorn's linkage table, what they replace into ours."""
    generator.interpose(library, "aarch64")
    originals = (c_void_p * len(FUNCTIONS))(*(unicorn_library.exported(name) for name in FUNCTIONS))
    library.timevm_set_originals(ctypes.byref(originals))
    for name, function in FUNCTIONS.items():
        linkage.slot(name).value = address_of(library, function)
