"""AArch64 as gdb knows it: the core and FPU features by the names and types of its manual, and the system registers."""

from __future__ import annotations

from collections.abc import Sequence

from timevm.engine.control.port import Register
from timevm.gdb.target_description import Architecture, Feature, GdbRegister

#: PSTATE's fields in the layout of SPSR_EL1 (Arm ARM C5.2.18): name, first and last bit
_PSTATE_FIELDS = (
    *(("SP", 0, 0), ("EL", 2, 3), ("nRW", 4, 4), ("F", 6, 6), ("I", 7, 7), ("A", 8, 8), ("D", 9, 9)),
    *(("BTYPE", 10, 11), ("SSBS", 12, 12), ("IL", 20, 20), ("SS", 21, 21), ("PAN", 22, 22), ("UAO", 23, 23)),
    *(("V", 28, 28), ("C", 29, 29), ("Z", 30, 30), ("N", 31, 31)),
)
_TYPES = {"sp": "data_ptr", "pc": "code_ptr", "cpsr": "cpsr_flags"}

#: a vector register as lanes: union, its fields, and for each the element type and the number of lanes
_LANES = (
    ("vnd", (("f", "ieee_double", 2), ("u", "uint64", 2), ("s", "int64", 2))),
    ("vns", (("f", "ieee_single", 4), ("u", "uint32", 4), ("s", "int32", 4))),
    ("vnh", (("f", "ieee_half", 8), ("u", "uint16", 8), ("s", "int16", 8))),
    ("vnb", (("u", "uint8", 16), ("s", "int8", 16))),
    ("vnq", (("u", "uint128", 1), ("s", "int128", 1))),
)


def _pstate_type() -> str:
    fields = "".join(f'<field name="{name}" start="{first}" end="{last}"/>\n' for name, first, last in _PSTATE_FIELDS)
    return f'<flags id="cpsr_flags" size="4">\n{fields}</flags>\n'


def _vector_types() -> str:
    text = ""
    for union, fields in _LANES:
        names = [f"{union}_{field}" for field, _, _ in fields]
        for name, (_, element, count) in zip(names, fields, strict=True):
            text += f'<vector id="{name}" type="{element}" count="{count}"/>\n'
        parts = "".join(
            f'<field name="{field}" type="{name}"/>\n' for name, (field, _, _) in zip(names, fields, strict=True)
        )
        text += f'<union id="{union}">\n{parts}</union>\n'
    parts = "".join(f'<field name="{union.removeprefix("vn")}" type="{union}"/>\n' for union, _ in _LANES)
    return text + f'<union id="aarch64v">\n{parts}</union>\n'


def _core(register: Register) -> GdbRegister:
    return GdbRegister(register.name, register.bits, register.name, _TYPES.get(register.name, "int"))


def _float(register: Register) -> GdbRegister:
    if register.bits == 128:
        return GdbRegister(register.name, register.bits, register.name, "aarch64v")
    return GdbRegister(register.name, register.bits, register.name, group="float")


def _system(register: Register) -> GdbRegister:
    return GdbRegister(register.name, register.bits, register.name, f"uint{register.bits}", "system", saved=False)


def describe(registers: Sequence[Register]) -> Architecture:
    """The features that these registers of a machine make up."""
    groups = (
        ("org.gnu.gdb.aarch64.core", "general", _core, _pstate_type()),
        ("org.gnu.gdb.aarch64.fpu", "float", _float, _vector_types()),
        ("org.timevm.gdb.aarch64.system", "system", _system, ""),
    )
    features = []
    for name, group, convert, types in groups:
        members = tuple(convert(register) for register in registers if register.group == group)
        if members:
            features.append(Feature(name, members, types))
    return Architecture("aarch64", tuple(features), general_features=1, watch_stops_before=True)
