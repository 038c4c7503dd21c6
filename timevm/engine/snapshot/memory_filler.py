"""Memory made before it is needed: the host gives a fresh page when it is first touched, which costs three times what
filling it does (1 to 9 us where the host is a virtual machine itself), and here another thread touches it first."""

from __future__ import annotations

import ctypes
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import numpy as np
import numpy.typing as npt

#: madvise (Linux 5.14, asm-generic/mman-common.h): make the pages now.  An older host refuses, which is no harm.
MADV_POPULATE_WRITE = 23
#: bytes at a time: 2 MiB; a page fault elsewhere in this process waits no longer
CHUNK = 2 << 20

_madvise = ctypes.CDLL(None).madvise  # leaves the interpreter lock to others
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


@cache
def _executor() -> ThreadPoolExecutor:
    """One thread for all, begun when first needed."""
    return ThreadPoolExecutor(1, "memory-filler")


class MemoryFiller:
    """For one array of pages, from its first on.  What the pages hold is left as it is."""

    def __init__(self, pages: npt.NDArray[np.uint8]) -> None:
        """``pages`` of shape ``[count, page bytes]``, at an address that is a multiple of the host's pages."""
        self._pages = pages
        self._asked = 0
        self._last: Future[None] | None = None

    def fill(self, count: int) -> None:
        """The first ``count`` pages are to have memory soon.  10 us; asked for in pieces of half a CHUNK at least."""
        count = min(count, len(self._pages))
        page_bytes = self._pages.shape[1]
        if (count - self._asked) * page_bytes >= CHUNK // 2:
            begin, self._asked = self._asked, count
            self._last = _executor().submit(_make, self._pages[begin:count])

    def wait(self) -> None:
        """Until all of them have."""
        if self._last is not None:
            self._last.result()


def _make(pages: npt.NDArray[np.uint8]) -> None:
    begin, size = pages.ctypes.data, pages.nbytes
    for offset in range(0, size, CHUNK):
        if _madvise(begin + offset, min(CHUNK, size - offset), MADV_POPULATE_WRITE):
            return  # it is made when it is touched
