"""What a calling convention calls the registers that a processor numbers: for those who show them to people."""

from __future__ import annotations

#: of x0 to x31 (RISC-V psABI, chapter 1); gdb calls s0 "fp"
RISCV_GENERAL = (
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", *(f"a{number}" for number in range(8)),
    *(f"s{number}" for number in range(2, 12)), *(f"t{number}" for number in range(3, 7)),
)  # fmt: skip
#: of f0 to f31
RISCV_FLOATS = (
    *(f"ft{number}" for number in range(8)), "fs0", "fs1", *(f"fa{number}" for number in range(8)),
    *(f"fs{number}" for number in range(2, 12)), *(f"ft{number}" for number in range(8, 12)),
)  # fmt: skip
