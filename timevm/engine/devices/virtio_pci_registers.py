"""The registers of virtio over PCI: the legacy ports and the modern structures (Virtual I/O Device 1.2, 4.1.4)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Protocol

from timevm.engine.devices.virtio import VirtioDevice
from timevm.engine.devices.virtqueue import LARGEST_QUEUE, Virtqueue

LEGACY_PORTS, LEGACY_PAGE = 64, 4096
#: the memory window, and how much of it each structure has
MODERN_WINDOW, STRUCTURE_BYTES = 0x4000, 0x1000
NOTIFY_MULTIPLIER: Final = 4
NO_VECTOR: Final = 0xFFFF
PARTS: Final = ("descriptors", "available", "used")


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


class Owner(Protocol):
    """The PCI function: what both sets of registers work on."""

    device: VirtioDevice
    device_features_select: int
    driver_features_select: int
    queue_select: int

    def queue(self) -> Virtqueue | None:
        """The selected one, None if there is no such queue."""

    def set_status(self, value: int) -> None: ...

    def read_config(self, offset: int, size: int) -> int: ...

    def take_interrupt_status(self) -> int: ...


class LegacyPorts:
    """The registers of a driver from before version 1."""

    def __init__(self, owner: Owner) -> None:
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


class ModernWindow:
    """The four structures; fields take accesses of their own width (4.1.3.1), addresses also of 8 bytes."""

    def __init__(self, owner: Owner) -> None:
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
