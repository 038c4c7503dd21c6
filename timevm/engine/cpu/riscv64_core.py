"""RISC-V in a core file (Linux: ``arch/riscv/include/uapi/asm/ptrace.h``)."""

from __future__ import annotations

from timevm.engine.cpu.core_image import EM_RISCV, CoreImage, ReadRegister, packed, process_status

#: ``struct user_regs_struct``
_GENERAL = ("pc", *(f"x{number}" for number in range(1, 32)))


def describe(read: ReadRegister) -> CoreImage:
    status = process_status(64, packed("<Q", read, _GENERAL), bytes(8))
    return CoreImage(EM_RISCV, 64, (status,))
