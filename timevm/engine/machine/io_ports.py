"""The I/O ports of an x86 machine: 64 Ki bytes of address space of their own, cut into windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from timevm.engine.cpu.base import MmioHandler
from timevm.engine.machine.outcome import MemoryRegion
from timevm.errors import InternalError

PORTS = 0x1_0000


@dataclass(frozen=True, slots=True)
class Ports:
    """``count`` ports from ``base`` on belong to ``handler``."""

    name: str
    base: int
    count: int
    handler: MmioHandler

    def region(self) -> MemoryRegion:
        return MemoryRegion(f"port-{self.name}", self.base, self.count, "io")


class PortMap:
    """An MmioHandler over all ports; where no window is, ``elsewhere`` answers (windows that move), given the port.

    O(1) an access.  An access belongs to the window of its first byte.
    """

    def __init__(self, windows: Sequence[Ports], elsewhere: MmioHandler) -> None:
        self._elsewhere = elsewhere
        self._at: dict[int, Ports] = {}
        for window in windows:
            for port in range(window.base, window.base + window.count):
                if port in self._at or port >= PORTS:
                    other = self._at[port].name if port in self._at else "nothing"
                    raise InternalError(f"port {port:#x} of {window.name} belongs to {other}: correct the board")
                self._at[port] = window

    def read(self, offset: int, size: int) -> int:
        window = self._at.get(offset)
        if window is None:
            return self._elsewhere.read(offset, size)
        return window.handler.read(offset - window.base, size)

    def write(self, offset: int, size: int, value: int) -> None:
        window = self._at.get(offset)
        if window is None:
            self._elsewhere.write(offset, size, value)
        else:
            window.handler.write(offset - window.base, size, value)


class Absolute:
    """An MmioHandler whose offsets begin at ``base`` of a handler that wants ports or addresses."""

    def __init__(self, space: MmioHandler, base: int) -> None:
        self._space, self._base = space, base

    def read(self, offset: int, size: int) -> int:
        return self._space.read(self._base + offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self._space.write(self._base + offset, size, value)


def gaps(windows: Iterable[Ports]) -> Iterator[tuple[int, int]]:
    """The runs of ports (base, count) beside ``windows``, which are mapped by themselves."""
    base = 0
    for window in sorted(windows, key=lambda window: window.base):
        if window.base > base:
            yield base, window.base - base
        base = window.base + window.count
    if base < PORTS:
        yield base, PORTS - base
