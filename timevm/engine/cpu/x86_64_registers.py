"""x86's registers by name: how debuggers list them, and where they are."""

from __future__ import annotations

from unicorn import x86_const as x86

from timevm.engine.cpu import x86_64_private as private
from timevm.engine.cpu.base import Register

GENERAL = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")

#: offsets of what is read and written in place: name, offset, bits, group
PLACES: dict[str, tuple[int, int, str]] = {
    **{name: (private.REGS + 8 * number, 64, "general") for number, name in enumerate(GENERAL)},
    "rip": (private.EIP, 64, "general"),
    "rflags": (private.EFLAGS, 32, "general"),
    **{name: (private.SEGMENTS + 24 * number, 16, "general") for number, name in enumerate(SEGMENTS)},
    **{f"{name}_base": (private.SEGMENTS + 24 * n + 8, 64, "system") for n, name in enumerate(SEGMENTS)},
    **{f"{name}_limit": (private.SEGMENTS + 24 * n + 16, 32, "system") for n, name in enumerate(SEGMENTS)},
    **{f"{name}_flags": (private.SEGMENTS + 24 * n + 20, 32, "system") for n, name in enumerate(SEGMENTS)},
    **{
        f"{name}_{part}": (offset + at, bits, "system")
        for name, offset in (("gdt", private.GDT), ("idt", private.IDT), ("ldt", private.LDT), ("tr", private.TR))
        for part, at, bits in (("base", 8, 64), ("limit", 16, 32))
    },
    "ldt_flags": (private.LDT + 20, 32, "system"),
    "tr_flags": (private.TR + 20, 32, "system"),
    "ldt": (private.LDT, 16, "system"),
    "tr": (private.TR, 16, "system"),
    "cr2": (private.CONTROL + 16, 64, "system"),
    "efer": (private.EFER, 64, "system"),
    "k_gs_base": (private.KERNEL_GS, 64, "system"),
    "star": (private.STAR, 64, "system"),
    "lstar": (private.LSTAR, 64, "system"),
    "cstar": (private.CSTAR, 64, "system"),
    "fmask": (private.FMASK, 64, "system"),
    **{f"dr{n}": (private.DEBUG + 8 * n, 64, "system") for n in (0, 1, 2, 3, 6, 7)},
}
#: control registers whose write changes how the CPU works: offset, Unicorn's function that does it
CONTROL = {
    "cr0": (private.CONTROL, "cpu_x86_update_cr0_x86_64"),
    "cr3": (private.CONTROL + 24, "cpu_x86_update_cr3_x86_64"),
    "cr4": (private.CONTROL + 32, "cpu_x86_update_cr4_x86_64"),
}
#: registers that go through Unicorn
FLOAT = {
    **{f"st{n}": (x86.UC_X86_REG_FP0 + n, 80) for n in range(8)},
    "fctrl": (x86.UC_X86_REG_FPCW, 16),
    "fstat": (x86.UC_X86_REG_FPSW, 16),
    "ftag": (x86.UC_X86_REG_FPTAG, 16),
    **{f"xmm{n}": (x86.UC_X86_REG_XMM0 + n, 128) for n in range(16)},
    "mxcsr": (x86.UC_X86_REG_MXCSR, 32),
}

REGISTERS: tuple[Register, ...] = (
    *(Register(name, bits, group) for name, (_, bits, group) in PLACES.items() if group == "general"),
    *(Register(name, bits, "float") for name, (_, bits) in FLOAT.items()),
    *(Register(name, 64, "system") for name in CONTROL),
    *(Register(name, bits, group) for name, (_, bits, group) in PLACES.items() if group == "system"),
)
