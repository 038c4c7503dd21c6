"""Contents of pages, each kept once and counted by who needs it (``page_tables``).

A content is named by the number of its slot.  Slot 0 is the page of zeroes, which costs nothing.
"""

from __future__ import annotations

import mmap

import numpy as np
import numpy.typing as npt

from timevm.engine.machine.ram import MAP_NORESERVE, PAGE
from timevm.engine.snapshot.memory_filler import MemoryFiller
from timevm.errors import HostError, InternalError

Numbers = npt.NDArray[np.int64]
Slots = npt.NDArray[np.int32]
Pages = npt.NDArray[np.uint8]

ZERO = 0
WORDS = PAGE // 8
#: pages handled at a time: 1 MiB, which stays in the host's second-level cache
BATCH = 256
#: words of a page that are looked at first: most pages with something in them have it in one of these
FIRST_LOOK = (0, 64, 256, WORDS - 1)
#: pages of fresh memory that are made before they are needed: 16 MiB
AHEAD = 4096


class PageStore:
    """``capacity`` pages of address space; host memory is taken by what is kept (at its peak)."""

    def __init__(self, capacity: int, ahead: int = AHEAD) -> None:
        """``ahead``: pages of memory that may be made before they are needed.

        Raises HostError when the host has no such range to give.
        """
        count = capacity + 1
        try:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
            self._memory = mmap.mmap(-1, count * PAGE, flags=flags)
        except (OSError, ValueError, OverflowError) as error:
            raise HostError(f"the host has no address space for {count * PAGE >> 20} MiB of checkpoints") from error
        self.pages: Pages = np.frombuffer(self._memory, dtype=np.uint8).reshape(-1, PAGE)
        self._users = np.zeros(count, dtype=np.int32)
        self._free: Slots = np.empty(0, dtype=np.int32)
        self._fresh = 1  # slots from here on were never used
        self._filler = MemoryFiller(self.pages)
        self._ahead = ahead
        self.used = 0

    @property
    def used_bytes(self) -> int:
        return self.used * PAGE

    def add(self, pages: Pages, numbers: Numbers) -> Slots:
        """Keep the pages of these numbers; 0.5 us a page.  Nobody uses them until ``hold``.

        Raises HostError when the store is full.
        """
        filled = np.flatnonzero(~_are_empty(pages, numbers))
        taken = self._take(len(filled))
        # whole pages are moved, without a copy in between
        for first, end in runs(taken):
            begin = int(taken[first])
            wanted = numbers[filled[first:end]]
            np.take(pages, wanted, axis=0, out=self.pages[begin : begin + end - first], mode="clip")
        slots = np.zeros(len(numbers), dtype=np.int32)
        slots[filled] = taken
        return slots

    def _take(self, count: int) -> Slots:
        """Ascending, but for where memory that was used before ends."""
        old = min(count, len(self._free))
        taken = np.sort(self._free[len(self._free) - old :])
        new = count - old
        if new:
            if self._fresh + new > len(self.pages):
                raise HostError("the memory for checkpoints is used up: give more by rrmem=")
            taken = np.concatenate([taken, np.arange(self._fresh, self._fresh + new, dtype=np.int32)])
            self._fresh += new
            self._filler.fill(self._fresh + self._ahead)
        self._free = self._free[: len(self._free) - old]
        self.used += count
        return taken

    def hold(self, slots: Slots) -> None:
        """One user more for each; no slot but ZERO occurs twice."""
        self._users[slots[slots != ZERO]] += 1

    def release(self, slots: Slots) -> None:
        """One user less; what nobody uses any more is forgotten."""
        slots = slots[slots != ZERO]
        self._users[slots] -= 1
        unused = slots[self._users[slots] <= 0]
        if len(unused):
            if (self._users[unused] < 0).any():
                raise InternalError("a page of a checkpoint was given back twice")
            self._free = np.concatenate([self._free, unused])
            self.used -= len(unused)

    def only_here(self, slots: Slots) -> int:
        """How many of them have one user."""
        return int((self._users[slots[slots != ZERO]] == 1).sum())


def _are_empty(pages: Pages, numbers: Numbers) -> npt.NDArray[np.bool_]:
    """Which of them hold zeroes only."""
    words = pages.view(np.uint64)
    candidates = np.arange(len(numbers))
    for word in FIRST_LOOK:
        candidates = candidates[words[numbers[candidates], word] == 0]
    empty = np.zeros(len(numbers), dtype=np.bool_)
    for first in range(0, len(candidates), BATCH):
        batch = candidates[first : first + BATCH]
        empty[batch] = ~words[numbers[batch]].any(axis=1)
    return empty


def runs(numbers: Numbers | Slots) -> list[tuple[int, int]]:
    """Places in ``numbers`` between which they follow one another."""
    if not len(numbers):
        return []
    breaks = (np.flatnonzero(np.diff(numbers) != 1) + 1).tolist()
    return list(zip([0, *breaks], [*breaks, len(numbers)], strict=True))
