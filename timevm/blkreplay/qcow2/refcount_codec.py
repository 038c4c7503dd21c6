"""Reference count blocks ↔ numpy arrays, for every width that the format has (1 … 64 bits)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

#: one block's counts, of the narrowest type that holds them
Counts: TypeAlias = npt.NDArray[Any]

_STORED: dict[int, Any] = {3: np.dtype("u1"), 4: np.dtype(">u2"), 5: np.dtype(">u4"), 6: np.dtype(">u8")}
_HELD: dict[int, Any] = {order: np.dtype(np.uint8) for order in range(3)} | {
    3: np.dtype(np.uint8),
    4: np.dtype(np.uint16),
    5: np.dtype(np.uint32),
    6: np.dtype(np.uint64),
}


def largest(order: int) -> int:
    """The highest count that 2**order bits hold."""
    return (1 << (1 << order)) - 1


def decode(data: bytes, order: int) -> Counts:
    """A copy that may be changed."""
    if order >= 3:
        counts: Counts = np.frombuffer(data, dtype=_STORED[order]).astype(_HELD[order])
        return counts
    bits = 1 << order
    shifts = np.arange(0, 8, bits, dtype=np.uint8)  # entry 0 is in the least significant bits
    wide = np.frombuffer(data, dtype=np.uint8)[:, None] >> shifts
    return (wide & np.uint8((1 << bits) - 1)).ravel()


def encode(counts: Counts, order: int) -> bytes:
    """``counts``: whole bytes' worth of them."""
    if order >= 3:
        return bytes(counts.astype(_STORED[order]).data)
    bits = 1 << order
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    packed = np.bitwise_or.reduce(counts.reshape(-1, 8 // bits) << shifts, axis=1)
    return bytes(packed.astype(np.uint8).data)
