"""The monitor's expressions: ``0x40 + $x1 * 2``; numbers, characters, registers, ``+ - & | ^ * / % ~ ( )``.

As in QEMU (``monitor/hmp.c``), ``& | ^`` bind tighter than ``+ -`` and looser than ``* / %``, and numbers are C's: hex,
decimal, octal.  Values wrap at 64 bits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from timevm.monitor.hmp.errors import ParameterError

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")
_REGISTER = re.compile(r"\$([A-Za-z0-9_.\-:]*)")
_WRAP = 1 << 64
#: parentheses and signs within each other
_DEPTH = 100


def signed(value: int) -> int:
    """The same 64 bits as a signed number."""
    value %= _WRAP
    return value - _WRAP if value >> 63 else value


class Scanner:
    """A line being read: ``text`` and how far it has been."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def skip_space(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1

    def peek(self) -> str:
        """The next character, '' at the end."""
        return self.text[self.position : self.position + 1]

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.position)
        if found is not None:
            self.position = found.end()
        return found


def evaluate(scanner: Scanner, registers: Mapping[str, int]) -> int:
    """The value (signed) of the expression at the scanner, which then stands behind it.  Raises ParameterError."""
    return signed(_Expression(scanner, registers).sum(0))


class _Expression:
    def __init__(self, scanner: Scanner, registers: Mapping[str, int]) -> None:
        self._scanner = scanner
        self._registers = registers

    def _operator(self, among: str) -> str:
        self._scanner.skip_space()
        found = self._scanner.peek()
        if found and found in among:
            self._scanner.position += 1
            return found
        return ""

    def sum(self, depth: int) -> int:
        value = self._logic(depth)
        while operator := self._operator("+-"):
            other = self._logic(depth)
            value = value + other if operator == "+" else value - other
        return value

    def _logic(self, depth: int) -> int:
        value = self._product(depth)
        while operator := self._operator("&|^"):
            other = self._product(depth)
            match operator:
                case "&":
                    value &= other
                case "|":
                    value |= other
                case _:
                    value ^= other
        return value

    def _product(self, depth: int) -> int:
        value = self._unary(depth)
        while operator := self._operator("*/%"):
            other = signed(self._unary(depth))
            if operator == "*":
                value *= other
                continue
            if other == 0:
                raise ParameterError("division by zero")
            # C rounds towards zero
            left = signed(value)
            quotient = abs(left) // abs(other) * (1 if (left < 0) == (other < 0) else -1)
            value = quotient if operator == "/" else left - quotient * other
        return value

    def _unary(self, depth: int) -> int:
        if depth > _DEPTH:
            raise ParameterError("expression is nested too deeply")
        scanner = self._scanner
        scanner.skip_space()
        character = scanner.peek()
        if character == "":
            raise ParameterError("unexpected end of expression")
        if character in "+-~(":
            scanner.position += 1
            if character == "(":
                value = self.sum(depth + 1)
                if not self._operator(")"):
                    raise ParameterError("')' expected")
                return value
            value = self._unary(depth + 1)
            return {"+": value, "-": -value, "~": ~value}[character]
        if character == "'":
            return self._character()
        if character == "$":
            return self._register()
        number = scanner.match(_NUMBER)
        if number is None:
            raise ParameterError(f"invalid char '{character}' in expression")
        text = number[0]
        value = int(text, 8) if text[0] == "0" and text.isdigit() else int(text, 0)
        if value >= _WRAP:
            raise ParameterError("number too large")
        return value

    def _character(self) -> int:
        text, start = self._scanner.text, self._scanner.position
        if len(text) <= start + 1:
            raise ParameterError("character constant expected")
        if text[start + 2 : start + 3] != "'":
            raise ParameterError("missing terminating ' character")
        self._scanner.position = start + 3
        return ord(text[start + 1])

    def _register(self) -> int:
        match = self._scanner.match(_REGISTER)
        name = match[1] if match is not None else ""
        for candidate in (name, name.lower()):
            if candidate in self._registers:
                return self._registers[candidate]
        raise ParameterError("unknown register")
