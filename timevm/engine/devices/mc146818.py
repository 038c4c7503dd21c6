"""Real-time clock and CMOS memory MC146818 (Motorola MC146818A), 128 bytes behind an index and a data port.

The clock counts virtual time from the date it is given.  Its flags are functions of the time since register C was
last read, so that only enabled interrupts cost a timer.  An update takes no time; "update in progress" shows the
244 us before it, which is what the data sheet lets programs rely on.  The day of the week follows from the date.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from timevm.engine.devices.base import InterruptLine, VirtualTime
from timevm.engine.devices.byte_access import ByteRegisters
from timevm.engine.devices.mc146818_calendar import (
    CENTURY,
    HOURS_ALARM,
    MINUTES_ALARM,
    SECONDS_ALARM,
    TIME_BYTES,
    Format,
    next_alarm,
    seconds_of,
    time_bytes,
)

A, B, C, D = 0x0A, 0x0B, 0x0C, 0x0D
#: another name of the century's byte, from IBM's PS/2
CENTURY_PS2: Final = 0x37
SIZE: Final = 128

A_UPDATE_IN_PROGRESS, A_DIVIDER, A_DIVIDER_RUNS, A_DIVIDER_RESET, A_RATE = 0x80, 0x70, 0x20, 0x60, 0x0F
B_SET, B_PERIODIC, B_ALARM, B_UPDATE, B_BINARY, B_24_HOURS = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
C_INTERRUPT, C_PERIODIC, C_ALARM, C_UPDATE = 0x80, 0x40, 0x20, 0x10
FLAGS: Final = C_PERIODIC | C_ALARM | C_UPDATE
D_VALID: Final = 0x80

SECOND_NS: Final = 1_000_000_000
UPDATE_WARNING_NS: Final = 244_000
#: Hz of the crystal's divider chain, from which periodic interrupts are taken
CRYSTAL: Final = 32_768


class Mc146818(ByteRegisters):
    """A Device and Stateful.  ``base_seconds`` is the date at reset, in seconds since 1970.

    ``contents`` are bytes of the memory at power-on: what firmware looks for there is the board's business.
    """

    window = 2

    def __init__(
        self, name: str, interrupt: InterruptLine, time: VirtualTime, base_seconds: int, contents: Mapping[int, int]
    ) -> None:
        self.name = name
        self._interrupt = interrupt
        self._time = time
        self._base_ns = base_seconds * SECOND_NS
        self._contents = dict(contents)
        self._event = time.timer(f"{name}.event", self._event_came)
        self.reset()

    def reset(self) -> None:
        self._memory = bytearray(SIZE)
        for index, value in self._contents.items():
            self._memory[index] = value
        self._memory[A] = A_DIVIDER_RUNS | 6
        self._memory[B] = B_24_HOURS
        self._index = 0
        self._offset = self._base_ns  # ns since 1970 are virtual time + offset, while the clock runs
        self._flags = 0  # of register C, up to virtual time `since`
        self._since = 0
        self._deadline: int | None = None
        self._level = False

    def state(self) -> dict[str, Any]:
        return {
            "memory": bytes(self._memory),
            "index": self._index,
            "offset": self._offset,
            "flags": self._flags,
            "since": self._since,
            "deadline": self._deadline,
            "level": self._level,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._memory = bytearray(state["memory"])
        self._index = state["index"]
        self._offset = state["offset"]
        self._flags = state["flags"]
        self._since = state["since"]
        self._deadline = state["deadline"]
        self._level = state["level"]

    # the guest

    def read_byte(self, offset: int) -> int:
        """The index port is write-only."""
        if offset == 0:
            return 0xFF
        index = CENTURY if self._index == CENTURY_PS2 else self._index
        if index == C:
            return self._read_flags()
        if index == D:
            return D_VALID
        if index == A:
            return self._memory[A] | A_UPDATE_IN_PROGRESS * self._update_is_near()
        if index in TIME_BYTES and self._runs():
            return time_bytes(self._seconds(self._time.now_ns()), self._format())[index]
        return self._memory[index]

    def write_byte(self, offset: int, value: int) -> None:
        if offset == 0:
            self._index = value & SIZE - 1  # bit 7 masks NMI, of which there is none
            return
        index = CENTURY if self._index == CENTURY_PS2 else self._index
        if index in (C, D):
            return
        now = self._time.now_ns()
        self._latch_flags(now)
        if index in (A, B):
            self._configure(index, value, now)
        elif index in TIME_BYTES and self._runs():
            self._stop(now)
            self._memory[index] = value
            self._start(now, now % SECOND_NS + self._offset % SECOND_NS)
        else:
            self._memory[index] = value
            if index not in (SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM):
                return
        self._follow(now)

    def _read_flags(self) -> int:
        now = self._time.now_ns()
        self._latch_flags(now)
        value = self._flags
        if value & self._memory[B]:
            value |= C_INTERRUPT
        self._flags = 0
        self._follow(now)
        return value

    def _configure(self, index: int, value: int, now: int) -> None:
        ran = self._runs()
        divider_was_reset = self._memory[A] & A_DIVIDER_RESET == A_DIVIDER_RESET
        if ran:
            self._stop(now)
        if index == A:
            self._memory[A] = value & ~A_UPDATE_IN_PROGRESS
        else:
            # SET also clears the update interrupt's enable bit.
            self._memory[B] = value & ~B_UPDATE if value & B_SET else value
        if self._runs():
            if ran:
                self._start(now, (now + self._offset) % SECOND_NS)
            else:
                # The first update comes half a second after the divider starts; SET alone leaves the divider running.
                self._start(now, SECOND_NS // 2 if divider_was_reset else (now + self._offset) % SECOND_NS)

    # the clock

    def _format(self) -> Format:
        return Format(bool(self._memory[B] & B_BINARY), bool(self._memory[B] & B_24_HOURS))

    def _runs(self) -> bool:
        return not self._memory[B] & B_SET and self._memory[A] & A_DIVIDER == A_DIVIDER_RUNS

    def _seconds(self, now: int) -> int:
        return (now + self._offset) // SECOND_NS

    def _update_is_near(self) -> bool:
        return self._runs() and (self._time.now_ns() + self._offset) % SECOND_NS >= SECOND_NS - UPDATE_WARNING_NS

    def _stop(self, now: int) -> None:
        """The time goes into the memory, where it can be set."""
        for index, byte in time_bytes(self._seconds(now), self._format()).items():
            self._memory[index] = byte

    def _start(self, now: int, into_second: int) -> None:
        """The clock goes on from the time in the memory, ``into_second`` ns after the last update."""
        self._offset = seconds_of(self._memory, self._format()) * SECOND_NS + into_second % SECOND_NS - now

    # flags and interrupt

    def _period(self) -> int:
        """Ticks of the crystal between two periodic interrupts; 0: none."""
        rate = self._memory[A] & A_RATE
        if rate == 0 or self._memory[A] & A_DIVIDER_RESET == A_DIVIDER_RESET:
            return 0
        return 1 << (rate + 7 if rate < 3 else rate) - 1

    def _latch_flags(self, now: int) -> None:
        """Bring the flags up to date; to be done before anything changes that they depend on."""
        since, self._since = self._since, now
        period = self._period()
        if period and now * CRYSTAL // SECOND_NS // period > since * CRYSTAL // SECOND_NS // period:
            self._flags |= C_PERIODIC
        if self._runs():
            before, after = self._seconds(since), self._seconds(now)
            if after > before:
                self._flags |= C_UPDATE
                alarm = next_alarm(before, self._memory, self._format())
                if alarm is not None and alarm <= after:
                    self._flags |= C_ALARM

    def _follow(self, now: int) -> None:
        """Show the interrupt's level, and wait for the next one if there is none."""
        enabled = self._memory[B] & FLAGS
        self._set(bool(self._flags & enabled))
        self._deadline = None if self._level else self._next_event(enabled, now)
        if self._deadline is None:
            self._event.cancel()
        else:
            self._event.arm(self._deadline)

    def _next_event(self, enabled: int, now: int) -> int | None:
        """ns of virtual time of the first enabled interrupt after ``now``."""
        events: list[int] = []
        period = self._period()
        if enabled & B_PERIODIC and period:
            tick = (now * CRYSTAL // SECOND_NS // period + 1) * period
            events.append(-(-tick * SECOND_NS // CRYSTAL))
        if self._runs():
            second = self._seconds(now)
            if enabled & B_UPDATE:
                events.append((second + 1) * SECOND_NS - self._offset)
            if enabled & B_ALARM:
                alarm = next_alarm(second, self._memory, self._format())
                if alarm is not None:
                    events.append(alarm * SECOND_NS - self._offset)
        return min(events, default=None)

    def _event_came(self) -> None:
        # A timer that was armed before a reset says nothing: the deadline went with the other registers.
        now = self._time.now_ns()
        if self._deadline is not None and now >= self._deadline:
            self._latch_flags(now)
            self._follow(now)

    def _set(self, level: bool) -> None:
        if level != self._level:
            self._level = level
            self._interrupt.set(level)
