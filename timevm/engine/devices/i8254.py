"""Programmable interval timer 8254 (Intel 231164): three counters on 1.193182 MHz of virtual time.

Counter 0 is the PC's timer interrupt, counter 2 its loudspeaker; the gate of counter 2 and its output are at port 61h.
"""

from __future__ import annotations

from typing import Any, Final

from timevm.engine.devices.base import InterruptLine, VirtualTime
from timevm.engine.devices.byte_access import ByteRegisters
from timevm.engine.devices.i8254_counter import Counter

FREQUENCY: Final = 1_193_182  # Hz: the colour burst of 14.31818 MHz / 12
SECOND_NS: Final = 1_000_000_000

CONTROL: Final = 3  # offset of the control word; the counters are at 0 to 2
# control word: counter number in bits 7 and 6 (3: read-back command), access in 5 and 4 (0: latch command)
READ_BACK: Final = 3
READ_BACK_NO_COUNT, READ_BACK_NO_STATUS = 0x20, 0x10
TIMER, SPEAKER = 0, 2


class I8254(ByteRegisters):
    """The chip: a Device and Stateful.  ``interrupt`` follows the rising edges of OUT0.

    Only rising edges cost a timer (the interrupt controller sees nothing else): the line falls just before it rises.
    """

    window = 4
    _speaker_until: int
    _speaker_level: bool

    def __init__(self, name: str, interrupt: InterruptLine, time: VirtualTime) -> None:
        self.name = name
        self._interrupt = interrupt
        self._time = time
        self._rise = time.timer(f"{name}.rise", self._rose)
        self._counters = (Counter(True), Counter(True), Counter(False))
        self.reset()

    def reset(self) -> None:
        for counter in self._counters:
            counter.reset()
        self._deadline: int | None = None  # tick of the next rising edge of OUT0
        self._level = False
        self._forget_speaker()

    def state(self) -> dict[str, Any]:
        return {
            "counters": [counter.state() for counter in self._counters],
            "deadline": self._deadline,
            "level": self._level,
        }

    def restore(self, state: dict[str, Any]) -> None:
        for counter, saved in zip(self._counters, state["counters"], strict=True):
            counter.restore(saved)
        self._deadline = state["deadline"]
        self._level = state["level"]
        self._forget_speaker()

    # port 61h

    def set_speaker_gate(self, level: bool) -> None:
        self._counters[SPEAKER].set_gate(level, self._tick())
        self._forget_speaker()

    def speaker_gate(self) -> bool:
        return self._counters[SPEAKER].gate

    def speaker_output(self, now_ns: int) -> bool:
        """OUT2 now.  Boot loaders poll it a million times to measure the CPU: what stays as it is is kept."""
        if now_ns < self._speaker_until:
            return self._speaker_level
        counter, tick = self._counters[SPEAKER], now_ns * FREQUENCY // SECOND_NS
        self._speaker_level = counter.output(tick)
        rise = counter.next_rise(tick)
        if not self._speaker_level and rise is not None:
            self._speaker_until = _first_ns_of(rise)
        return self._speaker_level

    def _forget_speaker(self) -> None:
        self._speaker_until = 0  # ns of virtual time up to which OUT2 is known to be `level`
        self._speaker_level = False

    # the guest

    def read_byte(self, offset: int) -> int:
        if offset == CONTROL:
            return 0xFF  # the data bus floats
        return self._counters[offset].read(self._tick())

    def write_byte(self, offset: int, value: int) -> None:
        tick = self._tick()
        if offset != CONTROL:
            self._counters[offset].write(value, tick)
        elif value >> 6 == READ_BACK:
            self._read_back(value, tick)
            return
        elif value >> 4 & 3 == 0:
            self._counters[value >> 6].latch_count(tick)
            return
        else:
            self._counters[value >> 6].control(value)
            offset = value >> 6
        if offset == TIMER:
            self._follow(tick)
        elif offset == SPEAKER:
            self._forget_speaker()

    def _read_back(self, command: int, tick: int) -> None:
        for number, counter in enumerate(self._counters):
            if command & 2 << number:
                if not command & READ_BACK_NO_COUNT:
                    counter.latch_count(tick)
                if not command & READ_BACK_NO_STATUS:
                    counter.latch_status(tick)

    # the interrupt

    def _tick(self) -> int:
        return self._time.now_ns() * FREQUENCY // SECOND_NS

    def _follow(self, tick: int) -> None:
        """OUT0 has a new future: show its present level and wait for its next rise."""
        counter = self._counters[TIMER]
        self._set(counter.output(tick))
        self._deadline = counter.next_rise(tick)
        if self._deadline is None:
            self._rise.cancel()
        else:
            self._rise.arm(_first_ns_of(self._deadline))

    def _rose(self) -> None:
        # A timer that was armed before a reset says nothing: the deadline went with the other registers.
        tick = self._tick()
        if self._deadline is not None and tick >= self._deadline:
            self._set(False)
            self._set(True)
            self._deadline = self._counters[TIMER].next_rise(tick)
            if self._deadline is not None:
                self._rise.arm(_first_ns_of(self._deadline))

    def _set(self, level: bool) -> None:
        if level != self._level:
            self._level = level
            self._interrupt.set(level)


def _first_ns_of(tick: int) -> int:
    """The first nanosecond of virtual time at which this tick has come."""
    return -(-tick * SECOND_NS // FREQUENCY)
