"""AArch64's system registers in Unicorn: reading and writing them, and what firmware would have left in them."""

from __future__ import annotations

import unicorn
from unicorn import arm64_const as arm64

from timevm.engine.cpu.aarch64_registers import SYSTEM_BY_NAME, SystemRegister
from timevm.engine.cpu.unicorn_cpu import TOP

# EL1h, all interrupts masked (Arm ARM D1.6.1: the state after a reset)
RESET_PSTATE = 0x3C5
SCR_EL3 = SystemRegister("SCR_EL3", 3, 6, 1, 1, 0)
HCR_EL2 = SystemRegister("HCR_EL2", 3, 4, 1, 1, 0)
CPTR_EL3 = SystemRegister("CPTR_EL3", 3, 6, 1, 1, 2)
#: NS, RES1, HCE, RW: EL1 is non-secure AArch64, HVC is defined
SCR_NONSECURE_AARCH64 = 0x531
SCR_POINTER_AUTHENTICATION = 3 << 16
HCR_AARCH64 = 1 << 31
HCR_POINTER_AUTHENTICATION = 3 << 40
CPTR_SVE = 1 << 8
SCTLR_MMU = 1

ID_PROCESSOR = SystemRegister("ID_AA64PFR0_EL1", 3, 0, 0, 4, 0)
ID_DEBUG = SystemRegister("ID_AA64DFR0_EL1", 3, 0, 0, 5, 0)
ID_ISA = SystemRegister("ID_AA64ISAR0_EL1", 3, 0, 0, 6, 0)


class SystemRegisters:
    """Of one engine.  About 2 us an access."""

    def __init__(self, engine: unicorn.Uc) -> None:
        self._engine = engine

    def read(self, register: SystemRegister) -> int:
        key = (register.crn, register.crm, register.op0, register.op1, register.op2)
        return int(self._engine.reg_read(arm64.UC_ARM64_REG_CP_REG, key))

    def write(self, register: SystemRegister, value: int) -> None:
        """Also rebuilds the flags that translated code depends on."""
        key = (register.crn, register.crm, register.op0, register.op1, register.op2, value & TOP)
        self._engine.reg_write(arm64.UC_ARM64_REG_CP_REG, key)

    def state_changed(self) -> None:
        """PSTATE was written, which rebuilds nothing."""
        link = SYSTEM_BY_NAME["ELR_EL1"]
        self.write(link, self.read(link))

    def leave_firmware(self, *, is_max: bool) -> None:
        """What firmware would have done before it left EL3.  ``is_max``: with pointer authentication and SVE."""
        self.write(SCR_EL3, SCR_NONSECURE_AARCH64 | (SCR_POINTER_AUTHENTICATION if is_max else 0))
        self.write(HCR_EL2, HCR_AARCH64 | (HCR_POINTER_AUTHENTICATION if is_max else 0))
        if is_max:
            self.write(CPTR_EL3, self.read(CPTR_EL3) | CPTR_SVE)
        self._engine.reg_write(arm64.UC_ARM64_REG_PSTATE, RESET_PSTATE)
        self.write(SYSTEM_BY_NAME["ELR_EL1"], 0)

    def features(self) -> dict[str, int]:
        """The identification registers by their encodings (op0 3, op1 0, CRn 0), as the guest reads them."""
        space = [(crm, op2) for crm in range(1, 8) for op2 in range(8)]
        found = {f"{crm},{op2}": self.read(SystemRegister("", 3, 0, 0, crm, op2)) for crm, op2 in [(0, 0), *space]}
        replaced = {
            ID_PROCESSOR: self.features_processor(),
            ID_DEBUG: self.features_debug(),
            ID_ISA: self.features_isa(),
        }
        return found | {f"{register.crm},{register.op2}": value for register, value in replaced.items()}

    def features_processor(self) -> int:
        """No EL2, EL3 or GIC system registers here, and EL0 only in AArch64 (fields of four bits)."""
        return self.read(ID_PROCESSOR) & ~(0xFFF << 4 | 0xF << 24 | 0xF) | 1 << 4 | 1

    def features_debug(self) -> int:
        """No performance monitors: their counters would be host time in Unicorn."""
        return self.read(ID_DEBUG) & ~(0xF << 8)

    def features_isa(self) -> int:
        return self.read(ID_ISA)

    def mmu_is_on(self) -> bool:
        return bool(self.read(SYSTEM_BY_NAME["SCTLR_EL1"]) & SCTLR_MMU)
