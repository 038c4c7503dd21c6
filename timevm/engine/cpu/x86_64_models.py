"""The x86 processor models: what CPUID tells and what the translator accepts, fixed and the same on every host.

Left out of every model, because they would bring in what is not the guest's or is not modelled: RDRAND and RDSEED, SVM,
performance counters, XSAVE (no state beyond SSE here), MONITOR.
"""

from __future__ import annotations

from dataclasses import dataclass

from unicorn import x86_const as x86


@dataclass(frozen=True, slots=True)
class Model:
    """``unicorn`` names the model that Unicorn starts from; ``features`` replaces some of its feature words."""

    unicorn: int
    features: dict[int, int]


# indices of Unicorn's feature words
LEAF_1_EDX, LEAF_1_ECX, LEAF_7_EBX, EXTENDED_EDX, EXTENDED_ECX = 0, 1, 2, 6, 7

#: those that CPUID tells come first: of leaves 1, 7, 80000001h, 80000007h, 80000008h
CPUID_WORDS = 10

#: in LEAF_1_EDX and EXTENDED_EDX
LOCAL_APIC = 1 << 9
HYPERVISOR = 1 << 31
SSE3, PCLMUL, SSSE3, CX16, SSE41, SSE42 = 1 << 0, 1 << 1, 1 << 9, 1 << 13, 1 << 19, 1 << 20
MOVBE, POPCNT, AES = 1 << 22, 1 << 23, 1 << 25
FSGSBASE, BMI1, SMEP, BMI2, ERMS, ADX, SMAP, CLFLUSHOPT, CLWB = (
    1 << 0,
    1 << 3,
    1 << 7,
    1 << 8,
    1 << 9,
    1 << 19,
    1 << 20,
    1 << 23,
    1 << 24,
)
LAHF, ABM = 1 << 0, 1 << 5
QEMU64_EXTENDED_EDX = 0x2193FBFD
MMX_EXTENSIONS, GIGABYTE_PAGES, RDTSCP = 1 << 22, 1 << 26, 1 << 27

MODELS = {
    "qemu64": Model(x86.UC_CPU_X86_QEMU64, {LEAF_1_ECX: HYPERVISOR | SSE3 | CX16, EXTENDED_ECX: LAHF}),
    "qemu32": Model(x86.UC_CPU_X86_QEMU32, {LEAF_1_ECX: HYPERVISOR | SSE3, EXTENDED_EDX: 0}),
    "max": Model(
        x86.UC_CPU_X86_QEMU64,
        {
            LEAF_1_ECX: HYPERVISOR | SSE3 | PCLMUL | SSSE3 | CX16 | SSE41 | SSE42 | MOVBE | POPCNT | AES,
            LEAF_7_EBX: FSGSBASE | BMI1 | SMEP | BMI2 | ERMS | ADX | SMAP | CLFLUSHOPT | CLWB,
            EXTENDED_EDX: QEMU64_EXTENDED_EDX | MMX_EXTENSIONS | GIGABYTE_PAGES | RDTSCP,
            EXTENDED_ECX: LAHF | ABM,
        },
    ),
}
