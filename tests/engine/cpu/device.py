"""The device of the small boards: a counter, a line to the CPU, a switch; it notes every access with its icount."""

from __future__ import annotations

from collections.abc import Callable

from timevm.engine.cpu.base import Cpu

#: its registers: a write of 1/0 drives the line, a read counts, a write switches off
LINE, COUNTER, OFF = 0x0, 0x4, 0xC


class Device:
    def __init__(self, cpu: Cpu, line: str, switch_off: Callable[[int], None] = lambda value: None) -> None:
        self._cpu = cpu
        self._line = line
        self._switch_off = switch_off
        self.reads = 0
        #: kind, icount, offset, size of a read or value of a write
        self.log: list[tuple[str, int, int, int]] = []
        #: what a write does besides
        self.effect: Callable[[], None] = lambda: None

    def read(self, offset: int, size: int) -> int:
        self.log.append(("read", self._cpu.icount, offset, size))
        self.reads += 1
        return self.reads

    def write(self, offset: int, size: int, value: int) -> None:
        self.log.append(("write", self._cpu.icount, offset, value))
        if offset == LINE:
            self._cpu.set_interrupt(self._line, bool(value & 1))
        elif offset == OFF:
            self._switch_off(value)
        self.effect()
