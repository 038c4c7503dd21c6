"""virtio over PCI (Virtual I/O Device 1.2, section 4.1): a function with one device behind it, without MSI-X.

Interfaces as in QEMU: ``TRANSITIONAL`` has the legacy ports (4.1.4.10) and the modern structures, ``MODERN`` and
``LEGACY`` one of them.  The structures lie in one memory window: common, interrupt status, device, notification.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import Any, Final

from timevm.engine.devices.base import InterruptLine
from timevm.engine.devices.pci_function import (
    COMMAND_NO_INTERRUPT,
    STATUS,
    STATUS_INTERRUPT,
    Bar,
    Identity,
    PciFunction,
)
from timevm.engine.devices.pci_i440fx import SUBSYSTEM
from timevm.engine.devices.virtio import VirtioDevice
from timevm.engine.devices.virtio_pci_registers import (
    LEGACY_PORTS,
    MODERN_WINDOW,
    NOTIFY_MULTIPLIER,
    STRUCTURE_BYTES,
    LegacyPorts,
    ModernWindow,
    Structure,
)
from timevm.engine.devices.virtqueue import Virtqueue

VENDOR: Final = 0x1AF4
#: device numbers: transitional ones by type, modern ones are 1040h + type
TRANSITIONAL_NUMBERS: Final = {1: 0x1000, 2: 0x1001, 4: 0x1005}
MODERN_NUMBERS: Final = 0x1040
CLASSES: Final = {1: 0x020000, 2: 0x010000, 4: 0x00FF00}


class Interface(Enum):
    TRANSITIONAL = "transitional"
    MODERN = "modern"
    LEGACY = "legacy"


LEGACY_BAR, MODERN_BAR = 0, 4
VENDOR_CAPABILITY: Final = 0x09
CAP_COMMON, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI = 1, 2, 3, 4, 5
#: within the capability for access by configuration cycles
CAP_BAR, CAP_OFFSET, CAP_LENGTH, CAP_DATA = 4, 8, 12, 16

# interrupt status
USED_BUFFER, CONFIG_CHANGE = 1, 2
_REGISTERS: Final = ("device_features_select", "driver_features_select", "queue_select", "interrupt_status")


class VirtioPci(PciFunction):
    """The VirtioTransport of ``device``, whose state it includes; ``interrupt`` is its INTA."""

    def __init__(self, name: str, device: VirtioDevice, interface: Interface, interrupt: InterruptLine) -> None:
        kind = device.device_id
        modern = interface is not Interface.LEGACY
        bars = []
        if interface is not Interface.MODERN:
            bars.append(Bar(LEGACY_BAR, LEGACY_PORTS, True, LegacyPorts(self)))
        if modern:
            self._window = ModernWindow(self)
            bars.append(Bar(MODERN_BAR, MODERN_WINDOW, False, self._window))
        pure = interface is Interface.MODERN
        number = MODERN_NUMBERS + kind if pure else TRANSITIONAL_NUMBERS[kind]
        super().__init__(
            name,
            Identity(VENDOR, number, CLASSES[kind], int(pure), VENDOR, SUBSYSTEM if pure else kind),
            bars,
            pin=1,
        )
        self.device = device
        self._interrupt = interrupt
        self._access: int | None = None  # the capability for access by configuration cycles
        if modern:
            self._add_capabilities()
        device.connect(self, modern=modern)
        self.reset()

    def _add_capabilities(self) -> None:
        for kind, offset in (
            (CAP_COMMON, Structure.COMMON),
            (CAP_ISR, Structure.INTERRUPT),
            (CAP_DEVICE, Structure.CONFIG),
        ):
            self.add_capability(
                VENDOR_CAPABILITY, struct.pack("<BBBxxxII", 16, kind, MODERN_BAR, offset, STRUCTURE_BYTES)
            )
        notify = struct.pack(
            "<BBBxxxIII", 20, CAP_NOTIFY, MODERN_BAR, Structure.NOTIFY, STRUCTURE_BYTES, NOTIFY_MULTIPLIER
        )
        self.add_capability(VENDOR_CAPABILITY, notify)
        self._access = self.add_capability(VENDOR_CAPABILITY, struct.pack("<BBBxxxIII", 20, CAP_PCI, 0, 0, 0, 0))
        self.allow(self._access + CAP_BAR, 1, 0xFF)
        self.allow(self._access + CAP_OFFSET, 4, 0xFFFFFFFF)
        self.allow(self._access + CAP_LENGTH, 4, 0xFFFFFFFF)

    def reset(self) -> None:
        super().reset()
        self.device_features_select = 0
        self.driver_features_select = 0
        self.queue_select = 0
        self.interrupt_status = 0
        self._level = False
        self.device.reset()

    def traits(self) -> dict[str, Any]:
        return super().traits() | self.device.traits()

    def state(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in _REGISTERS}
        return {**super().state(), **own, "level": self._level, "device": self.device.state()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        for name in _REGISTERS:
            setattr(self, name, state[name])
        self._level = state["level"]
        self.device.restore(state["device"])

    # ---- VirtioTransport

    def queue_interrupt(self, queue: int) -> None:
        self.set_interrupt_status(self.interrupt_status | USED_BUFFER)

    def config_interrupt(self) -> None:
        self.set_interrupt_status(self.interrupt_status | CONFIG_CHANGE)

    def set_interrupt_status(self, value: int) -> None:
        self.interrupt_status = value
        level = bool(value) and not self.command & COMMAND_NO_INTERRUPT
        if level != self._level:
            self._level = level
            self._interrupt.set(level)

    def take_interrupt_status(self) -> int:
        """Reading it clears it."""
        status = self.interrupt_status
        self.set_interrupt_status(0)
        return status

    # ---- what both interfaces have

    def queue(self) -> Virtqueue | None:
        """The selected one, None if there is no such queue."""
        return self.device.queues[self.queue_select] if self.queue_select < len(self.device.queues) else None

    def set_status(self, value: int) -> None:
        if value:
            self.device.set_status(value)
            return
        self.device.driver_reset()
        self.queue_select = self.device_features_select = self.driver_features_select = 0
        self.set_interrupt_status(0)

    def read_config(self, offset: int, size: int) -> int:
        return int.from_bytes(self.device.configuration()[offset : offset + size], "little")

    # ---- configuration cycles

    def config_read(self, offset: int, size: int) -> int:
        if self._access is not None and offset == self._access + CAP_DATA:
            where = self._access_target()
            return self._window.read(where[0], where[1]) if where is not None and where[1] == size else 0
        value = super().config_read(offset, size)
        if offset <= STATUS < offset + size and self.interrupt_status:
            value |= STATUS_INTERRUPT << 8 * (STATUS - offset)
        return value

    def config_write(self, offset: int, size: int, value: int) -> None:
        if self._access is not None and offset == self._access + CAP_DATA:
            where = self._access_target()
            if where is not None and where[1] == size:
                self._window.write(where[0], size, value)
            return
        super().config_write(offset, size, value)

    def config_written(self, offset: int, size: int) -> None:
        self.set_interrupt_status(self.interrupt_status)

    def _access_target(self) -> tuple[int, int] | None:
        """Offset in the memory window and size; None: nonsense."""
        assert self._access is not None
        offset = super().config_read(self._access + CAP_OFFSET, 4)
        length = super().config_read(self._access + CAP_LENGTH, 4)
        bar = super().config_read(self._access + CAP_BAR, 1)
        if bar != MODERN_BAR or length not in (1, 2, 4) or offset % length or offset + length > MODERN_WINDOW:
            return None
        return offset, length
