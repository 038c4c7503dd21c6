"""Memory made ahead holds what it held, and is there."""

from __future__ import annotations

import mmap
import os
import struct

import numpy as np

from timevm.engine.machine.ram import PAGE
from timevm.engine.snapshot.memory_filler import MemoryFiller

PAGES = 2000
#: of a record in /proc/self/pagemap (Linux, admin-guide/mm/pagemap.rst)
PRESENT = 1 << 63


def present(pages: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> int:
    """How many of them the host has memory for."""
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        data = os.pread(pagemap.fileno(), 8 * len(pages), pages.ctypes.data // PAGE * 8)
    return sum(bool(entry & PRESENT) for (entry,) in struct.iter_unpack("<Q", data))


def test_what_was_asked_for_is_made_and_nothing_changed() -> None:
    memory = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    pages = np.frombuffer(memory, dtype=np.uint8).reshape(-1, PAGE)
    pages[3] = 7
    filler = MemoryFiller(pages)
    assert present(pages) == 1
    filler.fill(10)  # too little to be worth a thread
    filler.wait()
    assert present(pages) == 1
    filler.fill(1000)
    filler.fill(PAGES + 1000)
    filler.wait()
    assert present(pages) == PAGES
    assert (pages[3] == 7).all() and not pages[:3].any() and not pages[4:].any()
