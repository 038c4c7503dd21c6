"""What a processor's page tables map at one moment, as columns: for those who show it to people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.uint64]
Index = npt.NDArray[np.intp]
#: physical memory, ``(address, size)``; shorter where there is none
ReadMemory = Callable[[int, int], bytes]


def _no_numbers() -> Column:
    return np.zeros(0, np.uint64)


def _no_index() -> Index:
    return np.zeros(0, np.intp)


@dataclass(frozen=True, slots=True)
class Names:
    """A column of texts of which few differ: row n has ``texts[index[n]]``."""

    index: Index = field(default_factory=_no_index)
    texts: tuple[str, ...] = ()


def named(keys: npt.NDArray[np.uint16], text: Callable[[int], str]) -> Names:
    """``text`` is asked once for each key that there is."""
    found, index = np.unique(keys, return_inverse=True)
    return Names(index, tuple(text(int(key)) for key in found))


@dataclass(frozen=True, slots=True)
class Mappings:
    """Pages: columns of equal length, ascending by ``virtual`` address; ``size`` in bytes.

    ``rights``: what may be done there, all tables on the way considered; neighbours with the same are one range.
    ``flags``: of the page's own entry.  ``heading`` of ``rights``: ranges are of physical memory, too, and are told
    with their place in it.  ``absent``: why there is no mapping.  ``more_from``: there are more pages from this
    virtual address on.
    """

    virtual: Column = field(default_factory=_no_numbers)
    physical: Column = field(default_factory=_no_numbers)
    size: Column = field(default_factory=_no_numbers)
    rights: Names = field(default_factory=Names)
    flags: Names = field(default_factory=Names)
    heading: str = ""
    absent: str = ""
    more_from: int | None = None

    def range_starts(self) -> Index:
        """Rows at which ranges begin."""
        if not len(self.virtual):
            return _no_index()
        index = self.rights.index
        goes_on = (index[1:] == index[:-1]) & (self.virtual[:-1] + self.size[:-1] == self.virtual[1:])
        if self.heading:
            goes_on &= self.physical[:-1] + self.size[:-1] == self.physical[1:]
        return np.concatenate((np.zeros(1, np.intp), np.flatnonzero(~goes_on) + 1))
