"""``x`` and ``xp``: memory as numbers, characters or instructions, in QEMU's columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from timevm.engine.control.port import MachinePort, VmPort
from timevm.monitor.hmp.errors import HmpError
from timevm.monitor.hmp.expression import signed
from timevm.monitor.hmp.parameters import Format

if TYPE_CHECKING:
    import capstone

#: bytes that one command may look at
MAX_DUMP = 1 << 20
_MASK = (1 << 64) - 1
#: columns of a number by format and size
_DECIMAL_WIDTH = {1: 3, 2: 5, 4: 10, 8: 20}
_OCTAL_DIGITS = {1: 3, 2: 6, 4: 11, 8: 22}
_CHARACTERS = {0x27: "\\'", 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r"}


def character(value: int) -> str:
    """``'A'``, escaped as QEMU does."""
    if value in _CHARACTERS:
        return f"'{_CHARACTERS[value]}'"
    return f"'{chr(value)}'" if 32 <= value <= 126 else f"'\\x{value:02x}'"


#: EFER.LMA; of the code segment: 64 bits, 32 bits
_LONG_ACTIVE, _LONG, _BIG = 1 << 10, 1 << 21, 1 << 22


@dataclass(frozen=True, slots=True)
class _Encoding:
    """Instructions have ``shortest`` to ``longest`` bytes; shown as one number or byte by byte, in ``columns``.

    ``address_digits``: at least so many; QEMU writes addresses in full where it does not use capstone.
    """

    shortest: int
    longest: int
    columns: int
    is_number: bool = True
    address_digits: int = 8

    def length_of_none(self, code: bytes) -> int:
        """Of what is no instruction: where the next one may begin."""
        if self.longest == 2 * self.shortest and code[0] & 3 == 3:  # RISC-V: the length is in the first bits
            return min(self.longest, len(code))
        return self.shortest


_ENCODINGS = {"aarch64": _Encoding(4, 4, 8), "riscv64": _Encoding(2, 4, 16, address_digits=16)}
_BYTES = _Encoding(1, 16, 23, is_number=False)


async def _read(vm: VmPort, address: int, size: int, *, physical: bool) -> bytes:
    return await vm.inspect(lambda machine: machine.read_memory(address, size, physical=physical))


async def dump_memory(vm: VmPort, address: int, wanted: Format, *, physical: bool) -> str:
    """The lines of ``x/FMT``.  Raises HmpError if that is too much."""
    address &= _MASK
    if wanted.count * max(wanted.size, 4) > MAX_DUMP:
        raise HmpError(f"at most {MAX_DUMP} bytes at once")
    if wanted.format == "i":
        return await disassemble(vm, address, wanted.count, physical=physical)
    size = wanted.size
    line_size = 8 if wanted.format == "c" else 16 if size > 1 else 8
    total = wanted.count * size
    lines = []
    for offset in range(0, total, line_size):
        start = (address + offset) & _MASK
        length = min(line_size, total - offset)
        data = await _read(vm, start, length, physical=physical)
        if len(data) != length:
            lines.append(f"{start:016x}: Cannot access memory")
            break
        numbers = [int.from_bytes(data[at : at + size], "little") for at in range(0, length, size)]
        lines.append(f"{start:016x}:" + "".join(f" {_number(number, wanted.format, size)}" for number in numbers))
    return "".join(f"{line}\n" for line in lines)


def _number(value: int, form: str, size: int) -> str:
    match form:
        case "o":
            return (f"0{value:o}" if value else "0").rjust(_OCTAL_DIGITS[size])
        case "x":
            return f"0x{value:0{size * 2}x}"
        case "u":
            return f"{value:>{_DECIMAL_WIDTH[size]}}"
        case "c":
            return character(value)
        case _:
            sign = value - (1 << size * 8) if value >> (size * 8 - 1) else value
            return f"{sign:>{_DECIMAL_WIDTH[size]}}"


def print_value(value: int, form: str) -> str:
    """``print/FMT``."""
    match form:
        case "o":
            return "0" + f"{value & _MASK:o}" if value else "0"
        case "x":
            return hex(value & _MASK) if value else "0"
        case "u":
            return str(value & _MASK)
        case "c":
            return character(value & 0xFFFF_FFFF)
        case _:
            return str(signed(value))


def disassembler(architecture: str, machine: MachinePort) -> capstone.Cs | None:
    """Capstone for what the CPU executes now, None if it does not know it.  Runs on the CPU thread."""
    import capstone  # 15 ms that a monitor need not wait for

    if architecture == "aarch64":
        return capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    if architecture == "riscv64":
        return capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV64 | capstone.CS_MODE_RISCVC)
    if architecture not in ("x86_64", "i386"):
        return None
    flags = machine.read_register("cs_flags")
    if machine.read_register("efer") & _LONG_ACTIVE and flags & _LONG:
        mode = capstone.CS_MODE_64
    else:
        mode = capstone.CS_MODE_32 if flags & _BIG else capstone.CS_MODE_16
    decoder = capstone.Cs(capstone.CS_ARCH_X86, mode)
    decoder.syntax = capstone.CS_OPT_SYNTAX_ATT  # as QEMU's
    return decoder


async def disassemble(vm: VmPort, address: int, count: int, *, physical: bool) -> str:
    """``count`` instructions, each as long as the architecture makes it."""
    architecture = vm.architecture
    decoder = await vm.inspect(lambda machine: disassembler(architecture, machine))
    if decoder is None:
        raise HmpError(f"no disassembler for {vm.architecture}")
    encoding = _ENCODINGS.get(architecture, _BYTES)
    data = await _read(vm, address, count * encoding.longest, physical=physical)
    lines = []
    offset = 0
    for _ in range(count):
        window = data[offset : offset + encoding.longest]
        here = (address + offset) & _MASK
        place = f"0x{here:0{encoding.address_digits}x}"
        if len(window) < encoding.shortest:
            lines.append(f"{place}: unable to read memory")
            break
        found = next(decoder.disasm(window, here, 1), None)
        length = found.size if found is not None else encoding.length_of_none(window)
        code = window[:length]
        shown = f"{int.from_bytes(code, 'little'):0{2 * len(code)}x}" if encoding.is_number else code.hex(" ")
        if found is None:
            text = f"{'.byte':<8} " + ", ".join(f"0x{byte:02x}" for byte in code)
        else:
            text = f"{found.mnemonic:<8} {found.op_str}"
        lines.append(f"{place}:  {shown.ljust(encoding.columns)}  {text}")
        offset += length
    return "".join(f"{line}\n" for line in lines)
