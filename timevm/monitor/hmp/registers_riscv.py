"""``info registers`` of a RISC-V CPU in QEMU's layout (QEMU: ``riscv_cpu_dump_state``)."""

from __future__ import annotations

from collections.abc import Mapping

from timevm.engine.control.abi_names import RISCV_FLOATS, RISCV_GENERAL

#: control registers in QEMU's order; sstatus is part of mstatus
_CONTROL = (
    "mhartid", "mstatus", "mip", "mie", "mideleg", "medeleg", "mtvec", "stvec", "mepc", "sepc", "mcause", "scause",
    "mtval", "stval", "mscratch", "sscratch", "satp",
)  # fmt: skip


def render_riscv(values: Mapping[str, int]) -> str:
    """``values``: all registers by name."""
    text = f" {'pc':<8} {values['pc']:016x}\n"
    text += "".join(f" {name:<8} {values[name]:016x}\n" for name in _CONTROL)
    return text + _rows("x", RISCV_GENERAL, values) + _rows("f", RISCV_FLOATS, values)


def _rows(letter: str, names: tuple[str, ...], values: Mapping[str, int]) -> str:
    cells = [
        f" {f'{letter}{number}/{name}':<8} {values[f'{letter}{number}']:016x}" for number, name in enumerate(names)
    ]
    return "".join("".join(cells[row : row + 4]) + "\n" for row in range(0, len(cells), 4))


def aliases(values: Mapping[str, int]) -> dict[str, int]:
    """By the calling convention's names."""
    named = {name: values[f"x{number}"] for number, name in enumerate(RISCV_GENERAL)}
    return named | {"fp": named["s0"]} | {name: values[f"f{number}"] for number, name in enumerate(RISCV_FLOATS)}
