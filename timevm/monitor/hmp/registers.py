"""``info registers`` in QEMU's layout."""

from __future__ import annotations

from collections.abc import Mapping

from timevm.engine.control.port import MachinePort
from timevm.monitor.hmp.registers_riscv import aliases, render_riscv
from timevm.monitor.hmp.registers_x86 import render_x86

#: PSTATE.M[3:0] with SPSel
_NEGATIVE, _ZERO, _CARRY, _OVERFLOW = 1 << 31, 1 << 30, 1 << 29, 1 << 28
_CURRENT_EL_SHIFT = 2
_SP_SELECT = 1
#: CPACR_EL1.FPEN: no trap at EL1 (and EL0)
_FPEN_SHIFT = 20
#: of x86, with a 32-bit name
_WIDE = frozenset({"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip"})


def read_registers(machine: MachinePort) -> dict[str, int]:
    """All registers by name, all from one moment.  Runs on the CPU thread."""
    return {register.name: machine.read_register(register.name) for register in machine.registers}


def registers_by_any_name(machine: MachinePort) -> dict[str, int]:
    """Also by the names that expressions know besides: ``pc``, ``eax``, ``sp``.  Runs on the CPU thread."""
    values = read_registers(machine)
    if "rip" in values:
        values |= {f"e{name[1:]}": value & 0xFFFF_FFFF for name, value in values.items() if name in _WIDE}
        values["pc"] = values["cs_base"] + values["rip"]
    if "scause" in values:
        values |= aliases(values)
    return values


def render_registers(values: Mapping[str, int], architecture: str) -> str:
    """One CPU's registers in QEMU's layout (``aarch64_cpu_dump_state`` and its like), others as a list."""
    if "cpsr" in values and "x30" in values:
        return _aarch64(values)
    if "cs_flags" in values and "rip" in values:
        return render_x86(values, wide_target=architecture != "i386")
    if "scause" in values and "x31" in values:
        return render_riscv(values)
    width = max(map(len, values))
    return "".join(f"{name:<{width}} {value:016x}\n" for name, value in values.items())


def _aarch64(values: Mapping[str, int]) -> str:
    text = f" PC={values['pc']:016x} "
    for number in range(31):
        text += f"X{number:02d}={values[f'x{number}']:016x}" + ("\n" if number % 3 == 1 else " ")
    text += f" SP={values['sp']:016x}\n"
    state = values["cpsr"]
    flags = "".join(
        letter if state & bit else "-"
        for letter, bit in (("N", _NEGATIVE), ("Z", _ZERO), ("C", _CARRY), ("V", _OVERFLOW))
    )
    level = state >> _CURRENT_EL_SHIFT & 3
    text += f"PSTATE={state:08x} {flags} EL{level}{'h' if state & _SP_SELECT else 't'}"
    if not _float_enabled(values, level):
        return text + "    FPU disabled\n"
    text += f"     FPCR={values['fpcr']:08x} FPSR={values['fpsr']:08x}\n"
    for number in range(32):
        value = values[f"v{number}"]
        text += f"Q{number:02d}={value >> 64:016x}:{value & (1 << 64) - 1:016x}" + ("\n" if number % 2 else " ")
    return text


def _float_enabled(values: Mapping[str, int], level: int) -> bool:
    if "v31" not in values:
        return False
    trap = values.get("CPACR_EL1", 3 << _FPEN_SHIFT) >> _FPEN_SHIFT & 3
    return trap == 3 or (trap == 1 and level == 1)
