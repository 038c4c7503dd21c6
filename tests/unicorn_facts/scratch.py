"""A scratch AArch64 engine, and the instructions that the facts are shown with."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable

import unicorn
from unicorn import arm64_const as arm64
from unicorn import unicorn_const as const
from unicorn.unicorn_py3 import unicorn as binding

PC, PSTATE, CP_REG = arm64.UC_ARM64_REG_PC, arm64.UC_ARM64_REG_PSTATE, arm64.UC_ARM64_REG_CP_REG
CODE, DATA, DEVICE, VECTORS = 0x1_0000, 0x2_0000, 0x90_0000, 0x4_0000
SIZE = 0x1_0000  # of each mapped area, bytes
EL1H_MASKED = 0x3C5

NOP = 0xD503201F
SVC_18, HVC, SMC, BRK_5, UDF, WFI, ERET = 0xD4000241, 0xD4000002, 0xD4000003, 0xD42000A0, 0, 0xD503207F, 0xD69F03E0
ISB, DSB, IC_IVAU_X1, IC_IALLU = 0xD5033FDF, 0xD5033F9F, 0xD50B7521, 0xD508751F
UNMASK_IRQ, MASK_IRQ = 0xD50342FF, 0xD50342DF  # msr daifclr, #2; msr daifset, #2
MSR_VBAR_X1, MSR_CVAL_X1, MSR_SCTLR_X1 = 0xD518C001, 0xD51BE341, 0xD5181001
MRS_CNTVCT, MRS_VBAR, MRS_RNDR, MRS_CURRENTEL = 0xD53BE040, 0xD538C000, 0xD53B2400, 0xD5384240  # into x0
LDR_W0, STR_W0, LDR_X0, STR_X0, LDXR_X0 = 0xB9400020, 0xB9000020, 0xF9400020, 0xF9000020, 0xC85F7C20  # [x1]
ADD_X0_1, ADD_X0_2, ADD_X2_1, CMP_X1_X2, HERE, BR_X1 = (
    0x91000400,
    0x91000800,
    0x91000442,
    0xEB02003F,
    0x14000000,
    0xD61F0020,
)

Block = tuple[int, int]  # address, bytes

SCR_EL3 = (1, 1, 3, 6, 0)  # crn, crm, op0, op1, op2
HCR_EL2 = (1, 1, 3, 4, 0)
VBAR_EL1 = (12, 0, 3, 0, 0)
ELR_EL1 = (4, 0, 3, 0, 1)
SPSR_EL1 = (4, 0, 3, 0, 0)
ESR_EL1 = (5, 2, 3, 0, 0)
FAR_EL1 = (6, 0, 3, 0, 0)
#: NS, RES1, HCE, RW
SCR_VALUE = 0x531


def x(number: int) -> int:
    """Unicorn's number of x0…x28."""
    return int(arm64.UC_ARM64_REG_X0) + number


def write_code(engine: unicorn.Uc, words: list[int], address: int = CODE) -> None:
    engine.mem_write(address, struct.pack(f"<{len(words)}I", *words))


def machine(
    words: list[int], *, model: int = arm64.UC_CPU_ARM64_A57, page_size: int | None = 4096, mapped: bool = True
) -> unicorn.Uc:
    """An engine in EL1h with ``words`` at CODE; CODE, DATA and VECTORS are RAM of SIZE bytes each."""
    engine = unicorn.Uc(const.UC_ARCH_ARM64, const.UC_MODE_ARM, model)
    if page_size is not None:
        engine.ctl_set_page_size(page_size)
    if mapped:
        for base in (CODE, DATA, VECTORS):
            engine.mem_map(base, SIZE)
        write_code(engine, words)
    engine.reg_write(CP_REG, (*SCR_EL3, SCR_VALUE))
    engine.reg_write(CP_REG, (*HCR_EL2, 1 << 31))
    engine.reg_write(PSTATE, EL1H_MASKED)
    engine.reg_write(CP_REG, (*ELR_EL1, 0))
    return engine


def run(engine: unicorn.Uc, words: int, begin: int = CODE) -> None:
    """From ``begin`` until ``words`` instructions behind CODE."""
    engine.emu_start(begin, CODE + 4 * words)


def run_to_wfi(engine: unicorn.Uc, begin: int = CODE) -> None:
    """From ``begin`` until a WFI, the way the engine runs: without ``until``, which drops the last translation."""
    engine.ctl_exits_enabled(True)
    engine.emu_start(begin, 0)


def record_blocks(engine: unicorn.Uc) -> list[Block]:
    blocks: list[Block] = []
    engine.hook_add(const.UC_HOOK_BLOCK, lambda uc, address, size, user: blocks.append((address, size)))
    return blocks


def on_instruction(engine: unicorn.Uc, instruction: int, call: Callable[..., int]) -> None:
    """``call(engine, register, cp_reg, user)`` for an MRS, MSR or SYS instruction; 1 means: done, skip it."""
    engine.hook_add(const.UC_HOOK_INSN, call, None, 1, 0, instruction)


def exported(name: str, result: object, *arguments: object) -> Callable[..., int]:
    """An exported private function of the library."""
    address = ctypes.cast(getattr(binding.uclib, name), ctypes.c_void_p).value
    function: Callable[..., int] = ctypes.CFUNCTYPE(result, *arguments)(address)  # type: ignore[arg-type]  # ctypes types
    return function


def handle(engine: unicorn.Uc) -> int:
    return int(engine._uch.value)


def exit_request_flag(engine: unicorn.Uc) -> ctypes.c_uint8:
    """``uc->no_exit_request``; its offset stands in the exported function that reads it."""
    code = ctypes.string_at(ctypes.cast(binding.uclib.check_exit_request_aarch64, ctypes.c_void_p).value or 0, 64)
    at = code.index(b"\x80\xbe")
    return ctypes.c_uint8.from_address(handle(engine) + int.from_bytes(code[at + 2 : at + 6], "little"))
