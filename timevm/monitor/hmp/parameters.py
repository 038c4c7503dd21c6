"""The parameters of a line by their declared kinds, with QEMU's messages (QEMU: ``monitor/hmp.c``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from timevm.monitor.hmp.errors import ParameterError
from timevm.monitor.hmp.expression import Scanner, evaluate

_WORD = re.compile(r"[^\s]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_COUNT = re.compile(r"[0-9]+")
_SIZES = {"b": 1, "h": 2, "w": 4, "g": 8, "L": 8}
_FORMATS = "oduxic"


class Kind(Enum):
    """How a parameter is read."""

    EXPRESSION = auto()  # 64 bits
    SMALL = auto()  # an expression of 32 bits
    POSITION = auto()  # an expression, or +N, -N, end: a tuple (relative, value) or "end"
    STRING = auto()
    FILENAME = auto()  # a string under another name
    FORMAT = auto()  # /COUNT FORMAT SIZE
    FLAG = auto()  # -x
    REST = auto()  # of the line


@dataclass(frozen=True, slots=True)
class Parameter:
    """One declared parameter; ``flag`` is the letter of a FLAG."""

    name: str
    kind: Kind
    optional: bool = False
    flag: str = ""


@dataclass(slots=True)
class FormatMemory:
    """What ``x`` and ``print`` remember of their last format."""

    format: str = "x"
    size: int = 4


@dataclass(frozen=True, slots=True)
class Format:
    """``/FMT``: ``size`` in bytes, 0 for instructions."""

    count: int
    format: str
    size: int


def parse_parameters(
    text: str,
    declared: tuple[Parameter, ...],
    command: str,
    registers: Mapping[str, int],
    memory: FormatMemory,
) -> dict[str, Any]:
    """Values by name; absent optional ones are left out.  ``command`` as in messages.  Raises ParameterError."""
    scanner = Scanner(text)
    values: dict[str, Any] = {}
    for position, parameter in enumerate(declared):
        scanner.skip_space()
        match parameter.kind:
            case Kind.FLAG:
                values[parameter.name] = _flag(scanner, parameter, declared[position + 1 :], command)
                continue
            case Kind.FORMAT:
                values[parameter.name] = _format(scanner, memory)
                continue
            case Kind.REST:
                values[parameter.name] = scanner.text[scanner.position :].strip()
                scanner.position = len(scanner.text)
                continue
        if parameter.optional and not scanner.peek():
            continue
        match parameter.kind:
            case Kind.STRING | Kind.FILENAME:
                values[parameter.name] = _string(scanner, command, parameter.kind.name.lower())
            case Kind.POSITION:
                values[parameter.name] = _position(scanner, registers)
            case _:
                value = evaluate(scanner, registers)
                if parameter.kind is Kind.SMALL and not -(1 << 31) <= value < 1 << 32:
                    raise ParameterError(f"'{command}' has failed: integer is for 32-bit values")
                values[parameter.name] = value
    scanner.skip_space()
    if scanner.peek():
        raise ParameterError(f"{command}: extraneous characters at the end of line")
    return values


def _flag(scanner: Scanner, parameter: Parameter, later: Sequence[Parameter], command: str) -> bool:
    if scanner.peek() != "-":
        return False
    start = scanner.position
    word = scanner.match(_WORD)
    assert word is not None, "there is a dash at least"
    if word[0] == f"-{parameter.flag}":
        return True
    if all(word[0] != f"-{other.flag}" for other in later if other.kind is Kind.FLAG):
        raise ParameterError(f"{command}: unsupported option {word[0]}")
    scanner.position = start
    return False


def _string(scanner: Scanner, command: str, kind: str) -> str:
    if scanner.peek() == '"':
        quoted = scanner.match(_QUOTED)
        if quoted is None:
            raise ParameterError(f"unterminated string\n{command}: {kind} expected")
        return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[0]), quoted[1])
    word = scanner.match(_WORD)
    if word is None:
        raise ParameterError(f"{command}: {kind} expected")
    return word[0]


def _position(scanner: Scanner, registers: Mapping[str, int]) -> tuple[bool, int] | str:
    if scanner.text[scanner.position :].strip() == "end":
        scanner.position = len(scanner.text)
        return "end"
    relative = scanner.peek() in ("+", "-") and scanner.peek() != ""
    return relative, evaluate(scanner, registers)


def _format(scanner: Scanner, memory: FormatMemory) -> Format:
    if scanner.peek() != "/":
        return Format(1, memory.format, 0 if memory.format == "i" else memory.size)
    scanner.position += 1
    count = 1
    digits = scanner.match(_COUNT)
    if digits is not None:
        count = int(digits[0][:12])
    chosen, size = "", 0
    while (character := scanner.peek()) and not character.isspace():
        if character in _FORMATS:
            chosen = character
        elif character in _SIZES:
            size = _SIZES[character]
        else:
            raise ParameterError(f"invalid char in format: '{character}'")
        scanner.position += 1
    chosen = chosen or memory.format
    if chosen == "i":
        memory.format = chosen
        return Format(count, chosen, 0)
    # a size is kept for the next time, except that characters are bytes
    size = size or (1 if chosen == "c" else memory.size)
    memory.format, memory.size = chosen, size
    return Format(count, chosen, size)
