"""Bytes in, complete JSON texts out: finds where one value ends and the next begins, in one pass and bounded memory.

Like QEMU's streamer it needs no newlines, counts braces and brackets, and is in step again after garbage at the next
control character or structural one (QEMU: ``qobject/json-lexer.c``, ``qobject/json-streamer.c``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

#: bytes of one request.  QEMU takes 64 MiB; no command needs a hundredth of this, and it is all parsed in one go:
#: 0.1 s at most, in which no other client is answered
MAX_REQUEST = 1 << 17
#: brackets within brackets (QEMU: 1024)
MAX_NESTING = 128

_STRUCTURE = re.compile(rb"[{}\[\]\"']|[^a-z0-9+\-.E \t\r\n,:]")
_TOP = re.compile(rb"[^ \t\r\n]")
_BARE_END = re.compile(rb"[^a-z0-9+\-.E]")
_IN_STRING = {quote: re.compile(rb"[\\\x00-\x1f\xfe\xff" + quote + rb"]") for quote in (b'"', b"'")}
_RECOVERED = re.compile(rb"[\x00-\x1f\xfe\xff{}\[\]:,]")
_LINE_END = re.compile(rb"[\n\xff]")
_CONTROL = frozenset(range(0x20)) | {0xFE, 0xFF}
_BARE = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789+-.E")
_OPENING = frozenset(b"{}[]\"'")


@dataclass(frozen=True, slots=True)
class JsonText:
    """One complete value, not parsed yet."""

    data: bytes


@dataclass(frozen=True, slots=True)
class JsonFailure:
    """What came is no JSON; the stream is in step again behind it."""

    sentence: str


class _Where(Enum):
    BETWEEN = auto()  # values
    BARE = auto()  # in a number or keyword outside of all brackets
    VALUE = auto()  # in a value, outside its strings
    STRING = auto()
    ESCAPE = auto()  # behind a backslash
    RECOVERY = auto()  # behind garbage
    OVERSIZE = auto()  # in the rest of a line that was too long


class JsonStream:
    """``feed`` returns what has become complete."""

    def __init__(self, max_request: int = MAX_REQUEST) -> None:
        self._max_request = max_request
        self._buffer = bytearray()
        self._scanned = 0
        self._string_start = 0
        self._quote = b'"'
        self._braces = 0
        self._brackets = 0
        self._where = _Where.BETWEEN

    def feed(self, data: bytes) -> list[JsonText | JsonFailure]:
        found: list[JsonText | JsonFailure] = []
        self._buffer += data
        while self._scanned < len(self._buffer):
            item = _STEPS[self._where](self)
            if item is not None:
                found.append(item)
        if len(self._buffer) > self._max_request:
            self._forget()
            self._where = _Where.OVERSIZE
            found.append(JsonFailure("JSON token size limit exceeded"))
        return found

    def _forget(self) -> None:
        """Drop what has been scanned; between values again."""
        del self._buffer[: self._scanned]
        self._scanned = 0
        self._braces = self._brackets = 0
        self._where = _Where.BETWEEN

    def _take(self) -> JsonText | JsonFailure:
        text = bytes(self._buffer[: self._scanned])
        self._forget()
        if len(text) > self._max_request:
            return JsonFailure("JSON token size limit exceeded")
        return JsonText(text)

    def _stray(self, start: int) -> JsonFailure:
        """Garbage from ``start`` to the scan position, which is behind the character that cannot be."""
        text = bytes(self._buffer[start : self._scanned])
        ended = text[-1] in _CONTROL
        self._forget()
        if not ended:
            self._where = _Where.RECOVERY
        return JsonFailure(f"JSON parse error, stray '{text[-100:].decode('utf-8', 'replace')}'")

    def _skip_to(self, pattern: re.Pattern[bytes]) -> int | None:
        """Scan to the next match and past it; its byte, or None if there is none yet."""
        match = pattern.search(self._buffer, self._scanned)
        if match is None:
            self._scanned = len(self._buffer)
            return None
        self._scanned = match.end()
        return self._buffer[match.start()]

    def _between(self) -> JsonText | JsonFailure | None:
        byte = self._skip_to(_TOP)
        if byte is None:
            self._forget()
            return None
        self._scanned -= 1
        del self._buffer[: self._scanned]
        self._scanned = 0
        if byte in _BARE:
            self._where = _Where.BARE
        elif byte in _OPENING:
            self._where = _Where.VALUE
        else:
            self._scanned = 1
            return self._take() if byte in b":," else self._stray(0)
        return None

    def _bare(self) -> JsonText | JsonFailure | None:
        if self._skip_to(_BARE_END) is None:
            return None
        self._scanned -= 1
        return self._take()

    def _value(self) -> JsonText | JsonFailure | None:
        byte = self._skip_to(_STRUCTURE)
        if byte is None:
            return None
        match byte:
            case 0x22 | 0x27:
                self._quote = bytes((byte,))
                self._string_start = self._scanned - 1
                self._where = _Where.STRING
                return None
            case 0x7B:
                self._braces += 1
            case 0x7D:
                self._braces -= 1
            case 0x5B:
                self._brackets += 1
            case 0x5D:
                self._brackets -= 1
            case _:
                return self._stray(self._scanned - 1)
        if self._braces + self._brackets > MAX_NESTING:
            self._forget()
            self._where = _Where.OVERSIZE
            return JsonFailure("JSON nesting depth limit exceeded")
        return self._closed()

    def _closed(self) -> JsonText | JsonFailure | None:
        """Something ended: if nothing is open any more (or too much was closed), that was a value."""
        if (self._braces > 0 or self._brackets > 0) and self._braces >= 0 and self._brackets >= 0:
            return None
        return self._take()

    def _string(self) -> JsonText | JsonFailure | None:
        byte = self._skip_to(_IN_STRING[self._quote])
        if byte is None:
            return None
        if byte == 0x5C:
            self._where = _Where.ESCAPE
            return None
        if byte in _CONTROL:
            return self._stray(self._string_start)
        self._where = _Where.VALUE
        return self._closed()

    def _escape(self) -> JsonFailure | None:
        self._scanned += 1
        if self._buffer[self._scanned - 1] in _CONTROL:
            return self._stray(self._string_start)
        self._where = _Where.STRING
        return None

    def _recovery(self) -> None:
        byte = self._skip_to(_RECOVERED)
        if byte is None:
            self._forget_keeping(_Where.RECOVERY)
            return
        if byte not in _CONTROL:
            self._scanned -= 1
        self._forget()

    def _oversize(self) -> None:
        if self._skip_to(_LINE_END) is None:
            self._forget_keeping(_Where.OVERSIZE)
        else:
            self._forget()

    def _forget_keeping(self, where: _Where) -> None:
        self._forget()
        self._where = where


_STEPS: dict[_Where, Callable[[JsonStream], JsonText | JsonFailure | None]] = {
    _Where.BETWEEN: JsonStream._between,
    _Where.BARE: JsonStream._bare,
    _Where.VALUE: JsonStream._value,
    _Where.STRING: JsonStream._string,
    _Where.ESCAPE: JsonStream._escape,
    _Where.RECOVERY: JsonStream._recovery,
    _Where.OVERSIZE: JsonStream._oversize,
}
