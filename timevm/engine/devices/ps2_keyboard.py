"""A PS/2 keyboard that nobody types on: it answers its commands (IBM PS/2 Technical Reference, "Keyboard")."""

from __future__ import annotations

from typing import Any, Final

ACKNOWLEDGE, SELF_TEST_PASSED, ECHO, RESEND = 0xFA, 0xAA, 0xEE, 0xFE
IDENTIFIER: Final = (0xAB, 0x83)

SET_LEDS, SET_CODES, IDENTIFY, SET_RATE = 0xED, 0xF0, 0xF2, 0xF3
ENABLE, DISABLE, SET_DEFAULTS, RESET = 0xF4, 0xF5, 0xF6, 0xFF
#: of all keys: typematic, make/break, make only, both
ALL_KEYS: Final = range(0xF7, 0xFB)
TAKE_A_BYTE: Final = (SET_LEDS, SET_CODES, SET_RATE)
DEFAULT_CODES: Final = 2


class Ps2Keyboard:
    """Stateful.  ``command`` takes a byte from the controller and gives the bytes that the keyboard answers."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._codes = DEFAULT_CODES
        self._pending: int | None = None  # a command that waits for its parameter

    def state(self) -> dict[str, Any]:
        return {"codes": self._codes, "pending": self._pending}

    def restore(self, state: dict[str, Any]) -> None:
        self._codes = state["codes"]
        self._pending = state["pending"]

    def command(self, byte: int) -> tuple[int, ...]:
        pending, self._pending = self._pending, None
        if pending is not None and byte < SET_LEDS:
            return self._parameter(pending, byte)
        if byte in TAKE_A_BYTE:
            self._pending = byte
            return (ACKNOWLEDGE,)
        if byte == ECHO:
            return (ECHO,)
        if byte == IDENTIFY:
            return (ACKNOWLEDGE, *IDENTIFIER)
        if byte == RESET:
            self.reset()
            return (ACKNOWLEDGE, SELF_TEST_PASSED)
        if byte == SET_DEFAULTS:
            self._codes = DEFAULT_CODES
        elif byte not in (ENABLE, DISABLE) and byte not in ALL_KEYS:
            return (RESEND,)
        return (ACKNOWLEDGE,)

    def _parameter(self, command: int, byte: int) -> tuple[int, ...]:
        if command == SET_CODES:
            if byte == 0:
                return (ACKNOWLEDGE, self._codes)
            if byte > 3:
                return (RESEND,)
            self._codes = byte
        return (ACKNOWLEDGE,)
