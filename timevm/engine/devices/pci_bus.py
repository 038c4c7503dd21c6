"""A PCI bus with configuration mechanism #1 (PCI 2.1, 3.7.4.1), and who answers at which port or address on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from timevm.engine.devices.pci_function import PciFunction, PciWindow
from timevm.errors import InternalError

ADDRESS_ENABLE: Final = 0x8000_0000
ADDRESS_WRITABLE: Final = 0x80FF_FFFC
#: the byte at 0CF9h is the south bridge's reset control register; it shares the address register's ports
RESET_CONTROL_OFFSET: Final = 1
RESET_CPU, RESET_SYSTEM, RESET_FULL = 0x04, 0x02, 0x08
SLOTS: Final = 32


class PciBus:
    """Stateful.  Devices: ``address`` (0CF8h) and ``data`` (0CFCh); ``ports`` and ``memory`` answer for moving windows.

    Offsets in ``ports`` and ``memory`` are port numbers and physical addresses.  ``reset_machine``: see 0CF9h.
    """

    def __init__(self, name: str, reset_machine: Callable[[], None]) -> None:
        self.name = name
        self.functions: dict[int, PciFunction] = {}
        self._reset_machine = reset_machine
        self._windows: dict[bool, list[PciWindow]] | None = None
        self.address = _Address(self)
        self.data = _Data(self)
        self.ports = _Space(self, is_io=True)
        self.memory = _Space(self, is_io=False)
        self.reset()

    def add(self, slot: int, function: int, device: PciFunction) -> None:
        number = slot << 3 | function
        if number in self.functions or not 0 <= slot < SLOTS:
            raise InternalError(f"PCI slot {slot}.{function} is not free for {device.name}: correct the board")
        self.functions[number] = device
        device.moved = self._moved
        self._moved()

    def free_slot(self, first: int) -> int | None:
        """The lowest empty slot from ``first`` on."""
        taken = {number >> 3 for number in self.functions}
        return next((slot for slot in range(first, SLOTS) if slot not in taken), None)

    def reset(self) -> None:
        self.selected = 0
        self.reset_control = 0
        self._moved()

    def state(self) -> dict[str, Any]:
        return {"selected": self.selected, "reset_control": self.reset_control}

    def restore(self, state: dict[str, Any]) -> None:
        self.selected = state["selected"]
        self.reset_control = state["reset_control"]
        self._moved()

    # ---- configuration

    def target(self) -> PciFunction | None:
        """The function that the address register selects; only bus 0 exists."""
        if not self.selected & ADDRESS_ENABLE or self.selected >> 16 & 0xFF:
            return None
        return self.functions.get(self.selected >> 8 & 0xFF)

    def write_reset_control(self, value: int) -> None:
        rising = value & ~self.reset_control & RESET_CPU
        self.reset_control = value & (RESET_SYSTEM | RESET_CPU | RESET_FULL)
        if rising:
            self._reset_machine()

    # ---- windows that move

    def _moved(self) -> None:
        self._windows = None

    def find(self, is_io: bool, address: int) -> PciWindow | None:
        """Of overlapping windows the one of the lowest slot.  O(windows); they are a handful."""
        if self._windows is None:
            self._windows = {True: [], False: []}
            for _, device in sorted(self.functions.items()):
                for window in device.windows():
                    self._windows[window.is_io].append(window)
        for window in self._windows[is_io]:
            if window.base <= address < window.base + window.size:
                return window
        return None


class _Address:
    window = 4

    def __init__(self, bus: PciBus) -> None:
        self.name = f"{bus.name}-address"
        self._bus = bus

    def read(self, offset: int, size: int) -> int:
        if offset == RESET_CONTROL_OFFSET and size == 1:
            return self._bus.reset_control
        if offset == 0 and size == 4:
            return self._bus.selected
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Only whole words are for the address register."""
        if offset == RESET_CONTROL_OFFSET and size == 1:
            self._bus.write_reset_control(value)
        elif offset == 0 and size == 4:
            self._bus.selected = value & ADDRESS_WRITABLE


class _Data:
    window = 4

    def __init__(self, bus: PciBus) -> None:
        self.name = f"{bus.name}-data"
        self._bus = bus

    def read(self, offset: int, size: int) -> int:
        device = self._bus.target()
        if device is None:
            return (1 << 8 * size) - 1  # nobody claims the cycle
        inside = min(size, 4 - offset)
        value = device.config_read((self._bus.selected & 0xFC) + offset, inside)
        return value | ((1 << 8 * size) - 1) & ~((1 << 8 * inside) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        device = self._bus.target()
        if device is not None:
            inside = min(size, 4 - offset)
            device.config_write((self._bus.selected & 0xFC) + offset, inside, value & (1 << 8 * inside) - 1)


class _Space:
    """All ports or all of memory: whoever has a window there answers, else nobody."""

    def __init__(self, bus: PciBus, *, is_io: bool) -> None:
        self._bus = bus
        self._is_io = is_io

    def read(self, offset: int, size: int) -> int:
        window = self._bus.find(self._is_io, offset)
        if window is None:
            return (1 << 8 * size) - 1
        return window.handler.read(offset - window.base, size)

    def write(self, offset: int, size: int, value: int) -> None:
        window = self._bus.find(self._is_io, offset)
        if window is not None:
            window.handler.write(offset - window.base, size, value)
