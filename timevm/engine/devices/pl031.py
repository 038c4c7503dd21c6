"""PrimeCell real time clock PL031 (Arm DDI 0224), counting seconds of virtual time.

As in QEMU the counter runs from reset (RTCCR reads as 1; the specification lets nobody stop it either), and the alarm
is set by a write of RTCMR: until the first one nothing is compared, or the power-on match value of zero would be a
timer that an idle machine jumps to.
"""

from __future__ import annotations

from typing import Any, Final

from timevm.engine.devices.base import InterruptLine, VirtualTime
from timevm.engine.devices.word_access import WordRegisters

# register offsets, DDI 0224 table 3-1
DR, MR, LR, CR, IMSC, RIS, MIS, ICR = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18, 0x1C
#: RTCPeriphID0-3 and RTCPCellID0-3, from 0xFE0
IDENTIFICATION: Final = dict(zip(range(0xFE0, 0x1000, 4), bytes.fromhex("31 10 04 00 0D F0 05 B1"), strict=True))

SECOND_NS: Final = 1_000_000_000
COUNTER: Final = 0xFFFFFFFF


class Pl031(WordRegisters):
    """The clock: a Device and Stateful.  ``base_seconds`` is the date at reset, in seconds since 1970 (UTC)."""

    window = 0x1000

    def __init__(self, name: str, interrupt: InterruptLine, time: VirtualTime, base_seconds: int) -> None:
        self.name = name
        self._interrupt = interrupt
        self._time = time
        self._base = base_seconds & COUNTER
        self._alarm = time.timer(f"{name}.alarm", self._alarm_fired)
        self.reset()

    def reset(self) -> None:
        self._offset = self._base  # counter = whole seconds of virtual time + offset, modulo 2**32
        self._loaded = 0
        self._match = 0
        self._deadline: int | None = None  # ns of virtual time
        self._mask = False
        self._raw = False
        self._level = False

    def state(self) -> dict[str, Any]:
        return {
            "offset": self._offset,
            "loaded": self._loaded,
            "match": self._match,
            "deadline": self._deadline,
            "mask": self._mask,
            "raw": self._raw,
            "level": self._level,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._offset = state["offset"]
        self._loaded = state["loaded"]
        self._match = state["match"]
        self._deadline = state["deadline"]
        self._mask = state["mask"]
        self._raw = state["raw"]
        self._level = state["level"]

    def read_word(self, offset: int) -> int:
        if offset == DR:
            return self._counter()
        if offset == MR:
            return self._match
        if offset == LR:
            return self._loaded
        if offset == CR:
            return 1
        if offset == IMSC:
            return int(self._mask)
        if offset == RIS:
            return int(self._raw)
        if offset == MIS:
            return int(self._raw and self._mask)
        return IDENTIFICATION.get(offset, 0)

    def write_word(self, offset: int, value: int) -> None:
        if offset == MR:
            self._match = value
            self._set_alarm()
        elif offset == LR:
            self._loaded = value
            self._offset = value - self._time.now_ns() // SECOND_NS & COUNTER
            if self._deadline is not None:
                self._set_alarm()
        elif offset == IMSC:
            self._mask = bool(value & 1)
        elif offset == ICR:
            if value & 1:
                self._raw = False
        else:
            return
        self._update()

    def _counter(self) -> int:
        return self._time.now_ns() // SECOND_NS + self._offset & COUNTER

    def _set_alarm(self) -> None:
        """The alarm rings when the counter takes on the match value: at the start of that second."""
        seconds = self._match - self._counter() & COUNTER
        self._deadline = (self._time.now_ns() // SECOND_NS + seconds) * SECOND_NS
        if seconds:
            self._alarm.arm(self._deadline)
        else:
            self._alarm.cancel()
            self._raw = True

    def _alarm_fired(self) -> None:
        # A timer that was armed before a reset says nothing: the deadline went with the other registers.
        if self._deadline is not None and self._time.now_ns() >= self._deadline:
            self._raw = True
            self._update()

    def _update(self) -> None:
        level = self._raw and self._mask
        if level != self._level:
            self._level = level
            self._interrupt.set(level)
