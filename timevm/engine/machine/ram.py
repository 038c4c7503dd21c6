"""The guest's RAM: one private anonymous mapping of the host, zero at first."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import numpy.typing as npt

from timevm.errors import HostError, InternalError

PAGE = 4096
#: Linux' flag: the host need not have all of it (the module mmap learns it in Python 3.13)
MAP_NORESERVE = 0x4000


class Ram:
    """``size`` bytes (a multiple of PAGE) at guest physical ``base``; pages never written take no host memory."""

    def __init__(self, base: int, size: int) -> None:
        """Raises HostError when the host has no such range to give."""
        if size <= 0 or size % PAGE or base % PAGE:
            raise InternalError(f"RAM of {size} bytes at {base:#x} is not in whole pages")
        self.base = base
        self.size = size
        try:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
            self._memory = mmap.mmap(-1, size, flags=flags)
        except (OSError, ValueError, OverflowError) as error:
            raise HostError(f"the host has no {size >> 20} MiB of memory for the guest's RAM: {error}") from error
        # Small pages: what is written is counted, saved and compared by pages of 4 KiB.
        self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self._anchor = (ctypes.c_char * size).from_buffer(self._memory)
        self.host_address = ctypes.addressof(self._anchor)
        #: all of it as bytes, and by pages; both are the memory itself, no copies
        self.bytes: npt.NDArray[np.uint8] = np.frombuffer(self._memory, dtype=np.uint8)
        self.pages: npt.NDArray[np.uint8] = self.bytes.reshape(-1, PAGE)
        self.view = memoryview(self._memory)

    @property
    def end(self) -> int:
        """First guest physical address behind it."""
        return self.base + self.size

    @property
    def page_count(self) -> int:
        return self.size // PAGE

    def contains(self, address: int, size: int) -> bool:
        """Whether all of a range of guest physical addresses is RAM."""
        return self.base <= address and size >= 0 and address + size <= self.end

    def read(self, address: int, size: int) -> bytes:
        """Raises InternalError outside: callers check what comes from outside by ``contains``."""
        return bytes(self.view[self._offset(address, size) : address - self.base + size])

    def write(self, address: int, data: bytes) -> None:
        """What the CPU has translated from there is the caller's business.  Raises InternalError outside."""
        offset = self._offset(address, len(data))
        self.view[offset : offset + len(data)] = data

    def clear(self, address: int, size: int) -> None:
        """Pages that nobody has written stay without host memory.  Raises InternalError outside."""
        offset = self._offset(address, size)
        found = self.bytes[offset : offset + size]
        if found.any():
            found[:] = 0

    def _offset(self, address: int, size: int) -> int:
        if not self.contains(address, size):
            raise InternalError(f"{size} bytes at {address:#x} are not in RAM ({self.base:#x} to {self.end:#x})")
        return address - self.base
