"""The core-local interruptor of one RISC-V hart (SiFive FU540-C000 manual, chapter 9; QEMU's ``riscv_aclint.c``).

``mtime`` is virtual time, which the CPU's ``time`` register shows too: nobody can write it.
"""

from __future__ import annotations

from typing import Any, Final

from timevm.engine.devices.base import InterruptLine, VirtualTime
from timevm.engine.devices.compare_timer import CompareTimer

MSIP, MTIMECMP, MTIME = 0x0000, 0x4000, 0xBFF8
_LOW: Final = 0xFFFF_FFFF


class Clint:
    """A Device and Stateful.  ``software`` and ``timer`` are the hart's machine-mode interrupts.

    Accesses are 32 or 64 bits wide and aligned; others read as zero and do nothing.
    """

    window = 0x1_0000

    def __init__(
        self, name: str, software: InterruptLine, timer: InterruptLine, time: VirtualTime, tick_ns: int
    ) -> None:
        self.name = name
        self._software = software
        self._timer = CompareTimer(f"{name}.timer", timer, time, tick_ns)
        self.reset()

    def reset(self) -> None:
        self._timer.reset()
        self._raised = False

    def state(self) -> dict[str, Any]:
        return {"timer": self._timer.state(), "raised": self._raised}

    def restore(self, state: dict[str, Any]) -> None:
        self._timer.restore(state["timer"])
        self._raised = state["raised"]

    def read(self, offset: int, size: int) -> int:
        if size < 4 or offset % size:
            return 0
        register = offset & ~7
        if register == MTIME:
            value = self._timer.counter()
        elif register == MTIMECMP:
            value = self._timer.compare
        else:
            value = int(self._raised) if register == MSIP else 0
        return value if size == 8 else value >> 8 * (offset & 4) & _LOW

    def write(self, offset: int, size: int, value: int) -> None:
        if size < 4 or offset % size:
            return
        if offset & ~7 == MTIMECMP:
            if size == 4:
                shift = 8 * (offset & 4)
                value = self._timer.compare & ~(_LOW << shift) | (value & _LOW) << shift
            self._timer.set_compare(value)
        elif offset == MSIP:
            raised = bool(value & 1)
            if raised != self._raised:
                self._raised = raised
                self._software.set(raised)
