"""AArch64's registers by name: how debuggers list them and where Unicorn keeps them."""

from __future__ import annotations

from dataclasses import dataclass

from unicorn import arm64_const as arm64

from timevm.engine.cpu.base import Register


@dataclass(frozen=True, slots=True)
class SystemRegister:
    """A system register by its encoding (Arm ARM D17.1)."""

    name: str
    op0: int
    op1: int
    crn: int
    crm: int
    op2: int


#: what a kernel developer looks at; the names are the Arm ARM's
SYSTEM_REGISTERS = tuple(
    SystemRegister(*row)
    for row in (
        ("SCTLR_EL1", 3, 0, 1, 0, 0),
        ("CPACR_EL1", 3, 0, 1, 0, 2),
        ("TTBR0_EL1", 3, 0, 2, 0, 0),
        ("TTBR1_EL1", 3, 0, 2, 0, 1),
        ("TCR_EL1", 3, 0, 2, 0, 2),
        ("SPSR_EL1", 3, 0, 4, 0, 0),
        ("ELR_EL1", 3, 0, 4, 0, 1),
        ("SP_EL0", 3, 0, 4, 1, 0),
        ("ESR_EL1", 3, 0, 5, 2, 0),
        ("FAR_EL1", 3, 0, 6, 0, 0),
        ("PAR_EL1", 3, 0, 7, 4, 0),
        ("MAIR_EL1", 3, 0, 10, 2, 0),
        ("VBAR_EL1", 3, 0, 12, 0, 0),
        ("CONTEXTIDR_EL1", 3, 0, 13, 0, 1),
        ("TPIDR_EL1", 3, 0, 13, 0, 4),
        ("CNTKCTL_EL1", 3, 0, 14, 1, 0),
        ("TPIDR_EL0", 3, 3, 13, 0, 2),
        ("TPIDRRO_EL0", 3, 3, 13, 0, 3),
        ("MIDR_EL1", 3, 0, 0, 0, 0),
        ("MPIDR_EL1", 3, 0, 0, 0, 5),
        ("ID_AA64PFR0_EL1", 3, 0, 0, 4, 0),
    )
)
SYSTEM_BY_NAME = {register.name: register for register in SYSTEM_REGISTERS}

#: x0..x28 and x29, x30 have two number ranges in Unicorn
GENERAL = {f"x{n}": arm64.UC_ARM64_REG_X0 + n for n in range(29)} | {
    "x29": arm64.UC_ARM64_REG_X29,
    "x30": arm64.UC_ARM64_REG_X30,
    "sp": arm64.UC_ARM64_REG_SP,
    "pc": arm64.UC_ARM64_REG_PC,
    "cpsr": arm64.UC_ARM64_REG_PSTATE,
}
FLOAT = {f"v{n}": arm64.UC_ARM64_REG_Q0 + n for n in range(32)} | {
    "fpsr": arm64.UC_ARM64_REG_FPSR,
    "fpcr": arm64.UC_ARM64_REG_FPCR,
}
UNICORN_NUMBER = GENERAL | FLOAT


def _bits(name: str) -> int:
    if name in ("cpsr", "fpsr", "fpcr"):
        return 32
    return 128 if name.startswith("v") else 64


REGISTERS: tuple[Register, ...] = (
    *(Register(name, _bits(name), "general") for name in GENERAL),
    *(Register(name, _bits(name), "float") for name in FLOAT),
    *(Register(register.name, 64, "system") for register in SYSTEM_REGISTERS),
)
