"""Which code ran: who looks for a breakpoint need not run again what did not come by it.

Every block that is translated gets a number, and sets its byte whenever it runs (``native/code_trace.h``): one store.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_uint64, c_void_p

import numpy as np
import numpy.typing as npt
import zstandard

#: blocks that are numbered; then all translations are dropped, to begin anew.  A Linux boot translates 60 000
CAPACITY = 1 << 19


class _Table(ctypes.Structure):
    """``struct code_trace``."""

    _fields_ = [("ran", c_void_p), ("blocks", c_void_p), ("count", c_uint64), ("capacity", c_uint64)]


class NumberedBlocks:
    """Address and bytes of each block, by its number; more may come."""

    def __init__(self) -> None:
        #: shape ``[CAPACITY, 2]``; host memory is taken by what is used
        self.places: npt.NDArray[np.uint64] = np.zeros((CAPACITY, 2), dtype=np.uint64)
        self._asked: dict[int, tuple[int, list[int]]] = {}

    def at(self, address: int, count: int) -> list[int]:
        """Numbers of the blocks that hold this address, of at least the first ``count``.  0.2 ms for 100 000 blocks;
        nothing when the same was asked before."""
        known, numbers = self._asked.get(address, (0, []))
        if known < count:
            places = self.places[known:count]
            distance = np.uint64(address & (1 << 64) - 1) - places[:, 0]  # of those behind it: wraps to very far
            numbers = [*numbers, *(np.flatnonzero(distance < places[:, 1]) + known).tolist()]
            self._asked[address] = count, numbers
        return numbers


class CodeThatRan:
    """Blocks that ran at a time: a bit for each, compressed to some KiB."""

    def __init__(self, blocks: NumberedBlocks, count: int, bits: bytes) -> None:
        """``bits`` of the first ``count`` blocks, packed and compressed."""
        self._blocks = blocks
        self._count = count
        self._bits = bits

    def holds(self, address: int) -> bool:
        """Whether a block ran that holds this virtual address.  0.02 ms."""
        numbers = self._blocks.at(address, self._count)
        if not numbers:
            return False
        bits = zstandard.ZstdDecompressor().decompress(self._bits, max_output_size=CAPACITY // 8)
        return any(number < self._count and bits[number >> 3] >> (7 - (number & 7)) & 1 for number in numbers)


class CodeTrace:
    """One for a CPU.  Costs about 1 % of a Linux boot."""

    def __init__(self, drop_translations: Callable[[], None]) -> None:
        """``drop_translations``: all code of the CPU is translated anew, with numbers given here."""
        self._drop_translations = drop_translations
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._ran = np.zeros(CAPACITY, dtype=np.uint8)
        self._blocks = NumberedBlocks()
        self._table = _Table(self._ran.ctypes.data, self._blocks.places.ctypes.data, 0, CAPACITY)

    @property
    def address(self) -> int:
        """Of the native table."""
        return ctypes.addressof(self._table)

    def take(self) -> CodeThatRan:
        """What ran since the last ``take`` or ``clear``.  0.1 ms; the CPU stands."""
        count, blocks = int(self._table.count), self._blocks
        bits = self._compressor.compress(np.packbits(self._ran[:count]).tobytes())
        self.clear()
        return CodeThatRan(blocks, count, bits)

    def clear(self) -> None:
        """0.01 ms; the CPU stands."""
        self._ran[: int(self._table.count)] = 0
        if self._table.count == CAPACITY:
            self._blocks = NumberedBlocks()
            self._table.blocks, self._table.count = self._blocks.places.ctypes.data, 0
            self._drop_translations()
