"""Ports for firmware and test programs: the debug console (402h), and the exit port of QEMU's isa-debug-exit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from timevm.engine.devices.byte_access import ByteRegisters

#: what the console's port reads as, so that firmware knows it is there
PRESENT: Final = 0xE9


class DebugConsole(ByteRegisters):
    """A Device.  ``transmit`` gets each byte written; there is no state."""

    window = 1

    def __init__(self, name: str, transmit: Callable[[bytes], None]) -> None:
        self.name = name
        self._transmit = transmit

    def read_byte(self, offset: int) -> int:
        return PRESENT

    def write_byte(self, offset: int, value: int) -> None:
        self._transmit(bytes((value,)))


class DebugExit:
    """A Device: a write ends the machine.  ``leave`` gets the number that was written; there is no state."""

    def __init__(self, name: str, ports: int, leave: Callable[[int], None]) -> None:
        self.name = name
        self.window = ports
        self._leave = leave

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        self._leave(value)
