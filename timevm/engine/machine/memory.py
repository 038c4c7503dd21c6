"""RAM as bus masters and loaders write it: whatever was translated from there is dropped."""

from __future__ import annotations

from collections.abc import Callable

from timevm.engine.cpu.base import Cpu
from timevm.engine.devices.base import DmaError
from timevm.engine.machine.ram import Ram


class SystemMemory:
    """``devices.base.GuestMemory``; ``of`` gives each device its own view."""

    def __init__(self, cpu: Cpu, ram: Ram) -> None:
        self._cpu = cpu
        self._ram = ram
        #: told of each write of a device that has been made: (address, bytes, device); None while nobody watches
        self.written: Callable[[int, int, str], None] | None = None

    def of(self, device: str) -> BusMaster:
        return BusMaster(self, device)

    def read(self, address: int, size: int) -> bytes:
        self._check(address, size)
        return self._ram.read(address, size)

    def write(self, address: int, data: bytes) -> None:
        self._check(address, len(data))
        self._ram.write(address, data)
        self._cpu.code_changed(address, len(data))

    def fill(self, address: int, data: bytes, size: int) -> None:
        """``data`` at ``address``, and zeroes behind it up to ``size`` bytes in all."""
        self._check(address, size)
        self._ram.write(address, data)
        self._ram.clear(address + len(data), size - len(data))
        self._cpu.code_changed(address, size)

    def _check(self, address: int, size: int) -> None:
        if not self._ram.contains(address, size):
            raise DmaError(f"{size} bytes at {address:#x} are not RAM")


class BusMaster:
    """RAM as the device of this name reaches it (``devices.base.GuestMemory``)."""

    def __init__(self, memory: SystemMemory, device: str) -> None:
        self._memory = memory
        self._device = device

    def read(self, address: int, size: int) -> bytes:
        return self._memory.read(address, size)

    def write(self, address: int, data: bytes) -> None:
        self._memory.write(address, data)
        if self._memory.written is not None:
            self._memory.written(address, len(data), self._device)
