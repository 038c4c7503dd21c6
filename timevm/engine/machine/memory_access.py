"""Guest memory as debuggers and monitors see it: RAM and ROMs, by physical or virtual address, without side effects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from timevm.engine.cpu.base import Cpu
from timevm.engine.machine.ram import Ram

PAGE = 4096


class MemoryAccess:
    """``roms`` are read only."""

    def __init__(self, cpu: Cpu, ram: Ram, roms: Sequence[Ram] = ()) -> None:
        self._cpu = cpu
        self._ram = ram
        self._readable = (ram, *roms)

    def read(self, address: int, size: int, *, physical: bool = False) -> bytes:
        """Shorter than ``size`` where the mapping or the memory ends."""
        pieces = []
        for where, length in self._pieces(address, size, physical):
            memory = next((each for each in self._readable if each.contains(where, length)), None)
            if memory is None:
                break
            pieces.append(memory.read(where, length))
        return b"".join(pieces)

    def write(self, address: int, data: bytes, *, physical: bool = False) -> int:
        """Bytes written; what was translated from there is dropped."""
        done = 0
        for where, length in self._pieces(address, len(data), physical):
            if not self._ram.contains(where, length):
                break
            self._ram.write(where, data[done : done + length])
            self._cpu.code_changed(where, length)
            done += length
        return done

    def _pieces(self, address: int, size: int, physical: bool) -> Iterator[tuple[int, int]]:
        """(physical address, length) page by page, until one is not mapped."""
        end = address + size
        while address < end:
            length = min(end, (address // PAGE + 1) * PAGE) - address
            where = address if physical else self._cpu.translate(address)
            if where is None:
                return
            yield where, length
            address += length
