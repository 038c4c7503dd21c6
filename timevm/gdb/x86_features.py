"""x86 as gdb knows it, in 64 and in 32 bits: the core, SSE and segment features of its manual, and system registers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from timevm.engine.control.port import Register
from timevm.gdb.target_description import Architecture, Feature, GdbRegister

#: in the order of the ``g`` packet (gdb: ``64bit-core.xml``, ``32bit-core.xml``)
_GENERAL_64 = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
_GENERAL_32 = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs")
#: the last five are where an instruction of the FPU failed; nobody keeps that
_FPU = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_POINTERS = {"rsp": "data_ptr", "rbp": "data_ptr", "esp": "data_ptr", "ebp": "data_ptr"}
#: EFLAGS (Intel SDM vol. 1, 3.4.3) and MXCSR (10.2.3): name and bit
_EFLAGS = (
    *(("CF", 0), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9), ("DF", 10), ("OF", 11)),
    *(("NT", 14), ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19), ("VIP", 20), ("ID", 21)),
)
_MXCSR = (
    *(("IE", 0), ("DE", 1), ("ZE", 2), ("OE", 3), ("UE", 4), ("PE", 5), ("DAZ", 6)),
    *(("IM", 7), ("DM", 8), ("ZM", 9), ("OM", 10), ("UM", 11), ("PM", 12), ("FZ", 15)),
)
#: an SSE register as lanes: field, element type, number of lanes
_LANES = (
    *(("v8_half", "ieee_half", 8), ("v4_float", "ieee_single", 4), ("v2_double", "ieee_double", 2)),
    *(("v16_int8", "int8", 16), ("v8_int16", "int16", 8), ("v4_int32", "int32", 4), ("v2_int64", "int64", 2)),
)


def _flags(name: str, bits: Iterable[tuple[str, int]]) -> str:
    fields = "".join(f'<field name="{flag}" start="{bit}" end="{bit}"/>\n' for flag, bit in bits)
    return f'<flags id="{name}" size="4">\n{fields}</flags>\n'


def _vector_types() -> str:
    vectors = "".join(f'<vector id="{name}_t" type="{element}" count="{n}"/>\n' for name, element, n in _LANES)
    fields = "".join(f'<field name="{name}" type="{name}_t"/>\n' for name, _, _ in _LANES)
    return f'{vectors}<union id="vec128">\n{fields}<field name="uint128" type="uint128"/>\n</union>\n'


def _core(bits: int, names: Sequence[str], known: set[str]) -> Feature:
    prefix = "r" if bits == 64 else "e"
    registers = [
        GdbRegister(name, bits, f"r{name[1:]}" if bits == 32 else name, _POINTERS.get(name, f"int{bits}"))
        for name in names
    ]
    registers.append(GdbRegister(f"{prefix}ip", bits, "rip", "code_ptr"))
    registers.append(GdbRegister("eflags", 32, "rflags", "i386_eflags"))
    registers += [GdbRegister(name, 32, name, "int32") for name in _SEGMENTS]
    registers += [GdbRegister(f"st{number}", 80, f"st{number}", "i387_ext") for number in range(8)]
    registers += [GdbRegister(name, 32, name if name in known else None, group="float") for name in _FPU]
    return Feature("org.gnu.gdb.i386.core", tuple(registers), _flags("i386_eflags", _EFLAGS))


def _describe(name: str, bits: int, general: Sequence[str], registers: Sequence[Register]) -> Architecture:
    known = {register.name for register in registers}
    vectors = [GdbRegister(f"xmm{number}", 128, f"xmm{number}", "vec128") for number in range(bits // 4)]
    vectors = [register for register in vectors if register.name in known]
    vectors.append(GdbRegister("mxcsr", 32, "mxcsr", "i386_mxcsr", "vector"))
    bases = tuple(GdbRegister(base, 64, base) for base in ("fs_base", "gs_base")) if bits == 64 else ()
    taken = {register.name for register in bases}
    system = tuple(
        GdbRegister(register.name, register.bits, register.name, f"uint{register.bits}", "system", saved=False)
        for register in registers
        if register.group == "system" and register.name not in taken
    )
    features = (
        _core(bits, general, known),
        Feature("org.gnu.gdb.i386.sse", tuple(vectors), _vector_types() + _flags("i386_mxcsr", _MXCSR)),
        Feature("org.gnu.gdb.i386.segments", bases),
        Feature("org.timevm.gdb.i386.system", system),
    )
    # gdb finds the new value behind a write, as hardware has it: it does not step over x86's watchpoints
    return Architecture(name, tuple(f for f in features if f.registers), general_features=1, watch_stops_before=False)


def describe_64(registers: Sequence[Register]) -> Architecture:
    """The features that these registers of a machine make up."""
    return _describe("i386:x86-64", 64, _GENERAL_64, registers)


def describe_32(registers: Sequence[Register]) -> Architecture:
    """The lower halves, for ``timevm-system-i386``."""
    return _describe("i386", 32, _GENERAL_32, registers)
