"""PrimeCell general purpose I/O PL061 (Arm DDI 0190): eight lines, each an input or an output.

Nothing on our boards listens to its outputs.  Level-sensitive interrupts are not latched: they follow the line (2.3.1:
the source must hold the level; GPIOIC clears the edge detection only).
"""

from __future__ import annotations

from typing import Any, Final

from timevm.engine.devices.base import InterruptLine
from timevm.engine.devices.word_access import WordRegisters
from timevm.errors import InternalError

# register offsets, DDI 0190 table 3-1; GPIODATA takes up 0x000 to 0x3FC: address bits 9 to 2 say which lines are meant
DIR, IS, IBE, IEV, IE, RIS, MIS, IC, AFSEL = 0x400, 0x404, 0x408, 0x40C, 0x410, 0x414, 0x418, 0x41C, 0x420
#: GPIOPeriphID0-3 and GPIOPCellID0-3, from 0xFE0
IDENTIFICATION: Final = dict(zip(range(0xFE0, 0x1000, 4), bytes.fromhex("61 10 04 00 0D F0 05 B1"), strict=True))

LINES: Final = 8
ALL: Final = 0xFF


class Pl061(WordRegisters):
    """The GPIO: a Device and Stateful.  The lines from outside come in through ``line``."""

    window = 0x1000

    def __init__(self, name: str, interrupt: InterruptLine) -> None:
        self.name = name
        self._interrupt = interrupt
        self.reset()

    def reset(self) -> None:
        """All lines are inputs, and low until somebody drives them."""
        self._pins = 0  # levels from outside
        self._output = 0
        self._direction = 0  # 1: output
        self._sense = 0  # 1: level, 0: edge
        self._both_edges = 0
        self._event = 0  # 1: rising or high, 0: falling or low
        self._enabled = 0
        self._edges = 0  # seen and not cleared
        self._alternate = 0
        self._level = False

    def state(self) -> dict[str, Any]:
        return {
            "pins": self._pins,
            "output": self._output,
            "direction": self._direction,
            "sense": self._sense,
            "both_edges": self._both_edges,
            "event": self._event,
            "enabled": self._enabled,
            "edges": self._edges,
            "alternate": self._alternate,
            "level": self._level,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._pins = state["pins"]
        self._output = state["output"]
        self._direction = state["direction"]
        self._sense = state["sense"]
        self._both_edges = state["both_edges"]
        self._event = state["event"]
        self._enabled = state["enabled"]
        self._edges = state["edges"]
        self._alternate = state["alternate"]
        self._level = state["level"]

    def line(self, number: int) -> InterruptLine:
        """The wire into line ``number`` (0 to 7), for what drives it."""
        if not 0 <= number < LINES:
            raise InternalError(f"a PL061 has lines 0 to {LINES - 1}, not {number}: correct the board")
        return _Wire(self, number)

    def set_pin(self, number: int, level: bool) -> None:
        """The level of line ``number`` from outside; unseen while the line is an output."""
        before = self._inputs()
        self._pins = self._pins & ~(1 << number) | int(level) << number
        self._watch_edges(before)
        self._update()

    def read_word(self, offset: int) -> int:
        if offset < DIR:
            return (self._inputs() | self._output & self._direction) & offset >> 2
        if offset == DIR:
            return self._direction
        if offset == IS:
            return self._sense
        if offset == IBE:
            return self._both_edges
        if offset == IEV:
            return self._event
        if offset == IE:
            return self._enabled
        if offset == RIS:
            return self._raw()
        if offset == MIS:
            return self._raw() & self._enabled
        if offset == AFSEL:
            return self._alternate
        return IDENTIFICATION.get(offset, 0)

    def write_word(self, offset: int, value: int) -> None:
        value &= ALL
        if offset < DIR:
            # What is written to an input is lost (Linux, drivers/gpio/gpio-pl061.c, writes it again therefore).
            lines = offset >> 2 & self._direction
            self._output = self._output & ~lines | value & lines
        elif offset == DIR:
            self._direction = value
            self._output &= value
        elif offset == IS:
            self._sense = value
        elif offset == IBE:
            self._both_edges = value
        elif offset == IEV:
            self._event = value
        elif offset == IE:
            self._enabled = value
        elif offset == IC:
            self._edges &= ~value
        elif offset == AFSEL:
            self._alternate = value
        else:
            return
        self._update()

    def _inputs(self) -> int:
        return self._pins & ~self._direction

    def _watch_edges(self, before: int) -> None:
        """A change of an edge-sensitive input is noted if it is of the kind that the guest wants to hear of."""
        now = self._inputs()
        wanted = self._both_edges | ~(now ^ self._event)
        self._edges |= (now ^ before) & wanted & ~self._sense & ALL

    def _raw(self) -> int:
        matching = ~(self._inputs() ^ self._event) & ~self._direction
        return (self._edges & ~self._sense | matching & self._sense) & ALL

    def _update(self) -> None:
        level = bool(self._raw() & self._enabled)
        if level != self._level:
            self._level = level
            self._interrupt.set(level)


class _Wire:
    """One line of the PL061, seen from outside."""

    __slots__ = ("_gpio", "_number")

    def __init__(self, gpio: Pl061, number: int) -> None:
        self._gpio = gpio
        self._number = number

    def set(self, level: bool) -> None:
        self._gpio.set_pin(self._number, level)
