"""What a device is connected to in these tests: wires and a clock that remember."""

from __future__ import annotations

from collections.abc import Callable


class Wire:
    """An interrupt line that logs every call."""

    def __init__(self) -> None:
        self.level = False
        self.calls: list[bool] = []

    def set(self, level: bool) -> None:
        self.level = level
        self.calls.append(level)


class ManualTimer:
    def __init__(self, fire: Callable[[], None]) -> None:
        self.fire = fire
        self.deadline: int | None = None
        self.calls = 0

    def arm(self, deadline_ns: int) -> None:
        self.deadline = deadline_ns
        self.calls += 1

    def cancel(self) -> None:
        self.deadline = None
        self.calls += 1


class ManualTime:
    """Virtual time that moves when the test says so."""

    def __init__(self) -> None:
        self.now = 0
        self.timers: dict[str, ManualTimer] = {}

    def now_ns(self) -> int:
        return self.now

    def timer(self, name: str, fire: Callable[[], None]) -> ManualTimer:
        assert name not in self.timers
        self.timers[name] = ManualTimer(fire)
        return self.timers[name]

    def advance(self, ns: int) -> None:
        self.now += ns
        for timer in self.timers.values():
            if timer.deadline is not None and timer.deadline <= self.now:
                timer.deadline = None
                timer.fire()
