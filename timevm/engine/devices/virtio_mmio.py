"""virtio over MMIO (Virtual I/O Device 1.2, section 4.2): registers of one device, or of an empty slot.

``modern`` False is the legacy interface (version 1, section 4.2.4), which QEMU's ``virt`` machine has unless it is told
``force-legacy=off``; True is version 2.  Registers are 32 bits wide: other accesses read as zero and do nothing, as in
QEMU; the configuration (from 0x100) takes any width.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from timevm.engine.devices.base import InterruptLine
from timevm.engine.devices.virtio import VirtioDevice
from timevm.engine.devices.virtqueue import LARGEST_QUEUE, Virtqueue

MAGIC: Final = int.from_bytes(b"virt", "little")
VENDOR: Final = int.from_bytes(b"QEMU", "little")


class Register(IntEnum):
    """Offsets, tables 4.1 and 4.2.4; those of 64 bits are a low and a high word."""

    MAGIC_VALUE = 0x000
    VERSION = 0x004
    DEVICE_ID = 0x008
    VENDOR_ID = 0x00C
    DEVICE_FEATURES = 0x010
    DEVICE_FEATURES_SEL = 0x014
    DRIVER_FEATURES = 0x020
    DRIVER_FEATURES_SEL = 0x024
    GUEST_PAGE_SIZE = 0x028
    QUEUE_SEL = 0x030
    QUEUE_NUM_MAX = 0x034
    QUEUE_NUM = 0x038
    QUEUE_ALIGN = 0x03C
    QUEUE_PFN = 0x040
    QUEUE_READY = 0x044
    QUEUE_NOTIFY = 0x050
    INTERRUPT_STATUS = 0x060
    INTERRUPT_ACK = 0x064
    STATUS = 0x070
    QUEUE_DESC = 0x080
    QUEUE_DRIVER = 0x090
    QUEUE_DEVICE = 0x0A0
    SHM_LENGTH = 0x0B0
    SHM_BASE = 0x0B8
    CONFIG_GENERATION = 0x0FC
    CONFIG = 0x100


# InterruptStatus
USED_BUFFER, CONFIG_CHANGE = 1, 2

#: the halves of the queue's addresses: register -> attribute of Virtqueue, shift
QUEUE_ADDRESSES: Final = {
    base + 4 * half: (part, 32 * half)
    for base, part in (
        (Register.QUEUE_DESC, "descriptors"),
        (Register.QUEUE_DRIVER, "available"),
        (Register.QUEUE_DEVICE, "used"),
    )
    for half in (0, 1)
}
SHARED_MEMORY: Final = frozenset(range(Register.SHM_LENGTH, Register.SHM_BASE + 8, 4))
POWER_ON: Final = {
    "device_features_sel": 0,
    "driver_features_sel": 0,
    "queue_sel": 0,
    "page_size": 0,
    "align": 0,
    "interrupt_status": 0,
}


class VirtioMmio:
    """A Device and Stateful, and the VirtioTransport of ``device`` (None: an empty slot), whose state it includes."""

    window = 0x200

    def __init__(self, name: str, interrupt: InterruptLine, device: VirtioDevice | None, *, modern: bool) -> None:
        self.name = name
        self._interrupt = interrupt
        self._device = device
        self._modern = modern
        self._version = 2 if modern else 1
        if device is not None:
            device.connect(self, modern=modern)
        self.reset()

    def reset(self) -> None:
        self._registers = dict(POWER_ON)
        if self._device is not None:
            self._device.reset()

    def traits(self) -> dict[str, Any]:
        return {} if self._device is None else self._device.traits()

    def state(self) -> dict[str, Any]:
        return {**self._registers, "device": None if self._device is None else self._device.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self._registers = {name: state[name] for name in POWER_ON}
        if self._device is not None:
            self._device.restore(state["device"])

    # VirtioTransport

    def queue_interrupt(self, queue: int) -> None:
        self._raise(USED_BUFFER)

    def config_interrupt(self) -> None:
        self._raise(CONFIG_CHANGE)

    def _raise(self, reason: int) -> None:
        self._registers["interrupt_status"] |= reason
        self._interrupt.set(True)

    # the guest

    def read(self, offset: int, size: int) -> int:
        if self._device is None:
            empty: dict[int, int] = {
                Register.MAGIC_VALUE: MAGIC,
                Register.VERSION: self._version,
                Register.VENDOR_ID: VENDOR,
            }
            return empty.get(offset, 0) if size == 4 else 0
        if offset >= Register.CONFIG:
            configuration = self._device.configuration()
            start = offset - Register.CONFIG
            return int.from_bytes(configuration[start : start + size], "little")
        return self._read_register(self._device, offset) & 0xFFFFFFFF if size == 4 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        if self._device is None:
            return
        if offset >= Register.CONFIG:
            self._device.write_configuration(offset - Register.CONFIG, value.to_bytes(size, "little"))
        elif size == 4:
            self._write_register(self._device, offset, value)

    def _queue(self, device: VirtioDevice) -> Virtqueue | None:
        """The selected queue, None if there is no such one."""
        number = self._registers["queue_sel"]
        return device.queues[number] if number < len(device.queues) else None

    def _read_register(self, device: VirtioDevice, offset: int) -> int:
        registers = self._registers
        queue = self._queue(device)
        match offset:
            case Register.MAGIC_VALUE:
                return MAGIC
            case Register.VERSION:
                return self._version
            case Register.DEVICE_ID:
                return device.device_id
            case Register.VENDOR_ID:
                return VENDOR
            case Register.DEVICE_FEATURES:
                half = registers["device_features_sel"]
                return device.offered >> 32 * half if half < (2 if self._modern else 1) else 0
            case Register.QUEUE_NUM_MAX:
                return queue.largest if queue is not None else 0
            case Register.QUEUE_PFN if not self._modern:
                return self._page_number(queue)
            case Register.QUEUE_READY if self._modern:
                return int(queue is not None and queue.ready)
            case Register.INTERRUPT_STATUS:
                return registers["interrupt_status"]
            case Register.STATUS:
                return device.status
            case _ if self._modern and offset in SHARED_MEMORY:
                return 0xFFFFFFFF  # there is none (4.2.2.1)
            case Register.CONFIG_GENERATION if self._modern:
                return device.generation
            case _:
                return 0

    def _page_number(self, queue: Virtqueue | None) -> int:
        page_size = self._registers["page_size"]
        return queue.descriptors // page_size if queue is not None and queue.ready and page_size else 0

    def _write_register(self, device: VirtioDevice, offset: int, value: int) -> None:
        registers = self._registers
        queue = self._queue(device)
        match offset:
            case Register.DEVICE_FEATURES_SEL:
                registers["device_features_sel"] = value
            case Register.DRIVER_FEATURES:
                if self._modern or not registers["driver_features_sel"]:
                    device.set_driver_features(registers["driver_features_sel"], value)
            case Register.DRIVER_FEATURES_SEL:
                registers["driver_features_sel"] = value
            case Register.GUEST_PAGE_SIZE if not self._modern:
                registers["page_size"] = value
            case Register.QUEUE_SEL:
                registers["queue_sel"] = value
            case Register.QUEUE_NUM:
                if queue is not None and _is_queue_size(value, queue.largest) and not queue.ready:
                    queue.size = value
            case Register.QUEUE_ALIGN if not self._modern:
                registers["align"] = value
            case Register.QUEUE_PFN if not self._modern:
                self._place_legacy(device, queue, value)
            case Register.QUEUE_READY if self._modern:
                if queue is not None:
                    queue.ready = bool(value & 1)
            case Register.QUEUE_NOTIFY:
                device.notify(value)
            case Register.INTERRUPT_ACK:
                registers["interrupt_status"] &= ~value
                self._interrupt.set(bool(registers["interrupt_status"]))
            case Register.STATUS:
                self._write_status(device, value & 0xFF)
            case _ if self._modern and offset in QUEUE_ADDRESSES and queue is not None and not queue.ready:
                part, shift = QUEUE_ADDRESSES[offset]
                setattr(queue, part, getattr(queue, part) & ~(0xFFFFFFFF << shift) | value << shift)

    def _write_status(self, device: VirtioDevice, value: int) -> None:
        if value:
            device.set_status(value)
            return
        device.driver_reset()  # a legacy driver sets the page size before it resets the device: that stays
        self._registers["interrupt_status"] = 0
        self._interrupt.set(False)

    def _place_legacy(self, device: VirtioDevice, queue: Virtqueue | None, page_number: int) -> None:
        """One contiguous ring (2.7.2): descriptors, available ring, and from the next boundary on the used ring."""
        if page_number == 0:  # as in QEMU: the driver lets go of the device
            self._write_status(device, 0)
            return
        page_size, align = self._registers["page_size"], self._registers["align"]
        if queue is None or not _is_power_of_two(page_size) or not _is_power_of_two(align):
            return
        queue.descriptors = page_number * page_size
        queue.available = queue.descriptors + 16 * queue.size
        end = queue.available + 4 + 2 * queue.size + 2
        queue.used = (end + align - 1) // align * align
        queue.ready = True


def _is_power_of_two(value: int) -> bool:
    return value > 0 and not value & value - 1


def _is_queue_size(value: int, largest: int) -> bool:
    return _is_power_of_two(value) and value <= min(largest, LARGEST_QUEUE)
