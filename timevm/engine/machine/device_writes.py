"""What devices write to watched memory by themselves (DMA).

It happens at the delivery of an event or at a timer, between two instructions, or while an instruction accesses the
device's registers.  A watchpoint stops behind it, in a run forward; backward the machine comes to stand before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from timevm.engine.cpu.base import Cpu, WatchKind, Watchpoint
from timevm.engine.machine.outcome import DebugStop
from timevm.engine.machine.ram import PAGE


@dataclass(frozen=True, slots=True)
class DeviceWrite:
    """After ``icount`` instructions; ``early``: before the next one, otherwise by it (the one at ``stop.pc``)."""

    icount: int
    stop: DebugStop
    early: bool


class DeviceWrites:
    """Costs nothing while nobody watches; then about 2 us for each write and page that is watched."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self._watched: list[Watchpoint] = []
        #: since the last `clear`, in order
        self.found: list[DeviceWrite] = []
        self._between = False
        #: whoever runs wants to stand behind the first one
        self.stop_there = True

    def watch(self, watchpoints: frozenset[Watchpoint]) -> bool:
        """Whether any of them is about writes."""
        watched = (watch for watch in watchpoints if watch.kind is not WatchKind.READ)
        self._watched = sorted(watched, key=lambda watch: (watch.address, watch.length))
        return bool(self._watched)

    def clear(self, *, stop_there: bool) -> None:
        self.found.clear()
        self.stop_there = stop_there

    @contextmanager
    def between_instructions(self) -> Iterator[None]:
        """What is written now is no instruction's doing."""
        self._between = True
        try:
            yield
        finally:
            self._between = False

    @property
    def stop(self) -> bool:
        """It is time to stand."""
        return self.stop_there and bool(self.found)

    def wrote(self, address: int, size: int, device: str) -> None:
        """``SystemMemory.written``.  Of several watchpoints that it touches the lowest counts."""
        for watch in self._watched:
            for place, physical, length in self._pieces(watch):
                if address < physical + length and physical < address + size:
                    self._add(watch, place + max(0, address - physical), device)
                    return

    def _pieces(self, watch: Watchpoint) -> Iterator[tuple[int, int, int]]:
        """(watched address, physical one, bytes), as it is mapped now."""
        if watch.physical:
            yield watch.address, watch.address, watch.length
            return
        at, end = watch.address, watch.address + watch.length
        while at < end:
            length = min(end, (at // PAGE + 1) * PAGE) - at
            physical = self._cpu.translate(at)
            if physical is not None:
                yield at, physical, length
            at += length

    def _add(self, watch: Watchpoint, address: int, device: str) -> None:
        stop = DebugStop(self._cpu.pc, watch, address, is_write=True, device=device)
        self.found.append(DeviceWrite(self._cpu.icount, stop, self._between))
        if not self._between and self.stop_there:
            self._cpu.ask_attention()
