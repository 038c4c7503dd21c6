"""x86 in a core file, as the mode it is in makes it one of 64 or of 32 bits.

Registers: Linux' ``arch/x86/include/asm/user_64.h`` and ``user_32.h``; the note of QEMU's name has what those leave out
(its ``target/i386/arch_dump.c`` says where; tools such as crash read it).
"""

from __future__ import annotations

import struct

from timevm.engine.cpu.core_image import (
    EM_386,
    EM_X86_64,
    CoreImage,
    Note,
    ReadRegister,
    packed,
    process_status,
)

#: ``struct user_regs_struct``; None: no system call is under way
_GENERAL_64 = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", None,
    "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
_GENERAL_32 = (
    "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rax", "ds", "es", "fs", "gs", None, "rip", "cs", "rflags", "rsp", "ss",
)  # fmt: skip
#: the note that QEMU defines: its version, and what is in it in order
_STATE_VERSION, _STATE_TYPE = 1, 0
_STATE_GENERAL = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", *(f"r{number}" for number in range(8, 16)), "rip", "rflags",
)  # fmt: skip
#: selector, limit, flags and base of each
_STATE_SEGMENTS = (
    *((name, f"{name}_limit", f"{name}_flags", f"{name}_base") for name in ("cs", "ds", "es", "fs", "gs", "ss")),
    *((name, f"{name}_limit", f"{name}_flags", f"{name}_base") for name in ("ldt", "tr")),
    *((None, f"{name}_limit", None, f"{name}_base") for name in ("gdt", "idt")),
)
_STATE_CONTROL = ("cr0", None, "cr2", "cr3", "cr4", "k_gs_base")

_LONG_MODE_ACTIVE = 1 << 10


def describe(read: ReadRegister) -> CoreImage:
    if read("efer") & _LONG_MODE_ACTIVE:
        machine, bits, status = EM_X86_64, 64, process_status(64, packed("<Q", read, _GENERAL_64), bytes(8))
    else:
        machine, bits, status = EM_386, 32, process_status(32, packed("<I", read, _GENERAL_32), bytes(4))
    return CoreImage(machine, bits, (status, _state(read)))


def _state(read: ReadRegister) -> Note:
    segments = b"".join(
        packed("<I", read, (selector, limit, flags, None)) + packed("<Q", read, (base,))
        for selector, limit, flags, base in _STATE_SEGMENTS
    )
    data = packed("<Q", read, _STATE_GENERAL) + segments + packed("<Q", read, _STATE_CONTROL)
    head = struct.pack("<II", _STATE_VERSION, 8 + len(data))
    return Note("QEMU", _STATE_TYPE, head + data)
