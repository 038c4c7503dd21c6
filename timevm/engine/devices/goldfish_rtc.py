"""The Goldfish real-time clock (Google's "Goldfish virtual hardware"; QEMU's ``goldfish_rtc.c``): ns since 1970.

Time and alarm have 64 bits in two registers.  A read of the low half of the time keeps the high half for the read that
follows; a write of the low half of the alarm sets it.
"""

from __future__ import annotations

from typing import Any, Final

from timevm.engine.devices.base import InterruptLine, VirtualTime
from timevm.engine.devices.compare_timer import ENDLESS_NS
from timevm.engine.devices.word_access import WordRegisters

(
    TIME_LOW,
    TIME_HIGH,
    ALARM_LOW,
    ALARM_HIGH,
    INTERRUPT_ENABLE,
    CLEAR_ALARM,
    ALARM_STATUS,
    CLEAR_INTERRUPT,
) = range(0, 0x20, 4)

SECOND_NS: Final = 1_000_000_000
_ALL, _LOW = (1 << 64) - 1, 0xFFFF_FFFF
_REGISTERS: Final = ("offset", "high", "alarm", "running", "pending", "enabled", "level")


class GoldfishRtc(WordRegisters):
    """A Device and Stateful.  ``base_seconds`` is the date at reset, in seconds since 1970 (UTC)."""

    window = 0x1000

    def __init__(self, name: str, interrupt: InterruptLine, time: VirtualTime, base_seconds: int) -> None:
        self.name = name
        self._interrupt = interrupt
        self._time = time
        self._base = base_seconds * SECOND_NS & _ALL
        self._timer = time.timer(f"{name}.alarm", self._alarm_fired)
        self.reset()

    def reset(self) -> None:
        self._offset = self._base  # the clock shows virtual time + offset, modulo 2**64
        self._high = 0
        self._alarm = 0
        self._running = False
        self._pending = False
        self._enabled = False
        self._level = False

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, f"_{name}") for name in _REGISTERS}

    def restore(self, state: dict[str, Any]) -> None:
        for name in _REGISTERS:
            setattr(self, f"_{name}", state[name])

    def read_word(self, offset: int) -> int:
        if offset == TIME_LOW:
            now = self._now()
            self._high = now >> 32
            return now & _LOW
        if offset == TIME_HIGH:
            return self._high
        if offset == ALARM_LOW:
            return self._alarm & _LOW
        if offset == ALARM_HIGH:
            return self._alarm >> 32
        if offset == INTERRUPT_ENABLE:
            return int(self._enabled)
        if offset == ALARM_STATUS:
            return int(self._running)
        return 0

    def write_word(self, offset: int, value: int) -> None:
        if offset in (TIME_LOW, TIME_HIGH):
            now = self._now()
            new = now & ~_LOW | value if offset == TIME_LOW else now & _LOW | value << 32
            self._offset = self._offset + new - now & _ALL
            if self._running:
                self._set_alarm()
        elif offset == ALARM_LOW:
            self._alarm = self._alarm & ~_LOW | value
            self._set_alarm()
        elif offset == ALARM_HIGH:
            self._alarm = self._alarm & _LOW | value << 32
        elif offset == INTERRUPT_ENABLE:
            self._enabled = bool(value & 1)
        elif offset == CLEAR_ALARM:
            self._running = False
            self._timer.cancel()
        elif offset == CLEAR_INTERRUPT:
            self._pending = False
        else:
            return
        self._update()

    def _now(self) -> int:
        return self._time.now_ns() + self._offset & _ALL

    def _set_alarm(self) -> None:
        """A time that has passed rings at once."""
        ahead = self._alarm - self._now()
        deadline = self._time.now_ns() + ahead
        self._running = ahead > 0
        if self._running and deadline < ENDLESS_NS:
            self._timer.arm(deadline)
        else:
            self._timer.cancel()
            self._pending = self._pending or not self._running

    def _alarm_fired(self) -> None:
        # a timer that was armed before a reset says nothing
        if self._running and self._now() >= self._alarm:
            self._running = False
            self._pending = True
            self._update()

    def _update(self) -> None:
        level = self._pending and self._enabled
        if level != self._level:
            self._level = level
            self._interrupt.set(level)
