"""ACPI Machine Language, as far as the boards' tables need it (ACPI 6.3, chapter 20): terms in, bytes out.

Everything is a function from parts to bytes; parts are put together with ``+`` or as arguments.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from timevm.errors import InternalError

LOCAL0, ARG0 = b"\x60", b"\x68"
ZERO, ONE, ONES = b"\x00", b"\x01", b"\xff"
#: address spaces of operation regions
SYSTEM_IO, PCI_CONFIG = 1, 2
#: field accesses
BYTE_ACCESS = 1
NO_TARGET = b"\x00"


def segment(name: str) -> bytes:
    """Four characters, padded."""
    if not 1 <= len(name) <= 4:
        raise InternalError(f"'{name}' is no name of ACPI")
    return name.ljust(4, "_").encode()


def name(path: str) -> bytes:
    """``\\_SB.PCI0``, ``^PRQ0``, ``_ADR``."""
    start = len(path) - len(path.lstrip("\\^"))
    prefix, parts = path[:start].encode(), [segment(part) for part in path[start:].split(".") if part]
    if not parts:
        return prefix + b"\x00"
    if len(parts) == 1:
        return prefix + parts[0]
    if len(parts) == 2:
        return prefix + b"\x2e" + b"".join(parts)
    return prefix + b"\x2f" + bytes([len(parts)]) + b"".join(parts)


def package_length(size: int, *, of_itself: bool = True) -> bytes:
    """``size`` bytes follow; ``of_itself``: the length's own bytes are counted too (not in lists of fields)."""
    for extra in range(4):
        total = size + (1 + extra) * of_itself
        if extra == 0 and total < 1 << 6:
            return bytes([total])
        if extra and total < 1 << 4 + 8 * extra:
            rest = (total >> 4).to_bytes(extra, "little")
            return bytes([extra << 6 | total & 0xF]) + rest
    raise InternalError(f"{size} bytes are too many for a term of ACPI")


def _with_length(code: bytes, body: bytes) -> bytes:
    return code + package_length(len(body)) + body


def integer(value: int) -> bytes:
    if value in (0, 1):
        return bytes([value])
    for prefix, form, limit in ((b"\x0a", "<B", 8), (b"\x0b", "<H", 16), (b"\x0c", "<I", 32), (b"\x0e", "<Q", 64)):
        if value < 1 << limit:
            return prefix + struct.pack(form, value)
    raise InternalError(f"{value} is too large for ACPI")


def string(text: str) -> bytes:
    return b"\x0d" + text.encode("ascii") + b"\0"


def buffer(data: bytes) -> bytes:
    return _with_length(b"\x11", integer(len(data)) + data)


def package(elements: Sequence[bytes]) -> bytes:
    return _with_length(b"\x12", bytes([len(elements)]) + b"".join(elements))


def eisa(identifier: str) -> bytes:
    """``PNP0A03`` in its compressed form."""
    letters = [ord(letter) - 0x40 for letter in identifier[:3]]
    value = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | int(identifier[3:], 16)
    return b"\x0c" + struct.pack(">I", value)


# named objects


def define(path: str, value: bytes) -> bytes:
    return b"\x08" + name(path) + value


def scope(path: str, *terms: bytes) -> bytes:
    return _with_length(b"\x10", name(path) + b"".join(terms))


def device(path: str, *terms: bytes) -> bytes:
    return _with_length(b"\x5b\x82", name(path) + b"".join(terms))


def method(path: str, arguments: int, *terms: bytes) -> bytes:
    return _with_length(b"\x14", name(path) + bytes([arguments]) + b"".join(terms))


def region(path: str, space: int, offset: int, size: int) -> bytes:
    return b"\x5b\x80" + name(path) + bytes([space]) + integer(offset) + integer(size)


def field(path: str, access: int, fields: Sequence[tuple[str, int]]) -> bytes:
    """``fields``: names and their bits, one behind the other."""
    parts = b"".join(segment(title) + package_length(bits, of_itself=False) for title, bits in fields)
    return _with_length(b"\x5b\x81", name(path) + bytes([access]) + parts)


# statements and expressions


def store(source: bytes, target: bytes) -> bytes:
    return b"\x70" + source + target


def bit_and(left: bytes, right: bytes, target: bytes = NO_TARGET) -> bytes:
    return b"\x7b" + left + right + target


def bit_or(left: bytes, right: bytes, target: bytes = NO_TARGET) -> bytes:
    return b"\x7d" + left + right + target


def lowest_bit(source: bytes, target: bytes = NO_TARGET) -> bytes:
    """Its number from 1 on."""
    return b"\x82" + source + target


def decrement(target: bytes) -> bytes:
    return b"\x76" + target


def when(condition: bytes, *terms: bytes) -> bytes:
    return _with_length(b"\xa0", condition + b"".join(terms))


def give(value: bytes) -> bytes:
    return b"\xa4" + value


def double_word_field(source: bytes, offset: int, title: str) -> bytes:
    return b"\x8a" + source + integer(offset) + segment(title)


# resource descriptors (6.4); a template ends with the end tag


def resources(*descriptors: bytes) -> bytes:
    return buffer(b"".join(descriptors) + b"\x79\x00")


def io(base: int, count: int) -> bytes:
    """Ports at a fixed address, all 16 bits decoded."""
    return struct.pack("<BBHHBB", 0x47, 1, base, base, 1, count)


def irq(number: int) -> bytes:
    """An ISA interrupt: edge, high, not shared."""
    return struct.pack("<BH", 0x22, 1 << number)


def interrupt(*numbers: int, level: bool = True, shared: bool = True) -> bytes:
    """Extended interrupt descriptor, active high; the offset of its first number is INTERRUPT_NUMBER."""
    flags = 0x01 | (0 if level else 0x02) | (0x08 if shared else 0)
    body = struct.pack(f"<BB{len(numbers)}I", flags, len(numbers), *numbers)
    return struct.pack("<BH", 0x89, len(body)) + body


INTERRUPT_NUMBER = 5


def _address(kind: int, form: str, code: int, flags: int, minimum: int, maximum: int) -> bytes:
    body = struct.pack(f"<BBB5{form}", kind, 0x0C, flags, 0, minimum, maximum, 0, maximum - minimum + 1)
    return struct.pack("<BH", code, len(body)) + body


def bus_numbers(minimum: int, maximum: int) -> bytes:
    return _address(2, "H", 0x88, 0, minimum, maximum)


def io_range(minimum: int, maximum: int) -> bytes:
    """Ports that a bridge passes on."""
    return _address(1, "H", 0x88, 3, minimum, maximum)


def memory_range(minimum: int, maximum: int, *, cacheable: bool = False) -> bytes:
    """Addresses below 4 GiB that a bridge passes on; readable and writable."""
    return _address(0, "I", 0x87, 1 | cacheable << 1, minimum, maximum)
