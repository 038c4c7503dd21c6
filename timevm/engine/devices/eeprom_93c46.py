"""Serial EEPROM 93C46 (64 words of 16 bits) on three wires, as network cards have it (Microchip DS21794)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final

WORDS: Final = 64
WORD_BITS: Final = 16
#: start bit, two of the operation, six of the address
COMMAND_BITS: Final = 9


class Operation(IntEnum):
    """The two bits behind the start bit; of OTHER the first two of the address say more."""

    OTHER = 0
    WRITE = 1
    READ = 2
    ERASE = 3


class Eeprom93c46:
    """Stateful, but for its interface: ``set_wires`` and ``data_out``.  ``words``: what it holds at power-on."""

    def __init__(self, words: Sequence[int]) -> None:
        self._initial = list(words) + [0xFFFF] * (WORDS - len(words))
        self.reset()

    def reset(self) -> None:
        self.words = list(self._initial)
        self._clock = False
        self._selected = False
        self._begin()
        self._writable = False

    def _begin(self) -> None:
        self._command = self._count = 0
        self._data = self._left = 0  # bits that go in or out
        self._operation: int | None = None
        self._address = 0
        self.data_out = True

    def state(self) -> dict[str, Any]:
        return {
            "words": list(self.words),
            "clock": self._clock,
            "selected": self._selected,
            "writable": self._writable,
            "command": self._command,
            "count": self._count,
            "data": self._data,
            "left": self._left,
            "operation": self._operation,
            "address": self._address,
            "data_out": self.data_out,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.words = list(state["words"])
        self._clock, self._selected, self._writable = state["clock"], state["selected"], state["writable"]
        self._command, self._count = state["command"], state["count"]
        self._data, self._left = state["data"], state["left"]
        self._operation, self._address = state["operation"], state["address"]
        self.data_out = state["data_out"]

    def set_wires(self, selected: bool, clock: bool, data_in: bool) -> None:
        rises = clock and not self._clock
        self._clock = clock
        if selected != self._selected:
            self._selected = selected
            self._begin()
        if selected and rises:
            self._take(data_in)

    def _take(self, bit: bool) -> None:
        """One bit in, and one out, at a rising clock."""
        if self._operation is None:
            if not self._count and not bit:
                return  # before the start bit
            self._command = self._command << 1 | bit
            self._count += 1
            if self._count == COMMAND_BITS:
                self._start(self._command >> 6 & 3, self._command & 63)
        elif self._operation == Operation.READ:
            if not self._left:  # the words follow each other
                self._address = (self._address + 1) % WORDS
                self._load()
            self._left -= 1
            self.data_out = bool(self._data >> self._left & 1)
        elif self._left:
            self._data = self._data << 1 | bit
            self._left -= 1
            if not self._left:
                self._store()

    def _start(self, operation: int, address: int) -> None:
        self._operation, self._address = operation, address
        match operation:
            case Operation.READ:
                self._load()
                self.data_out = False  # the dummy bit
            case Operation.WRITE:
                self._data, self._left = 0, WORD_BITS
            case Operation.ERASE:
                self._fill([address], 0xFFFF)
            case _:
                self._start_other(address >> 4)

    def _start_other(self, what: int) -> None:
        """Disable writing, write all, erase all, enable writing."""
        if what in (0, 3):
            self._writable = what == 3
        elif what == 1:
            self._data, self._left = 0, WORD_BITS
        else:
            self._fill(range(WORDS), 0xFFFF)

    def _load(self) -> None:
        self._data, self._left = self.words[self._address], WORD_BITS

    def _store(self) -> None:
        everywhere = self._operation == Operation.OTHER
        self._fill(range(WORDS) if everywhere else [self._address], self._data)

    def _fill(self, addresses: Sequence[int], value: int) -> None:
        if self._writable:
            for address in addresses:
                self.words[address] = value
        self.data_out = True  # ready
