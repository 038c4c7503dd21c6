"""Which code may have run: who looks for a breakpoint need not run again what cannot have come by it."""

from __future__ import annotations

import numpy as np
import zstandard

#: code is told apart by 64 bytes, and by the low bits of their number, mixed with higher ones
GRANULE_SHIFT, GRANULES_BITS = 6, 19
GRANULES = 1 << GRANULES_BITS


def place_of(address: int) -> int:
    """Its mark: as in ``native/code_trace.h``."""
    granule = (address & (1 << 64) - 1) >> GRANULE_SHIFT
    return (granule ^ granule >> GRANULES_BITS << 16) & GRANULES - 1


class CodeTrace:
    """One for a CPU.  Translated code marks itself (``native/inlined.h``): 1 % of a Linux boot."""

    def __init__(self) -> None:
        self._marks = np.zeros(GRANULES, dtype=np.uint8)
        self._compressor = zstandard.ZstdCompressor(level=1)

    @property
    def address(self) -> int:
        """Of the marks, for native code."""
        return self._marks.ctypes.data

    def take(self) -> bytes:
        """What may have run since the last ``take`` or ``clear``, some KiB; 0.2 ms."""
        bits = np.packbits(self._marks).tobytes()
        self.clear()
        return self._compressor.compress(bits)

    def clear(self) -> None:
        """20 us."""
        self._marks.fill(0)


def may_have_run(taken: bytes, address: int) -> bool:
    """Whether ``taken`` (what ``CodeTrace.take`` gave) holds an instruction at this virtual address.  0.02 ms."""
    bits = zstandard.ZstdDecompressor().decompress(taken, max_output_size=GRANULES // 8)
    place = place_of(address)
    return bool(bits[place >> 3] >> (7 - (place & 7)) & 1)
