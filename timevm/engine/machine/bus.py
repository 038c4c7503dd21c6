"""The device windows of a board on a CPU that maps whole pages: small windows share one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from timevm.engine.cpu.base import MmioHandler
from timevm.engine.machine.outcome import MemoryRegion
from timevm.errors import InternalError

PAGE = 4096


@dataclass(frozen=True, slots=True)
class Window:
    """``size`` bytes at physical ``base`` belong to ``handler``."""

    name: str
    base: int
    size: int
    handler: MmioHandler

    @property
    def end(self) -> int:
        return self.base + self.size

    def region(self) -> MemoryRegion:
        return MemoryRegion(self.name, self.base, self.size, "io")


class SharedPages:
    """Several windows in one run of pages; between them reads are zero and writes go nowhere.  O(log n) an access."""

    def __init__(self, base: int, windows: Sequence[Window]) -> None:
        self._windows = windows
        self._starts = [window.base - base for window in windows]

    def _at(self, offset: int) -> tuple[Window, int] | None:
        place = bisect_right(self._starts, offset) - 1
        if place < 0 or offset - self._starts[place] >= self._windows[place].size:
            return None
        return self._windows[place], offset - self._starts[place]

    def read(self, offset: int, size: int) -> int:
        found = self._at(offset)
        return 0 if found is None else found[0].handler.read(found[1], size)

    def write(self, offset: int, size: int, value: int) -> None:
        found = self._at(offset)
        if found is not None:
            found[0].handler.write(found[1], size, value)


def map_windows(windows: Sequence[Window], map_pages: Callable[[int, int, MmioHandler], object]) -> None:
    """``map_pages(base, size, handler)`` is called for each run of pages.  Raises InternalError for overlaps."""
    ordered = sorted(windows, key=lambda window: window.base)
    for window, following in pairwise(ordered):
        if window.end > following.base:
            raise InternalError(f"the windows of {window.name} and {following.name} overlap: correct the board")
    runs: list[list[Window]] = []
    for window in ordered:
        if runs and window.base // PAGE <= (runs[-1][-1].end - 1) // PAGE:
            runs[-1].append(window)
        else:
            runs.append([window])
    for run in runs:
        base, end = run[0].base // PAGE * PAGE, -(-run[-1].end // PAGE) * PAGE
        whole = len(run) == 1 and run[0].base == base and run[0].end == end
        map_pages(base, end - base, run[0].handler if whole else SharedPages(base, tuple(run)))
