"""The keys of a shared terminal: Ctrl-A and a letter (QEMU: ``chardev/char-mux.c``, ``docs/system/mux-chardev.rst``).

Sans-IO: bytes typed in, what to do out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Key(Enum):
    """What a key of the terminal itself asks for."""

    HELP = auto()
    EXIT = auto()
    COMMIT = auto()
    BREAK = auto()
    SWITCH = auto()
    TIMESTAMPS = auto()


_KEYS = {
    ord("h"): Key.HELP,
    ord("?"): Key.HELP,
    ord("x"): Key.EXIT,
    ord("s"): Key.COMMIT,
    ord("b"): Key.BREAK,
    ord("c"): Key.SWITCH,
    ord("t"): Key.TIMESTAMPS,
}


def key_name(code: int) -> str:
    """``Ctrl-A`` for 1; the character itself, or its number, for others."""
    if 1 <= code <= 26:
        return f"Ctrl-{chr(code + 64)}"
    return chr(code) if 33 <= code <= 126 else f"key {code}"


def help_text(escape: int) -> str:
    name = key_name(escape)
    lines = (
        ("h", "this help"),
        ("x", "leave timevm: a recording is closed in order"),
        ("c", "the next user of this terminal: serial port, monitor"),
        ("t", "the host's time before each line, on and off"),
        ("b", "a break signal (this version's serial ports take none)"),
        ("s", "write disks back (nothing to do: they are written at once)"),
        (name, f"{name} itself"),
    )
    width = len(name) + 2
    return "\r\n" + "".join(f"{name} {key:<{width}} {meaning}\r\n" for key, meaning in lines)


@dataclass(slots=True)
class MuxKeys:
    """``escape``: the code of the key that begins (``-echr``; 1 is Ctrl-A)."""

    escape: int = 1
    _escaped: bool = False

    def feed(self, data: bytes) -> list[bytes | Key]:
        """What is for the user in focus, in pieces, and the keys between.  An unknown letter does nothing."""
        found: list[bytes | Key] = []
        plain = bytearray()

        def flush() -> None:
            if plain:
                found.append(bytes(plain))
                plain.clear()

        position = 0
        while position < len(data):
            if not self._escaped:
                escape = data.find(self.escape, position)
                end = escape if escape >= 0 else len(data)
                plain += data[position:end]
                position = end + 1
                self._escaped = escape >= 0
                continue
            byte = data[position]
            position += 1
            self._escaped = False
            if byte == self.escape:
                plain.append(byte)
            elif byte in _KEYS:
                flush()
                found.append(_KEYS[byte])
        flush()
        return found


@dataclass(slots=True)
class LineStamps:
    """``[00:00:01.250] `` before each line, counted from when it was switched on."""

    on: bool = False
    _start_ns: int = 0
    _at_line_start: bool = True

    def switch(self, now_ns: int) -> None:
        self.on = not self.on
        self._start_ns = now_ns
        self._at_line_start = False

    def apply(self, data: bytes, now_ns: int) -> bytes:
        if not self.on or not data:
            return data
        milliseconds = (now_ns - self._start_ns) // 1_000_000
        seconds, milliseconds = divmod(milliseconds, 1000)
        stamp = b"[%02d:%02d:%02d.%03d] " % (seconds // 3600, seconds // 60 % 60, seconds % 60, milliseconds)
        body, ended = (data[:-1], True) if data.endswith(b"\n") else (data, False)
        stamped = body.replace(b"\n", b"\n" + stamp) + (b"\n" if ended else b"")
        if self._at_line_start:
            stamped = stamp + stamped
        self._at_line_start = ended
        return stamped
