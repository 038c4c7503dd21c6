"""The server's side of telnet: data apart from negotiation (RFC 854, 857, 858), terminal and window (RFC 1091, 1073).

Sans-IO.  A client that negotiates nothing is never waited for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240
ECHO, SUPPRESS_GO_AHEAD, TERMINAL_TYPE, NAWS = 1, 3, 24, 31
_IS, _SEND = 0, 1
_INTERRUPT_PROCESS = 244
#: bytes of one subnegotiation
_MAX_SUB = 256
_OURS = frozenset({ECHO, SUPPRESS_GO_AHEAD})
_THEIRS = frozenset({TERMINAL_TYPE, NAWS, SUPPRESS_GO_AHEAD})


@dataclass(frozen=True, slots=True)
class TerminalNamed:
    """The client's terminal, in lower case, e.g. ``xterm-256color``."""

    name: str


@dataclass(frozen=True, slots=True)
class WindowSized:
    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class EchoAccepted:
    """The client leaves echoing to us: it sends single characters."""


TelnetEvent = bytes | TerminalNamed | WindowSized | EchoAccepted


class _State(Enum):
    DATA = auto()
    COMMAND = auto()
    OPTION = auto()
    SUB = auto()
    SUB_COMMAND = auto()


class TelnetServer:
    """``feed`` returns data and events in order; ``take_replies`` what must be sent to the client."""

    def __init__(self) -> None:
        self._state = _State.DATA
        self._verb = 0
        self._sub = bytearray()
        self._replies = bytearray()
        self._agreed: set[tuple[int, int]] = set()

    @staticmethod
    def offer() -> bytes:
        """What a server sends first."""
        return bytes((IAC, WILL, ECHO, IAC, WILL, SUPPRESS_GO_AHEAD, IAC, DO, TERMINAL_TYPE, IAC, DO, NAWS))

    @staticmethod
    def encode(data: bytes) -> bytes:
        return data.replace(b"\xff", b"\xff\xff")

    def take_replies(self) -> bytes:
        replies = bytes(self._replies)
        self._replies.clear()
        return replies

    def feed(self, wire: bytes) -> list[TelnetEvent]:
        events: list[TelnetEvent] = []
        data = bytearray()

        def flush() -> None:
            if data:
                events.append(bytes(data))
                data.clear()

        position = 0
        while position < len(wire):
            if self._state is _State.DATA:
                command = wire.find(IAC, position)
                end = command if command >= 0 else len(wire)
                data += wire[position:end]
                position = end + 1
                self._state = _State.COMMAND if command >= 0 else _State.DATA
                continue
            byte = wire[position]
            position += 1
            match self._state:
                case _State.COMMAND:
                    self._state = _State.DATA
                    if byte == IAC:
                        data.append(byte)
                    elif byte in (DO, DONT, WILL, WONT):
                        self._verb, self._state = byte, _State.OPTION
                    elif byte == SB:
                        self._sub.clear()
                        self._state = _State.SUB
                    elif byte == _INTERRUPT_PROCESS:
                        data.append(3)
                case _State.OPTION:
                    self._state = _State.DATA
                    flush()
                    events.extend(self._option(byte))
                case _State.SUB:
                    if byte == IAC:
                        self._state = _State.SUB_COMMAND
                    elif len(self._sub) < _MAX_SUB:
                        self._sub.append(byte)
                case _State.SUB_COMMAND:
                    if byte == IAC:
                        self._state = _State.SUB
                        if len(self._sub) < _MAX_SUB:
                            self._sub.append(byte)
                    else:
                        self._state = _State.DATA
                        flush()
                        events.extend(self._subnegotiation())
        flush()
        return events

    def _option(self, option: int) -> list[TelnetEvent]:
        verb = self._verb
        if (verb, option) in self._agreed:
            return []
        if verb == DO:
            if option not in _OURS:
                self._replies += bytes((IAC, WONT, option))
                return []
            self._agreed.add((verb, option))
            return [EchoAccepted()] if option == ECHO else []
        if verb == WILL:
            if option not in _THEIRS:
                self._replies += bytes((IAC, DONT, option))
                return []
            self._agreed.add((verb, option))
            if option == TERMINAL_TYPE:
                self._replies += bytes((IAC, SB, TERMINAL_TYPE, _SEND, IAC, SE))
        return []

    def _subnegotiation(self) -> list[TelnetEvent]:
        sub = bytes(self._sub)
        if len(sub) >= 2 and sub[0] == TERMINAL_TYPE and sub[1] == _IS:
            return [TerminalNamed(sub[2:].decode("ascii", "replace").lower())]
        if len(sub) == 5 and sub[0] == NAWS:
            return [WindowSized(int.from_bytes(sub[1:3], "big"), int.from_bytes(sub[3:5], "big"))]
        return []
