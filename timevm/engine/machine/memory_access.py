"""Guest memory as debuggers and monitors see it: RAM only, by physical or virtual address, without side effects."""

from __future__ import annotations

from collections.abc import Iterator

from timevm.engine.cpu.base import Cpu
from timevm.engine.machine.ram import Ram

PAGE = 4096


class MemoryAccess:
    def __init__(self, cpu: Cpu, ram: Ram) -> None:
        self._cpu = cpu
        self._ram = ram

    def read(self, address: int, size: int, *, physical: bool = False) -> bytes:
        """Shorter than ``size`` where the mapping or RAM ends."""
        return b"".join(self._ram.read(where, length) for where, length in self._pieces(address, size, physical))

    def write(self, address: int, data: bytes, *, physical: bool = False) -> int:
        """Bytes written; what was translated from there is dropped."""
        done = 0
        for where, length in self._pieces(address, len(data), physical):
            self._ram.write(where, data[done : done + length])
            self._cpu.code_changed(where, length)
            done += length
        return done

    def _pieces(self, address: int, size: int, physical: bool) -> Iterator[tuple[int, int]]:
        """(physical address, length) inside RAM, page by page, until one is not there."""
        end = address + size
        while address < end:
            length = min(end, (address // PAGE + 1) * PAGE) - address
            where = address if physical else self._cpu.translate(address)
            if where is None or not self._ram.base <= where <= self._ram.base + self._ram.size - length:
                return
            yield where, length
            address += length
