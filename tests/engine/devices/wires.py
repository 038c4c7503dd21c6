"""What a device is connected to in these tests: wires and a clock that remember."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Wire:
    """An interrupt line that logs every call, and in ``log`` too, which it may share with others."""

    def __init__(self, log: list[Any] | None = None) -> None:
        self.level = False
        self.calls: list[bool] = []
        self._log = [] if log is None else log

    def set(self, level: bool) -> None:
        self.level = level
        self.calls.append(level)
        self._log.append(level)


class ManualTimer:
    def __init__(self, fire: Callable[[], None], log: list[Any] | None = None) -> None:
        self.fire = fire
        self.deadline: int | None = None
        self.calls = 0
        self._log = [] if log is None else log

    def arm(self, deadline_ns: int) -> None:
        self.deadline = deadline_ns
        self.calls += 1
        self._log.append(deadline_ns)

    def cancel(self) -> None:
        self.deadline = None
        self.calls += 1
        self._log.append(None)


class ManualTime:
    """Virtual time that moves when the test says so; ``log`` gets each time that a timer is armed for."""

    def __init__(self, log: list[Any] | None = None) -> None:
        self.now = 0
        self.timers: dict[str, ManualTimer] = {}
        self._log = log

    def now_ns(self) -> int:
        return self.now

    def timer(self, name: str, fire: Callable[[], None]) -> ManualTimer:
        assert name not in self.timers
        self.timers[name] = ManualTimer(fire, self._log)
        return self.timers[name]

    def advance(self, ns: int) -> None:
        self.now += ns
        for timer in self.timers.values():
            if timer.deadline is not None and timer.deadline <= self.now:
                timer.deadline = None
                timer.fire()
