"""The native hooks' structure for one x86 CPU: which fields and functions of Unicorn they use."""

from __future__ import annotations

import ctypes
from ctypes import c_void_p
from typing import Any

from timevm.engine.cpu import unicorn_library
from timevm.engine.cpu import x86_64_private as private
from timevm.engine.cpu.native import x86_64 as hooks


def native_cpu(env: int, time_shift: int, acknowledge: Any) -> hooks.X86:
    """``env``: address of the CPUX86State.  ``acknowledge``: a ``hooks.Acknowledge``, kept alive by the caller.

    What all architectures have (``engine``) is left to ``UnicornCpu``.
    """
    cpu = hooks.X86(
        env=env,
        regs=env + private.REGS,
        eflags=env + private.EFLAGS,
        cc_source=env + private.CC_SRC,
        lazy_flags=env + private.CC_DST,
        cc_operation=env + private.CC_OP,
        direction=env + private.DF,
        hidden_flags=env + private.HIDDEN_FLAGS,
        hidden_flags2=env + private.HIDDEN_FLAGS2,
        segments=env + private.SEGMENTS,
        control=env + private.CONTROL,
        a20=env + private.A20_MASK,
        efer=env + private.EFER,
        star=env + private.STAR,
        lstar=env + private.LSTAR,
        cstar=env + private.CSTAR,
        fmask=env + private.FMASK,
        sysenter_cs=env + private.SYSENTER_CS,
        sysenter_sp=env + private.SYSENTER_SP,
        sysenter_ip=env + private.SYSENTER_IP,
        tsc_aux=env + private.TSC_AUX,
        is_software_interrupt=env + private.IS_SOFTWARE_INTERRUPT,
        after_software_interrupt=env + private.AFTER_SOFTWARE_INTERRUPT,
        exception_in_flight=env + private.EXCEPTION_IN_FLIGHT,
        debug=env + private.DEBUG,
        access_return=env + private.ACCESS_RETURN,
        time_shift=time_shift,
        acknowledge=acknowledge,
        emu_start=unicorn_library.exported("uc_emu_start"),
        code_page=unicorn_library.exported("get_page_addr_code_hostp_x86_64"),
        call=_calls(),
    )
    ctypes.memset(ctypes.addressof(cpu.ports), hooks.NO_WINDOW, hooks.PORTS)
    return cpu


def _calls() -> hooks.Calls:
    exported = unicorn_library.exported
    return hooks.Calls(
        take_interrupt=exported("do_interrupt_x86_hardirq_x86_64"),
        compute_flags=exported("cpu_cc_compute_all_x86_64"),
        update_hidden_flags=exported("x86_update_hflags_x86_64"),
        raise_exception=exported("raise_exception_err_x86_64"),
        code_byte=exported("cpu_ldub_code_x86_64"),
        check_port=(c_void_p * 3)(*(exported(f"helper_check_io{size}_x86_64") for size in "bwl")),
    )
