"""One counter of the programmable interval timer 8254 (Intel 231164), as a function of the clock tick.

Nothing counts: a counter keeps the tick at which its counting element was loaded, and what it shows at another tick
is arithmetic.  Ticks are those of the counter's CLK input, whole numbers.
"""

from __future__ import annotations

from typing import Any, Final

#: modes by the three bits of the control word: 6 and 7 are 2 and 3
MODES: Final = (0, 1, 2, 3, 4, 5, 2, 3)
INTERRUPT_ON_TERMINAL_COUNT, ONE_SHOT, RATE, SQUARE, SOFTWARE_STROBE, HARDWARE_STROBE = range(6)
PERIODIC: Final = (RATE, SQUARE)
#: modes that a rising edge of GATE starts
TRIGGERED: Final = (ONE_SHOT, HARDWARE_STROBE)

ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH = 1, 2, 3
#: of the status byte of a read-back command
STATUS_OUT, STATUS_NULL_COUNT = 0x80, 0x40

_REGISTERS: Final = (
    "gate", "mode", "decimal", "access", "count", "next_count", "next_from", "start", "paused", "held", "write_low",
    "write_high_next", "read_high_next", "latch", "status_latch",
)  # fmt: skip


class Counter:
    """``gate`` is the level of GATE at power-on.  Times are ticks; callers give the present one, never an earlier one.

    ``start`` is the tick at which the count was loaded (None: not counting, nothing was written or triggered yet),
    ``paused`` the ticks counted so far while GATE holds the counter.
    """

    def __init__(self, gate: bool) -> None:
        self._gate_at_reset = gate
        self.reset()

    def reset(self) -> None:
        self.gate = self._gate_at_reset
        self.mode = INTERRUPT_ON_TERMINAL_COUNT
        self._decimal = False
        self._access = ACCESS_BOTH
        self._count = 0
        self._next_count: int | None = None  # written, loaded at tick _next_from (periodic) or at the next trigger
        self._next_from: int | None = None
        self._start: int | None = None
        self._paused: int | None = None
        self._held = True  # OUT between a trigger and the tick that loads the count
        self._write_low = 0
        self._write_high_next = False
        self._read_high_next = False
        self._latch: int | None = None
        self._status_latch: int | None = None

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, self._attribute(name)) for name in _REGISTERS}

    def restore(self, state: dict[str, Any]) -> None:
        for name in _REGISTERS:
            setattr(self, self._attribute(name), state[name])

    @staticmethod
    def _attribute(name: str) -> str:
        return name if name in ("gate", "mode") else f"_{name}"

    # the guest

    def control(self, word: int) -> None:
        """A control word that is no latch command: bits 5 to 0."""
        self._access = word >> 4 & 3
        self.mode = MODES[word >> 1 & 7]
        self._decimal = bool(word & 1)
        self._start = self._paused = self._next_count = self._next_from = None
        self._held = True
        self._count = 0
        self._write_high_next = self._read_high_next = False
        self._latch = self._status_latch = None

    def latch_count(self, tick: int) -> None:
        if self._latch is None:
            self._latch = self.value(tick)

    def latch_status(self, tick: int) -> None:
        if self._status_latch is None:
            null = self._start is None or tick < self._start or self._next_count is not None
            self._status_latch = (
                STATUS_OUT * self.output(tick)
                | STATUS_NULL_COUNT * null
                | self._access << 4
                | self.mode << 1
                | self._decimal
            )

    def read(self, tick: int) -> int:
        if self._status_latch is not None:
            status, self._status_latch = self._status_latch, None
            return status
        value = self.value(tick) if self._latch is None else self._latch
        if self._access == ACCESS_LOW or (self._access == ACCESS_BOTH and not self._read_high_next):
            byte = value & 0xFF
        else:
            byte = value >> 8
        if self._access == ACCESS_BOTH:
            self._read_high_next = not self._read_high_next
        if not self._read_high_next:
            self._latch = None
        return byte

    def write(self, byte: int, tick: int) -> None:
        if self._access == ACCESS_LOW:
            self._load(byte, tick)
        elif self._access == ACCESS_HIGH:
            self._load(byte << 8, tick)
        elif self._write_high_next:
            self._write_high_next = False
            self._load(byte << 8 | self._write_low, tick)
        else:
            self._write_low = byte
            self._write_high_next = True
            if self.mode == INTERRUPT_ON_TERMINAL_COUNT:
                # "Writing the first byte disables counting.  OUT is set low immediately."
                self._start = self._paused = None

    def set_gate(self, level: bool, tick: int) -> None:
        self._settle(tick)
        rising, falling = level and not self.gate, self.gate and not level
        self.gate = level
        if self.mode in TRIGGERED:
            if rising and self._count_written():
                self._held = self.output(tick)
                self._take_next()
                self._start = tick + 1
        elif falling and self._start is not None:
            self._paused = max(0, tick - self._start)
        elif rising and self._paused is not None:
            if self.mode in PERIODIC:
                self._take_next()
                self._start = tick + 1
            else:
                # It goes on; a count written just now is still loaded by the next tick first.
                self._start = max(tick, self._start or 0) - self._paused
            self._paused = None

    # what it shows

    def output(self, tick: int) -> bool:
        """The level of OUT."""
        self._settle(tick)
        if self._start is None:
            return self.mode != INTERRUPT_ON_TERMINAL_COUNT
        if tick < self._start:
            return self._held if self.mode in TRIGGERED else self.mode != INTERRUPT_ON_TERMINAL_COUNT
        if self._paused is not None and self.mode in PERIODIC:
            return True
        elapsed = tick - self._start if self._paused is None else self._paused
        count = self._length()
        if self.mode in (INTERRUPT_ON_TERMINAL_COUNT, ONE_SHOT):
            return elapsed >= count
        if self.mode == RATE:
            return elapsed % count != count - 1
        if self.mode == SQUARE:
            return elapsed % count < (count + 1) // 2
        return elapsed != count

    def value(self, tick: int) -> int:
        """What the counting element holds, as the guest reads it (16 bits; decimal digits in decimal mode)."""
        self._settle(tick)
        count = self._length()
        if self._start is None or tick < self._start:
            return self._shown(count)
        elapsed = tick - self._start if self._paused is None else self._paused
        if self.mode == RATE:
            return self._shown(count - elapsed % count)
        if self.mode == SQUARE:
            # It counts down by two, from an even number, in each half; an odd count makes the high half one longer.
            half = (count + 1) // 2
            into = elapsed % count
            return self._shown((count & ~1) - 2 * (into if into < half else into - half))
        return self._shown(count - elapsed)

    def next_rise(self, tick: int) -> int | None:
        """The first tick after ``tick`` at which OUT goes from low to high; None if it does not by itself."""
        self._settle(tick)
        if self._start is None or self._paused is not None:
            return None
        count = self._length()
        if self.mode in (ONE_SHOT, INTERRUPT_ON_TERMINAL_COUNT):
            rise = self._start + count
        elif self.mode in PERIODIC:
            if count < 2:
                return None  # an illegal count: OUT does not move
            if self._next_from is not None:
                return self._rise_after_switch()
            if tick < self._start:
                return self._start + count
            rise = self._start + ((tick - self._start) // count + 1) * count
        elif tick < self._start and not self._held:
            rise = self._start  # a strobe that was triggered again in its last tick
        else:
            rise = self._start + count + 1
        return rise if rise > tick else None

    # its inside

    def _length(self) -> int:
        return self._ticks(self._count)

    def _ticks(self, digits: int) -> int:
        """Ticks of a count; zero stands for the largest one."""
        if not self._decimal:
            return digits or 0x10000
        return sum((digits >> 4 * place & 0xF) * 10**place for place in range(4)) or 10_000

    def _shown(self, value: int) -> int:
        if not self._decimal:
            return value & 0xFFFF
        value %= 10_000
        return sum(value // 10**place % 10 << 4 * place for place in range(4))

    def _count_written(self) -> bool:
        return self._next_count is not None or self._start is not None

    def _load(self, count: int, tick: int) -> None:
        self._settle(tick)
        if self.mode in TRIGGERED:
            if self._start is not None and tick < self._start:
                self._count = count  # triggered, and not loaded before the next tick
            else:
                self._next_count = count
        elif self.mode in PERIODIC and self._start is not None and tick >= self._start and self._paused is None:
            # The running cycle (rate) or half cycle (square) is finished first.
            length = self._length()
            into = (tick - self._start) % length
            boundary = length if self.mode == RATE or into >= (length + 1) // 2 else (length + 1) // 2
            self._next_count = count
            self._next_from = tick + boundary - into
        else:
            self._count = count
            self._next_count = self._next_from = None
            self._start = tick + 1
            self._paused = None if self.gate else 0

    def _take_next(self) -> None:
        if self._next_count is not None:
            self._count = self._next_count
        self._next_count = self._next_from = None

    def _settle(self, tick: int) -> None:
        """Load the count that was waiting for the end of its cycle, if that is over."""
        if self._next_from is not None and tick >= self._next_from:
            switch, low_follows = self._next_from, self._switch_is_after_high_half()
            self._take_next()
            self._start = switch - (self._length() + 1) // 2 if low_follows else switch

    def _switch_is_after_high_half(self) -> bool:
        assert self._start is not None and self._next_from is not None
        length = self._length()
        return self.mode == SQUARE and (self._next_from - 1 - self._start) % length < (length + 1) // 2

    def _rise_after_switch(self) -> int:
        assert self._next_from is not None and self._next_count is not None
        if not self._switch_is_after_high_half():
            return self._next_from
        return self._next_from + self._ticks(self._next_count) // 2
