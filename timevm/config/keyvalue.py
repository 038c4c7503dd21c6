"""QEMU's option values: ``key=value,key=value`` with ``,,`` for a comma, sizes, switches.

Rules of QEMU's ``util/qemu-option.c`` as its users meet them: the first part may leave out an implied key, a part
without ``=`` switches something on (``server``) or, with ``no`` before it, off (``nowait``); the last of a key wins.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import NoReturn

from timevm.errors import UserError

ON = frozenset({"on", "yes", "true", "y"})
OFF = frozenset({"off", "no", "false", "n"})
SUFFIXES = {"B": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9\-._]*\Z")
_SIZE_HELP = (
    "Parameter '{key}' expects a non-negative number below 2^64\n"
    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
)


def hint(word: str, known: Collection[str]) -> str:
    """`` (did you mean 'x'?)`` when something near is known, otherwise nothing."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


def split_parts(text: str) -> list[str]:
    """Split at commas; ``,,`` is one comma inside a part."""
    parts, part, position = [], "", 0
    while position < len(text):
        character = text[position]
        if character == ",":
            if text[position : position + 2] != ",,":
                parts.append(part)
                part = ""
                position += 1
                continue
            position += 1
        part += character
        position += 1
    if part or parts:
        parts.append(part)
    return parts


def parse_number(text: str) -> int | None:
    """Decimal, ``0x`` or octal with a leading 0, as C's ``strtol`` with base 0; None if it is no number."""
    digits = text.strip().lower()
    sign, digits = (-1, digits[1:]) if digits.startswith("-") else (1, digits.removeprefix("+"))
    if re.fullmatch(r"0x[0-9a-f]+", digits):
        return sign * int(digits, 16)
    if re.fullmatch(r"0[0-7]*", digits):
        return sign * int(digits, 8)
    if re.fullmatch(r"[1-9][0-9]*", digits) and len(digits) < 40:
        return sign * int(digits)
    return None


def parse_size(text: str, default_suffix: str = "B") -> int | None:
    """Bytes of ``512``, ``512M``, ``1.5G``, ``0x1000``; None if it is none.  ``default_suffix`` is for bare numbers."""
    match = re.fullmatch(r"(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}(?:\.[0-9]{1,20})?)([bBkKmMgGtTpPeE]?)", text)
    if match is None:
        return None
    number, suffix = match.groups()
    shift = SUFFIXES[(suffix or default_suffix).upper()]
    if number[:2] in ("0x", "0X"):
        if suffix:
            return None
        size = int(number, 16) << shift
    else:
        whole, _, fraction = number.partition(".")
        if fraction and shift == 0:
            return None
        size = (int(whole) << shift) + (int((int(fraction) << shift) // 10 ** len(fraction)) if fraction else 0)
    return size if size < 1 << 64 else None


class OptionValue:
    """The value of one command line option, taken apart; ``UserError`` in QEMU's words for whatever is wrong in it.

    ``option`` is the option with its dash, ``known`` the keys it takes (None: any), ``implied`` the key of a first
    part without ``=``, ``shown`` what the user wrote if ``text`` is only a part of it.
    """

    def __init__(
        self,
        option: str,
        text: str,
        *,
        known: Collection[str] | None,
        implied: str | None = None,
        shown: str | None = None,
    ) -> None:
        self.option, self.text = option, text if shown is None else shown
        self.pairs: list[tuple[str, str]] = []
        for index, part in enumerate(split_parts(text)):
            key, equals, value = part.partition("=")
            if not equals:
                if index == 0 and implied is not None:
                    key, value = implied, part
                elif known is not None and part not in known and part.startswith("no") and part[2:] in known:
                    key, value = part[2:], "off"
                else:
                    value = "on"
            if known is not None and key not in known:
                raise self.error(f"Invalid parameter '{key}'{hint(key, known)}")
            self.pairs.append((key, value))
        self._values = dict(self.pairs)

    def override(self, pairs: list[tuple[str, str]]) -> None:
        """Keys that the form of the option gives, e.g. host and port of ``tcp:HOST:PORT``."""
        self.pairs += pairs
        self._values.update(pairs)

    def error(self, message: str) -> UserError:
        return UserError(f"{self.option} {self.text}: {message}")

    def fail(self, message: str) -> NoReturn:
        raise self.error(message)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def rest(self, *taken: str) -> tuple[tuple[str, str], ...]:
        """All keys but ``taken``, in order, the last of each."""
        return tuple((key, value) for key, value in self._values.items() if key not in taken)

    def text_of(self, key: str) -> str | None:
        return self._values.get(key)

    def needed(self, key: str) -> str:
        value = self._values.get(key)
        if value is None:
            self.fail(f"Parameter '{key}' is missing")
        return value

    def switch(self, key: str, default: bool) -> bool:
        value = self._values.get(key)
        if value is None:
            return default
        if value in ON or value in OFF:
            return value in ON
        self.fail(f"Parameter '{key}' expects 'on' or 'off'")

    def number(self, key: str) -> int | None:
        value = self._values.get(key)
        if value is None:
            return None
        number = parse_number(value)
        if number is None or not -(1 << 63) <= number < 1 << 64:
            self.fail(f"Parameter '{key}' expects integer")
        return number

    def size(self, key: str, default_suffix: str = "B") -> int | None:
        value = self._values.get(key)
        if value is None:
            return None
        size = parse_size(value, default_suffix)
        if size is None:
            self.fail(_SIZE_HELP.format(key=key))
        return size

    def choice(self, key: str, choices: Collection[str], default: str) -> str:
        value = self._values.get(key, default)
        if value not in choices:
            self.fail(f"Parameter '{key}' does not accept value '{value}'{hint(value, choices)}")
        return value

    def identifier(self, key: str = "id") -> str | None:
        value = self._values.get(key)
        if value is not None and not IDENTIFIER.match(value):
            self.fail(
                f"Parameter '{key}' expects an identifier\n"
                "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter."
            )
        return value
