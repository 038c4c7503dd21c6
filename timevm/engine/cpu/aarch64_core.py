"""AArch64 in a core file (Linux: ``arch/arm64/include/uapi/asm/ptrace.h``)."""

from __future__ import annotations

import struct

from timevm.engine.cpu.core_image import (
    EM_AARCH64,
    NT_PRFPREG,
    CoreImage,
    Note,
    ReadRegister,
    packed,
    process_status,
)

#: ``struct user_pt_regs``, ``struct user_fpsimd_state``
_GENERAL = (*(f"x{number}" for number in range(31)), "sp", "pc", "cpsr")
_VECTORS = tuple(f"v{number}" for number in range(32))
_STATUS = ("fpsr", "fpcr")


def describe(read: ReadRegister) -> CoreImage:
    vectors = b"".join(read(name).to_bytes(16, "little") for name in _VECTORS)
    floating = vectors + packed("<I", read, _STATUS) + bytes(8)
    status = process_status(64, packed("<Q", read, _GENERAL), struct.pack("<II", 1, 0))
    return CoreImage(EM_AARCH64, 64, (status, Note("CORE", NT_PRFPREG, floating)))
