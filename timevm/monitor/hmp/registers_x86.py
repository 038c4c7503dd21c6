"""``info registers`` of an x86 CPU in QEMU's layout (QEMU: ``x86_cpu_dump_state``)."""

from __future__ import annotations

from collections.abc import Mapping

#: CR0.PE, EFER.LMA
_PROTECTED, _LONG_ACTIVE = 1, 1 << 10
#: of a descriptor's second word: accessed, readable or writable, conforming or expand-down, code, S, P, L, B
_ACCESSED, _READ_WRITE, _CONFORMING, _CODE, _NO_SYSTEM = 1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12
_PRESENT, _LONG, _BIG = 1 << 15, 1 << 21, 1 << 22
_SYSTEM_TYPES = (
    "Reserved", "TSS16-avl", "LDT", "TSS16-busy", "CallGate16", "TaskGate", "IntGate16", "TrapGate16",
    "Reserved", "TSS32-avl", "Reserved", "TSS32-busy", "CallGate32", "Reserved", "IntGate32", "TrapGate32",
)  # fmt: skip
_SYSTEM_TYPES_64 = (
    "<hiword>", "Reserved", "LDT", "Reserved", "Reserved", "Reserved", "Reserved", "Reserved",
    "Reserved", "TSS64-avl", "Reserved", "TSS64-busy", "CallGate64", "Reserved", "IntGate64", "TrapGate64",
)  # fmt: skip
_FLAGS = (("D", 1 << 10), ("O", 1 << 11), ("S", 1 << 7), ("Z", 1 << 6), ("A", 1 << 4), ("P", 1 << 2), ("C", 1))
_SHORT = ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")


def render_x86(values: Mapping[str, int], *, wide_target: bool) -> str:
    """``values``: all registers by name, with the segments' hidden parts.  ``wide_target``: of ``-system-x86_64``.

    A machine that stands between two instructions is told as not halted and with interrupts not inhibited.
    """
    long = bool(values["efer"] & _LONG_ACTIVE)
    wide = long and bool(values["cs_flags"] & _LONG)
    text = _general(values, wide)
    for name in ("es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr"):
        text += _segment(name, values, wide, long)
    text += _system(values, long, wide_target)
    return text + _float(values, wide)


def _general(values: Mapping[str, int], wide: bool) -> str:
    digits, letter = (16, "R") if wide else (8, "E")
    mask = (1 << 4 * digits) - 1
    cells = [f"{letter}{name.upper()}={values[f'r{name}'] & mask:0{digits}x}" for name in _SHORT]
    if wide:
        cells += [f"{f'R{number}':<3}={values[f'r{number}']:016x}" for number in range(8, 16)]
    text = "".join(" ".join(cells[row : row + 4]) + "\n" for row in range(0, len(cells), 4))
    flags = values["rflags"]
    letters = "".join(name if flags & bit else "-" for name, bit in _FLAGS)
    level = values["cs"] & 3 if values["cr0"] & _PROTECTED else 0
    return (
        f"{text}{letter}IP={values['rip'] & mask:0{digits}x} {letter}FL={flags:08x} [{letters}] "
        f"CPL={level} II=0 A20=1 SMM=0 HLT=0\n"
    )


def _segment(name: str, values: Mapping[str, int], wide: bool, long: bool) -> str:
    flags, digits = values[f"{name}_flags"], 16 if wide else 8
    base = values[f"{name}_base"] & ((1 << 4 * digits) - 1)
    text = (
        f"{name.upper():<3}={values[name]:04x} {base:0{digits}x} {values[f'{name}_limit']:08x} {flags & 0x00FFFF00:08x}"
    )
    if not values["cr0"] & _PROTECTED or not flags & _PRESENT:
        return text + "\n"
    text += f" DPL={flags >> 13 & 3} "
    if not flags & _NO_SYSTEM:
        return text + (_SYSTEM_TYPES_64 if long else _SYSTEM_TYPES)[flags >> 8 & 15] + "\n"
    if flags & _CODE:
        kind = "CS64" if flags & _LONG else "CS32" if flags & _BIG else "CS16"
        letters = ("C" if flags & _CONFORMING else "-") + ("R" if flags & _READ_WRITE else "-")
    else:
        kind = "DS  " if flags & _BIG or long else "DS16"
        letters = ("E" if flags & _CONFORMING else "-") + ("W" if flags & _READ_WRITE else "-")
    return f"{text}{kind} [{letters}{'A' if flags & _ACCESSED else '-'}]\n"


def _system(values: Mapping[str, int], long: bool, wide_target: bool) -> str:
    digits = 16 if long else 8
    text = "".join(
        f"{name.upper()}=     {values[f'{name}_base']:0{digits}x} {values[f'{name}_limit']:08x}\n"
        for name in ("gdt", "idt")
    )
    two, three = (f"{values[name]:0{digits}x}" for name in ("cr2", "cr3"))
    text += f"CR0={values['cr0']:08x} CR2={two} CR3={three} CR4={values['cr4']:08x}\n"
    debug = {
        number: f"DR{number}={values[f'dr{number}']:0{16 if wide_target else 8}x}" for number in (0, 1, 2, 3, 6, 7)
    }
    text += "".join(f"{debug[number]} " for number in range(4))
    return f"{text}\n{debug[6]} {debug[7]}\nEFER={values['efer']:016x}\n"


def _float(values: Mapping[str, int], wide: bool) -> str:
    status, tags = values["fstat"], values["ftag"]
    # the abridged tag word: a bit for each register that is not empty
    valid = sum(1 << number for number in range(8) if tags >> 2 * number & 3 != 3)
    text = (
        f"FCW={values['fctrl']:04x} FSW={status:04x} [ST={status >> 11 & 7}] FTW={valid:02x} "
        f"MXCSR={values['mxcsr']:08x}\n"
    )
    top = status >> 11 & 7
    for number in range(8):
        value = values[f"st{(number - top) & 7}"]
        text += f"FPR{number}={value & (1 << 64) - 1:016x} {value >> 64:04x}" + ("\n" if number % 2 else " ")
    for number in range(16 if wide else 8):
        value = values[f"xmm{number}"]
        text += f"XMM{number:02d}={value >> 64:016x} {value & (1 << 64) - 1:016x}" + ("\n" if number % 2 else " ")
    return text
