"""``x`` and ``xp``: memory as numbers, characters or instructions, in QEMU's columns."""

from __future__ import annotations

from timevm.engine.control.port import VmPort
from timevm.monitor.commands.disassembly import disassembly
from timevm.monitor.hmp.errors import HmpError
from timevm.monitor.hmp.expression import signed
from timevm.monitor.hmp.parameters import Format

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


async def disassemble(vm: VmPort, address: int, count: int, *, physical: bool) -> str:
    """``count`` instructions, each as long as the architecture makes it."""
    architecture = vm.architecture
    found = await vm.inspect(lambda machine: disassembly(architecture, machine))
    if found is None:
        raise HmpError(f"no disassembler for {vm.architecture}")
    data = await _read(vm, address, count * found.longest, physical=physical)
    lines = []
    offset = 0
    for _ in range(count):
        window = data[offset : offset + found.longest]
        here = (address + offset) & _MASK
        if len(window) < found.shortest:
            lines.append(f"{found.place(here)}: unable to read memory")
            break
        code, text = found.first(window, here)
        lines.append(found.line(here, code, text))
        offset += len(code)
    return "".join(f"{line}\n" for line in lines)
