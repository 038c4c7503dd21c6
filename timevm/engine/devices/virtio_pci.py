"""virtio over PCI (Virtual I/O Device 1.2, section 4.1): a function with one device behind it, without MSI-X.

Interfaces as in QEMU: ``TRANSITIONAL`` has the legacy ports (4.1.4.10) and the modern structures, ``MODERN`` and
``LEGACY`` one of them.  The structures lie in one memory window: common, interrupt status, device, notification.
"""

from __future__ import annotations

import struct
from enum import Enum, IntEnum
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
from timevm.engine.devices.virtqueue import LARGEST_QUEUE, Virtqueue

VENDOR: Final = 0x1AF4
#: device numbers: transitional ones by type, modern ones are 1040h + type
TRANSITIONAL_NUMBERS: Final = {1: 0x1000, 2: 0x1001, 4: 0x1005}
MODERN_NUMBERS: Final = 0x1040
CLASSES: Final = {1: 0x020000, 2: 0x010000, 4: 0x00FF00}


class Interface(Enum):
    TRANSITIONAL = "transitional"
    MODERN = "modern"
    LEGACY = "legacy"


class Port(IntEnum):
    """The legacy ports, 4.1.4.10."""

    FEATURES = 0x00
    DRIVER_FEATURES = 0x04
    QUEUE_PAGE = 0x08
    QUEUE_SIZE = 0x0C
    QUEUE_SELECT = 0x0E
    QUEUE_NOTIFY = 0x10
    STATUS = 0x12
    INTERRUPT_STATUS = 0x13
    CONFIG = 0x14


class Common(IntEnum):
    """The common structure, 4.1.4.3; of the addresses only the first is named."""

    SELECT_FEATURES = 0x00
    FEATURES = 0x04
    SELECT_DRIVER_FEATURES = 0x08
    DRIVER_FEATURES = 0x0C
    CONFIG_VECTOR = 0x10
    QUEUE_COUNT = 0x12
    STATUS = 0x14
    GENERATION = 0x15
    QUEUE_SELECT = 0x16
    QUEUE_SIZE = 0x18
    QUEUE_VECTOR = 0x1A
    QUEUE_ENABLE = 0x1C
    QUEUE_NOTIFY_OFFSET = 0x1E
    ADDRESSES = 0x20


class Structure(IntEnum):
    """Where each structure is in the memory window."""

    COMMON = 0x0000
    INTERRUPT = 0x1000
    CONFIG = 0x2000
    NOTIFY = 0x3000


LEGACY_BAR, LEGACY_PORTS, LEGACY_PAGE = 0, 64, 4096

# the memory window, and the capabilities that say what is where
MODERN_BAR, MODERN_WINDOW, STRUCTURE_BYTES = 4, 0x4000, 0x1000
NOTIFY_MULTIPLIER: Final = 4
VENDOR_CAPABILITY: Final = 0x09
CAP_COMMON, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI = 1, 2, 3, 4, 5
#: within the capability for access by configuration cycles
CAP_BAR, CAP_OFFSET, CAP_LENGTH, CAP_DATA = 4, 8, 12, 16

NO_VECTOR: Final = 0xFFFF
PARTS: Final = ("descriptors", "available", "used")

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
            bars.append(Bar(LEGACY_BAR, LEGACY_PORTS, True, _LegacyPorts(self)))
        if modern:
            self._window = _ModernWindow(self)
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


class _LegacyPorts:
    """The registers of a driver from before version 1."""

    def __init__(self, owner: VirtioPci) -> None:
        self._owner = owner

    def read(self, offset: int, size: int) -> int:
        owner = self._owner
        if offset >= Port.CONFIG:
            return owner.read_config(offset - Port.CONFIG, size)
        queue = owner.queue()
        match offset:
            case Port.FEATURES:
                value = owner.device.offered & 0xFFFFFFFF
            case Port.QUEUE_PAGE:
                value = queue.descriptors // LEGACY_PAGE if queue is not None and queue.ready else 0
            case Port.QUEUE_SIZE:
                value = queue.largest if queue is not None else 0
            case Port.QUEUE_SELECT:
                value = owner.queue_select
            case Port.STATUS:
                value = owner.device.status
            case Port.INTERRUPT_STATUS:
                value = owner.take_interrupt_status()
            case _:
                value = 0
        return value & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        owner = self._owner
        if offset >= Port.CONFIG:
            owner.device.write_configuration(offset - Port.CONFIG, value.to_bytes(size, "little"))
            return
        match offset:
            case Port.DRIVER_FEATURES:
                owner.device.set_driver_features(0, value & 0xFFFFFFFF & owner.device.offered)
            case Port.QUEUE_PAGE:
                self._place(value & 0xFFFFFFFF)
            case Port.QUEUE_SELECT:
                owner.queue_select = value & 0xFFFF
            case Port.QUEUE_NOTIFY:
                owner.device.notify(value & 0xFFFF)
            case Port.STATUS:
                owner.set_status(value & 0xFF)

    def _place(self, page: int) -> None:
        """One contiguous ring (2.7.2)."""
        queue = self._owner.queue()
        if page == 0:  # as in QEMU: the driver lets go of the device
            self._owner.set_status(0)
            return
        if queue is None:
            return
        queue.size = queue.largest
        queue.descriptors = page * LEGACY_PAGE
        queue.available = queue.descriptors + 16 * queue.size
        end = queue.available + 4 + 2 * queue.size + 2
        queue.used = -(-end // LEGACY_PAGE) * LEGACY_PAGE
        queue.ready = True


class _ModernWindow:
    """The four structures; fields take accesses of their own width (4.1.3.1), addresses also of 8 bytes."""

    def __init__(self, owner: VirtioPci) -> None:
        self._owner = owner

    def read(self, offset: int, size: int) -> int:
        owner, within = self._owner, offset % STRUCTURE_BYTES
        match offset - within:
            case Structure.COMMON if size == 8:
                return self._read_common(within) & 0xFFFFFFFF | (self._read_common(within + 4) & 0xFFFFFFFF) << 32
            case Structure.COMMON:
                return self._read_common(within) & (1 << 8 * size) - 1
            case Structure.INTERRUPT:
                return owner.take_interrupt_status() if within == 0 else 0
            case Structure.CONFIG:
                return owner.read_config(within, size)
            case _:
                return 0

    def write(self, offset: int, size: int, value: int) -> None:
        owner, within = self._owner, offset % STRUCTURE_BYTES
        match offset - within:
            case Structure.COMMON if size == 8:
                self._write_common(within, value & 0xFFFFFFFF)
                self._write_common(within + 4, value >> 32)
            case Structure.COMMON:
                self._write_common(within, value)
            case Structure.CONFIG:
                owner.device.write_configuration(within, value.to_bytes(size, "little"))
            case Structure.NOTIFY:
                owner.device.notify(within // NOTIFY_MULTIPLIER)

    def _read_common(self, offset: int) -> int:
        owner, queue = self._owner, self._owner.queue()
        if Common.ADDRESSES <= offset < Common.ADDRESSES + 24:
            part, high = divmod(offset - Common.ADDRESSES, 8)
            return getattr(queue, PARTS[part]) >> 8 * high if queue is not None else 0
        match offset:
            case Common.SELECT_FEATURES:
                return owner.device_features_select
            case Common.FEATURES:
                half = owner.device_features_select
                return owner.device.offered >> 32 * half if half < 2 else 0
            case Common.SELECT_DRIVER_FEATURES:
                return owner.driver_features_select
            case Common.DRIVER_FEATURES:
                return owner.device.driver_features(owner.driver_features_select)
            case Common.CONFIG_VECTOR | Common.QUEUE_VECTOR:
                return NO_VECTOR
            case Common.QUEUE_COUNT:
                return len(owner.device.queues)
            case Common.STATUS:
                return owner.device.status
            case Common.GENERATION:
                return owner.device.generation & 0xFF
            case Common.QUEUE_SELECT:
                return owner.queue_select
            case Common.QUEUE_SIZE:
                return queue.size if queue is not None else 0
            case Common.QUEUE_ENABLE:
                return int(queue is not None and queue.ready)
            case Common.QUEUE_NOTIFY_OFFSET:
                return owner.queue_select if queue is not None else 0
            case _:
                return 0

    def _write_common(self, offset: int, value: int) -> None:
        owner, queue = self._owner, self._owner.queue()
        if Common.ADDRESSES <= offset < Common.ADDRESSES + 24 and not offset & 3:
            if queue is not None and not queue.ready:
                part, high = divmod(offset - Common.ADDRESSES, 8)
                old, shift = getattr(queue, PARTS[part]), 8 * high
                setattr(queue, PARTS[part], old & ~(0xFFFFFFFF << shift) | (value & 0xFFFFFFFF) << shift)
            return
        match offset:
            case Common.SELECT_FEATURES:
                owner.device_features_select = value & 0xFFFFFFFF
            case Common.SELECT_DRIVER_FEATURES:
                owner.driver_features_select = value & 0xFFFFFFFF
            case Common.DRIVER_FEATURES:
                owner.device.set_driver_features(owner.driver_features_select, value & 0xFFFFFFFF)
            case Common.STATUS:
                owner.set_status(value & 0xFF)
            case Common.QUEUE_SELECT:
                owner.queue_select = value & 0xFFFF
            case Common.QUEUE_SIZE:
                size = value & 0xFFFF
                fits = 0 < size <= LARGEST_QUEUE and not size & size - 1
                if queue is not None and not queue.ready and fits and size <= queue.largest:
                    queue.size = size
            case Common.QUEUE_ENABLE:
                if queue is not None and value & 1:
                    queue.ready = True
