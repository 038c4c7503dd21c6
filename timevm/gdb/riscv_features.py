"""RISC-V as gdb knows it: the core, FPU, control register and privilege features by the names of its manual."""

from __future__ import annotations

from collections.abc import Sequence

from timevm.engine.control.abi_names import RISCV_FLOATS, RISCV_GENERAL
from timevm.engine.control.port import Register
from timevm.gdb.target_description import Architecture, Feature, GdbRegister

_NAMES = {f"x{number}": "fp" if name == "s0" else name for number, name in enumerate(RISCV_GENERAL)} | {
    f"f{number}": name for number, name in enumerate(RISCV_FLOATS)
}
_TYPES = {"ra": "code_ptr", "sp": "data_ptr", "gp": "data_ptr", "tp": "data_ptr", "fp": "data_ptr", "pc": "code_ptr"}
_FLOAT_TYPE = (
    '<union id="riscv_double">\n<field name="float" type="ieee_single"/>\n'
    '<field name="double" type="ieee_double"/>\n</union>\n'
)
_PRIVILEGE = "priv"


def _core(register: Register) -> GdbRegister:
    name = _NAMES.get(register.name, register.name)
    return GdbRegister(name, register.bits, register.name, _TYPES.get(name, "int"))


def _float(register: Register) -> GdbRegister:
    if register.name in _NAMES:
        return GdbRegister(_NAMES[register.name], register.bits, register.name, "riscv_double")
    return GdbRegister(register.name, register.bits, register.name, "int", "float")


def _control(register: Register) -> GdbRegister:
    return GdbRegister(register.name, register.bits, register.name, f"uint{register.bits}", "csr", saved=False)


def describe(registers: Sequence[Register]) -> Architecture:
    """The features that these registers of a machine make up."""
    system = [register for register in registers if register.group == "system"]
    members = (
        ("cpu", "", [_core(register) for register in registers if register.group == "general"]),
        ("fpu", _FLOAT_TYPE, [_float(register) for register in registers if register.group == "float"]),
        ("csr", "", [_control(register) for register in system if register.name != _PRIVILEGE]),
        ("virtual", "", [_control(register) for register in system if register.name == _PRIVILEGE]),
    )
    features = tuple(
        Feature(f"org.gnu.gdb.riscv.{name}", tuple(found), types) for name, types, found in members if found
    )
    return Architecture("riscv:rv64", features, general_features=1, watch_stops_before=True)
