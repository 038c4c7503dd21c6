"""Interrupt inputs with several devices on one wire: the wire is high while one of them pulls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timevm.engine.devices.base import InterruptLine


class SharedLines:
    """Stateful.  ``set_line(number, level)`` drives input ``number`` (0 to ``count`` - 1) when its level changes."""

    def __init__(self, name: str, count: int, set_line: Callable[[int, bool], None]) -> None:
        self.name = name
        self._set_line = set_line
        self._count = count
        self._sources = [0] * count  # how many devices each input has
        self.reset()

    def reset(self) -> None:
        self._pulled = [0] * self._count  # by input: one bit for each device

    def state(self) -> dict[str, Any]:
        return {"pulled": list(self._pulled)}

    def restore(self, state: dict[str, Any]) -> None:
        self._pulled = list(state["pulled"])

    def source(self, number: int) -> InterruptLine:
        """A new device's wire to input ``number``."""
        bit = 1 << self._sources[number]
        self._sources[number] += 1
        return _Source(self, number, bit)

    def pull(self, number: int, bit: int, level: bool) -> None:
        before = self._pulled[number]
        after = before | bit if level else before & ~bit
        self._pulled[number] = after
        if bool(after) != bool(before):
            self._set_line(number, bool(after))


class _Source:
    __slots__ = ("_bit", "_lines", "_number")

    def __init__(self, lines: SharedLines, number: int, bit: int) -> None:
        self._lines, self._number, self._bit = lines, number, bit

    def set(self, level: bool) -> None:
        self._lines.pull(self._number, self._bit, level)
