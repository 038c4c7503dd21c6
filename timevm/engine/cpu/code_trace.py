"""Which code may have run: who looks for a breakpoint need not run again what cannot have come by it."""

from __future__ import annotations

import numpy as np
import zstandard

#: code is told apart by 64 bytes, and by the low bits of their number: two places 32 MiB apart are one here
GRANULE_SHIFT, GRANULES = 6, 1 << 19


class CodeTrace:
    """One for a CPU.  The native block hook marks (``note_executed``), 0.3 ns a block."""

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
    granule = address >> GRANULE_SHIFT & GRANULES - 1
    return bool(bits[granule >> 3] >> (7 - (granule & 7)) & 1)
