"""A timer that compares a counter of virtual time with a number: RISC-V's mtimecmp, and the SBI's set_timer.

Its line is up from the moment at which the counter reaches the number until a later one is written (RISC-V Privileged
Architecture, 3.2.1).
"""

from __future__ import annotations

from typing import Any, Final

from timevm.engine.devices.base import InterruptLine, VirtualTime

#: what the guest writes when it wants no interrupt
NEVER: Final = (1 << 64) - 1
#: virtual ns that no machine lives to see: 292 years
ENDLESS_NS: Final = 1 << 63


class CompareTimer:
    """Stateful.  ``tick_ns``: virtual ns of one count; the counter has 64 bits."""

    def __init__(self, name: str, line: InterruptLine, time: VirtualTime, tick_ns: int) -> None:
        self.name = name
        self.tick_ns = tick_ns
        self._line = line
        self._time = time
        self._timer = time.timer(name, self._update)
        self.reset()

    def reset(self) -> None:
        self.compare = NEVER
        self._level = False

    def state(self) -> dict[str, Any]:
        return {"compare": self.compare, "level": self._level}

    def restore(self, state: dict[str, Any]) -> None:
        self.compare = state["compare"]
        self._level = state["level"]

    def counter(self) -> int:
        return self._time.now_ns() // self.tick_ns & NEVER

    def set_compare(self, ticks: int) -> None:
        """``ticks`` has 64 bits."""
        self.compare = ticks
        deadline = ticks * self.tick_ns
        if self.counter() < ticks and deadline < ENDLESS_NS:
            self._timer.arm(deadline)
        else:
            self._timer.cancel()
        self._update()

    def _update(self) -> None:
        level = self.counter() >= self.compare
        if level != self._level:
            self._level = level
            self._line.set(level)
