"""Windows of 32-bit registers: what an access of another width means.

A narrow access sees its bytes of the word; a 64-bit access is two words, the lower address first (as an AMBA APB bridge
and QEMU's memory core do it).
"""

from __future__ import annotations


class WordRegisters:
    """Base of devices whose registers are 32 bits wide: subclasses see whole aligned words only."""

    name: str
    window: int

    def read_word(self, offset: int) -> int:
        """The register at ``offset`` (a multiple of 4); reserved ones read as zero."""
        raise NotImplementedError

    def write_word(self, offset: int, value: int) -> None:
        """Write the register at ``offset`` (a multiple of 4); the bytes that a narrow access leaves out are zero."""
        raise NotImplementedError

    def read(self, offset: int, size: int) -> int:
        if size == 4 and not offset & 3:
            return self.read_word(offset)
        if size == 8:
            return self.read_word(offset & ~3) | self.read_word((offset & ~3) + 4) << 32
        return self.read_word(offset & ~3) >> 8 * (offset & 3) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        if size == 8:
            self.write_word(offset & ~3, value & 0xFFFFFFFF)
            self.write_word((offset & ~3) + 4, value >> 32 & 0xFFFFFFFF)
        else:
            self.write_word(offset & ~3, (value & (1 << 8 * size) - 1) << 8 * (offset & 3) & 0xFFFFFFFF)
