"""The test finisher (QEMU's ``sifive_test.c``): one register by which a guest ends the machine or restarts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FAIL, PASS, RESET = 0x3333, 0x5555, 0x7777
#: the host has eight bits for what a process ends with
_EXIT_CODE: Final = 0xFF


class TestFinisher:
    """A Device; there is no state.

    The low half of what is written says what to do; of FAIL the high half is the process's exit code.  ``power_off``
    gets that code, or None for PASS.
    """

    __test__ = False  # the device is called so; pytest would take it for tests
    window = 0x1000

    def __init__(self, name: str, power_off: Callable[[int | None], None], reset_machine: Callable[[], None]) -> None:
        self.name = name
        self._power_off = power_off
        self._reset_machine = reset_machine

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """16 or 32 bits at the start of the window; anything else is ignored."""
        if offset or size not in (2, 4):
            return
        action = value & 0xFFFF
        if action == FAIL:
            self._power_off(value >> 16 & _EXIT_CODE)
        elif action == PASS:
            self._power_off(None)
        elif action == RESET:
            self._reset_machine()
