"""The PC's system control ports: 61h (timer gate, loudspeaker, NMI status) and 92h (gate A20, fast reset).

Facts: Intel 290550 (PIIX3), "NMI status and control" and "port 92".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from timevm.engine.devices.base import InterruptLine, VirtualTime
from timevm.engine.devices.byte_access import ByteRegisters
from timevm.engine.devices.i8254 import I8254

TIMER_GATE, SPEAKER_DATA, NMI_DISABLES, REFRESH, TIMER_OUTPUT = 0x01, 0x02, 0x0C, 0x10, 0x20
#: the refresh bit toggles with every refresh of the memory: each 15.085 us
REFRESH_NS: Final = 15_085

FAST_RESET, GATE_A20 = 0x01, 0x02


class Port61(ByteRegisters):
    """A Device and Stateful.  There are no NMI sources, their status bits read as zero."""

    window = 1

    def __init__(self, name: str, timer: I8254, time: VirtualTime) -> None:
        self.name = name
        self._timer = timer
        self._time = time
        self.reset()

    def reset(self) -> None:
        self._stored = 0

    def state(self) -> dict[str, Any]:
        return {"stored": self._stored}

    def restore(self, state: dict[str, Any]) -> None:
        self._stored = state["stored"]

    def read(self, offset: int, size: int) -> int:
        """Boot loaders poll it some million times to measure the CPU against the timer: no detours."""
        now = self._time.now_ns()
        value = self._stored
        if self._timer.speaker_gate():
            value |= TIMER_GATE
        if self._timer.speaker_output(now):
            value |= TIMER_OUTPUT
        if now // REFRESH_NS & 1:
            value |= REFRESH
        return value if size == 1 else value | ((1 << 8 * size) - 1) & ~0xFF

    def write_byte(self, offset: int, value: int) -> None:
        self._stored = value & (SPEAKER_DATA | NMI_DISABLES)
        self._timer.set_speaker_gate(bool(value & TIMER_GATE))


class Port92(ByteRegisters):
    """A Device and Stateful.  ``reset_machine`` is called at a rising edge of the fast reset bit.

    ``gate_a20`` is address line 20, which the keyboard controller drives too: who wrote last decides.
    """

    window = 1

    def __init__(self, name: str, gate_a20: InterruptLine, reset_machine: Callable[[], None]) -> None:
        self.name = name
        self._gate_a20 = gate_a20
        self._reset_machine = reset_machine
        self.reset()

    def reset(self) -> None:
        self._stored = GATE_A20

    def state(self) -> dict[str, Any]:
        return {"stored": self._stored}

    def restore(self, state: dict[str, Any]) -> None:
        self._stored = state["stored"]

    def read_byte(self, offset: int) -> int:
        return self._stored

    def write_byte(self, offset: int, value: int) -> None:
        rising = value & ~self._stored & FAST_RESET
        self._stored = value
        self._gate_a20.set(bool(value & GATE_A20))
        if rising:
            self._reset_machine()
