"""Windows of 8-bit registers on the PC's I/O bus: what a wider access means.

It is so many byte accesses, the lower port first (as the ISA bus does it, and QEMU's memory core).  What lies behind
the window is an empty bus: it reads as ones.
"""

from __future__ import annotations

OPEN_BUS = 0xFF


class ByteRegisters:
    """Base of devices whose registers are one byte wide: subclasses see single bytes inside the window only."""

    name: str
    window: int

    def read_byte(self, offset: int) -> int:
        """The register at ``offset``, 0 to 255."""
        raise NotImplementedError

    def write_byte(self, offset: int, value: int) -> None:
        raise NotImplementedError

    def read(self, offset: int, size: int) -> int:
        if size == 1:
            return self.read_byte(offset)
        value = 0
        for index in range(size):
            byte = self.read_byte(offset + index) if offset + index < self.window else OPEN_BUS
            value |= byte << 8 * index
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        for index in range(min(size, self.window - offset)):
            self.write_byte(offset + index, value >> 8 * index & 0xFF)
