"""The telnet protocol (RFC 854, 856, 857, 858) around a byte stream, as far as a serial line needs it.  Sans-IO.

As QEMU's ``telnet:`` servers we offer ECHO and SUPPRESS GO AHEAD and ask for BINARY both ways: a telnet client then
sends every key at once.  Commands of the client are taken out of the stream; data bytes 255 are doubled on the wire.
"""

from __future__ import annotations

from enum import Enum, auto

IAC, DONT, DO, WONT, WILL, SUBNEGOTIATION, SUBNEGOTIATION_END = 255, 254, 253, 252, 251, 250, 240
BREAK = 243
BINARY, ECHO, SUPPRESS_GO_AHEAD = 0, 1, 3

#: what a server says first
SERVER_OPENING = bytes([IAC, WILL, ECHO, IAC, WILL, SUPPRESS_GO_AHEAD, IAC, WILL, BINARY, IAC, DO, BINARY])
_OURS = frozenset({ECHO, SUPPRESS_GO_AHEAD, BINARY})
_THEIRS = frozenset({BINARY, SUPPRESS_GO_AHEAD})


class _State(Enum):
    DATA = auto()
    COMMAND = auto()
    OPTION = auto()
    SUBNEGOTIATION = auto()
    SUBNEGOTIATION_COMMAND = auto()


class TelnetCodec:
    """One connection.  ``feed`` wire bytes in; ``encode`` data bytes out; ``replies`` are to be sent as they are."""

    def __init__(self, *, server: bool) -> None:
        self._state = _State.DATA
        self._verb = 0
        self._after_return = False
        self._client_is_binary = False
        #: options that both sides know to be settled, so that nobody answers answers
        self._settled: set[tuple[int, int]] = set()
        self.replies = bytearray()
        if server:
            self.replies += SERVER_OPENING
            self._settled |= {(DO, option) for option in _OURS} | {(WILL, BINARY)}

    def feed(self, wire: bytes) -> bytes:
        """The data bytes in ``wire``."""
        data = bytearray()
        position = 0
        while position < len(wire):
            if self._state is _State.DATA:
                command = wire.find(IAC, position)
                end = command if command >= 0 else len(wire)
                self._take_data(wire[position:end], data)
                position = end + 1
                self._state = _State.COMMAND if command >= 0 else _State.DATA
                continue
            byte = wire[position]
            position += 1
            match self._state:
                case _State.COMMAND:
                    self._take_command(byte, data)
                case _State.OPTION:
                    self._take_option(byte)
                    self._state = _State.DATA
                case _State.SUBNEGOTIATION if byte == IAC:
                    self._state = _State.SUBNEGOTIATION_COMMAND
                case _State.SUBNEGOTIATION_COMMAND:
                    self._state = _State.DATA if byte == SUBNEGOTIATION_END else _State.SUBNEGOTIATION
                case _:
                    pass
        return bytes(data)

    def _take_data(self, run: bytes, data: bytearray) -> None:
        if not run:
            return
        if not self._client_is_binary:  # RFC 854: CR NUL is CR
            filler = self._after_return and run[0] == 0
            after_return = run[-1] == 13
            run = run[filler:].replace(b"\r\0", b"\r")
            self._after_return = after_return
        else:
            self._after_return = run[-1] == 13
        data += run

    def _take_command(self, byte: int, data: bytearray) -> None:
        self._state = _State.DATA
        if byte == IAC:
            self._take_data(bytes((byte,)), data)
        elif byte in (DO, DONT, WILL, WONT):
            self._verb = byte
            self._state = _State.OPTION
        elif byte == SUBNEGOTIATION:
            self._state = _State.SUBNEGOTIATION

    def _take_option(self, option: int) -> None:
        if option == BINARY and self._verb in (WILL, WONT):
            self._client_is_binary = self._verb == WILL
        if (self._verb, option) in self._settled:
            return
        self._settled.discard(({DO: DONT, DONT: DO, WILL: WONT, WONT: WILL}[self._verb], option))
        self._settled.add((self._verb, option))
        if self._verb == DO:
            self.replies += bytes([IAC, WILL if option in _OURS else WONT, option])
        elif self._verb == WILL:
            self.replies += bytes([IAC, DO if option in _THEIRS else DONT, option])
        elif self._verb == DONT:
            self.replies += bytes([IAC, WONT, option])
        else:
            self.replies += bytes([IAC, DONT, option])

    def take_replies(self) -> bytes:
        """What is to be sent now."""
        replies = bytes(self.replies)
        self.replies.clear()
        return replies

    @staticmethod
    def encode(data: bytes) -> bytes:
        return data.replace(b"\xff", b"\xff\xff")
