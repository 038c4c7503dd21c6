"""Lines for clients that are no terminals: CR, LF or both end one; with echo, as much editing as a typewriter has."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: bytes of one line; what is longer is refused whole
MAX_LINE = 4096
_BACKSPACE = (0x08, 0x7F)
#: what stands for itself: a run of it is taken in one go
_PLAIN = re.compile(rb"[\t\x20-\x7e\x80-\xff]+")
_ERASE = b"\b \b"


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    too_long: bool = False


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Ctrl-C."""


class LineReader:
    """``feed`` returns what is complete; ``take_echo`` what the client should see of its typing."""

    def __init__(self) -> None:
        self.echo = False
        self._line = bytearray()
        self._overflow = False
        self._after_return = False
        self._echo = bytearray()

    def take_echo(self) -> bytes:
        echo = bytes(self._echo)
        self._echo.clear()
        return echo

    def feed(self, data: bytes) -> list[Line | Interrupt]:
        found: list[Line | Interrupt] = []
        position = 0
        while position < len(data):
            run = _PLAIN.match(data, position)
            if run is not None:
                self._add(run[0])
                self._after_return = False
                position = run.end()
                continue
            byte = data[position]
            position += 1
            after_return, self._after_return = self._after_return, byte == 0x0D
            if byte in (0x0A, 0x00) and after_return:
                continue
            if byte in (0x0A, 0x0D):
                found.append(self._take())
            elif byte == 0x03:
                self._line.clear()
                self._shown(b"^C\r\n")
                found.append(Interrupt())
            elif byte in _BACKSPACE and self._line:
                self._drop_character()
        return found

    def _add(self, run: bytes) -> None:
        taken = run[: MAX_LINE - len(self._line)]
        self._overflow = self._overflow or len(taken) < len(run)
        self._line += taken
        self._shown(taken)

    def _drop_character(self) -> None:
        # the last character may have been several bytes of UTF-8
        while self._line and self._line[-1] & 0xC0 == 0x80:
            self._line.pop()
        if self._line:
            self._line.pop()
        self._shown(_ERASE)

    def _take(self) -> Line:
        line = Line(self._line.decode("utf-8", "replace"), self._overflow)
        self._line.clear()
        self._overflow = False
        self._shown(b"\r\n")
        return line

    def _shown(self, data: bytes) -> None:
        if self.echo:
            self._echo += data
