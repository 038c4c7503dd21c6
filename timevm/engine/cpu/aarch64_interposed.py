"""Which of Unicorn's internal calls go to a function of ours on AArch64."""

from __future__ import annotations

from functools import cache
from typing import Any

from timevm.engine.cpu import linkage, unicorn_library
from timevm.engine.cpu.unicorn_cpu import address_of


@cache
def leave_out_block_checks(library: Any) -> None:
    """Once in a process: our function into Unicorn's linkage table, what it replaces into ours."""
    function = "tcg_gen_callN_aarch64"
    check = unicorn_library.exported("helper_check_exit_request_aarch64")
    library.timevm_leave_out_block_checks(unicorn_library.exported(function), check)
    linkage.slot(function).value = address_of(library, "timevm_generate_call")
