"""The other side of virtio-mmio: RAM, and a driver of a few lines that does what Linux's does."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.engine.devices.wires import Wire
from timevm.engine.devices.base import DmaError
from timevm.engine.devices.block_port import Completed
from timevm.engine.devices.virtio import EVENT_IDX, VERSION_1, VirtioDevice
from timevm.engine.devices.virtio_mmio import Register, VirtioMmio
from timevm.engine.devices.virtqueue import INDIRECT, NEXT, WRITE

RAM_BASE, RAM_SIZE = 0x4000_0000, 1 << 20
PAGE = 4096


class Memory:
    """``GuestMemory`` over a bytearray; ``writes`` counts."""

    def __init__(self, base: int = RAM_BASE, size: int = RAM_SIZE) -> None:
        self.base = base
        self.data = bytearray(size)
        self.writes: list[tuple[int, bytes]] = []

    def _place(self, address: int, size: int) -> int:
        place = address - self.base
        if place < 0 or place + size > len(self.data):
            raise DmaError(f"{size} bytes at {address:#x}")
        return place

    def read(self, address: int, size: int) -> bytes:
        place = self._place(address, size)
        return bytes(self.data[place : place + size])

    def write(self, address: int, data: bytes) -> None:
        place = self._place(address, len(data))
        self.data[place : place + len(data)] = data
        self.writes.append((address, data))


def _nobody(request: int, data: bytes | None) -> None:
    """Until a controller is there."""


class ManualDisk:
    """A BlockPort that does everything at once but completes it when the test says so."""

    def __init__(self, size: int = 1 << 20, *, read_only: bool = False) -> None:
        self.data = bytearray(size)
        self.read_only = read_only
        self.room = 1000
        self.log: list[tuple[Any, ...]] = []
        self.in_flight: dict[int, bytes] = {}
        self.next = 0
        self.completed: Completed = _nobody

    @property
    def size(self) -> int:
        return len(self.data)

    def has_room(self) -> bool:
        return len(self.in_flight) < self.room

    def _submit(self, *what: Any, result: bytes = b"") -> int:
        self.log.append(what)
        self.in_flight[self.next] = result
        self.next += 1
        return self.next - 1

    def read(self, offset: int, length: int) -> int:
        assert 0 <= offset <= offset + length <= self.size
        return self._submit("read", offset, length, result=bytes(self.data[offset : offset + length]))

    def write(self, offset: int, data: bytes) -> int:
        assert not self.read_only and 0 <= offset <= offset + len(data) <= self.size
        self.data[offset : offset + len(data)] = data
        return self._submit("write", offset, data)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> int:
        assert not self.read_only and 0 <= offset <= offset + length <= self.size
        self.data[offset : offset + length] = bytes(length)
        return self._submit("zero", offset, length, unmap)

    def flush(self) -> int:
        return self._submit("flush")

    def complete(self, request: int | None = None, *, failed: bool = False) -> None:
        """The oldest by default."""
        number = min(self.in_flight) if request is None else request
        data = self.in_flight.pop(number)
        self.completed(number, None if failed else data)

    def complete_all(self) -> None:
        while self.in_flight:
            self.complete()


@dataclass
class Ring:
    """A queue as the driver has it."""

    number: int
    size: int
    descriptors: int
    available: int
    used: int
    next_available: int = 0
    seen_used: int = 0


class Driver:
    """Drives ``mmio``; raises AssertionError where the device does not do as the specification says."""

    def __init__(
        self, mmio: VirtioMmio, memory: Memory, *, modern: bool, features: int | None = None, size: int = 8
    ) -> None:
        self.mmio, self.memory, self.modern = mmio, memory, modern
        self.wanted = features
        self.queue_size = size
        self.rings: list[Ring] = []
        self.free = RAM_BASE + 0x10000  # where buffers go
        self.heads: dict[int, list[int]] = {}

    def read(self, register: int, size: int = 4) -> int:
        return self.mmio.read(register, size)

    def write(self, register: int, value: int, size: int = 4) -> None:
        self.mmio.write(register, size, value)

    def start(self, queues: int = 1) -> Driver:
        """From reset to DRIVER_OK."""
        self.write(Register.STATUS, 0)
        assert self.read(Register.STATUS) == 0
        self.write(Register.STATUS, 1)
        self.write(Register.STATUS, 3)
        offered = 0
        for half in range(2):
            self.write(Register.DEVICE_FEATURES_SEL, half)
            offered |= self.read(Register.DEVICE_FEATURES) << 32 * half
        assert bool(offered & VERSION_1) is self.modern
        self.features = offered if self.wanted is None else offered & (self.wanted | VERSION_1)
        for half in range(2 if self.modern else 1):
            self.write(Register.DRIVER_FEATURES_SEL, half)
            self.write(Register.DRIVER_FEATURES, self.features >> 32 * half & 0xFFFFFFFF)
        if self.modern:
            self.write(Register.STATUS, 11)
            assert self.read(Register.STATUS) == 11
        else:
            self.write(Register.GUEST_PAGE_SIZE, PAGE)
        self.rings = [self._ring(number) for number in range(queues)]
        status = 15 if self.modern else 7
        self.write(Register.STATUS, status)
        assert self.read(Register.STATUS) == status
        return self

    def _ring(self, number: int) -> Ring:
        self.write(Register.QUEUE_SEL, number)
        assert self.read(Register.QUEUE_NUM_MAX) >= self.queue_size
        self.write(Register.QUEUE_NUM, self.queue_size)
        base = RAM_BASE + 2 * PAGE * number
        ring = Ring(number, self.queue_size, base, base + 16 * self.queue_size, base + PAGE)
        self.memory.data[base - RAM_BASE : base - RAM_BASE + 2 * PAGE] = bytes(2 * PAGE)
        if self.modern:
            assert self.read(Register.QUEUE_READY) == 0
            for register, address in (
                (Register.QUEUE_DESC, ring.descriptors),
                (Register.QUEUE_DRIVER, ring.available),
                (Register.QUEUE_DEVICE, ring.used),
            ):
                self.write(register, address & 0xFFFFFFFF)
                self.write(register + 4, address >> 32)
            self.write(Register.QUEUE_READY, 1)
            assert self.read(Register.QUEUE_READY) == 1
        else:
            self.write(Register.QUEUE_ALIGN, PAGE)
            self.write(Register.QUEUE_PFN, base // PAGE)
            assert self.read(Register.QUEUE_PFN) == base // PAGE
        return ring

    def place(self, data: bytes) -> int:
        """``data`` somewhere in RAM."""
        address = self.free
        self.memory.data[address - RAM_BASE : address - RAM_BASE + len(data)] = data
        self.free += -(-len(data) // 16) * 16 + 16
        return address

    def add(
        self, out: Sequence[tuple[int, int]], into: Sequence[tuple[int, int]], *, indirect: bool = False, queue: int = 0
    ) -> int:
        """A chain of (address, length); its head."""
        ring = self.rings[queue]
        parts = [(*part, 0) for part in out] + [(*part, WRITE) for part in into]
        used = {number for chain in self.heads.values() for number in chain}
        slots = [number for number in range(ring.size) if number not in used][: 1 if indirect else len(parts)]
        assert len(slots) == (1 if indirect else len(parts)), "no free descriptors"
        numbers = list(range(len(parts))) if indirect else slots
        table = []
        for index, (address, length, flags) in enumerate(parts):
            last = index == len(parts) - 1
            following = 0 if last else numbers[index + 1]
            table.append(struct.pack("<QIHH", address, length, flags | (0 if last else NEXT), following))
        if indirect:
            where = self.place(b"".join(table))
            table = [struct.pack("<QIHH", where, 16 * len(parts), INDIRECT, 0)]
        for slot, descriptor in zip(slots, table, strict=True):
            self.memory.write(ring.descriptors + 16 * slot, descriptor)
        head = slots[0]
        self.heads[head] = slots
        self.memory.write(ring.available + 4 + 2 * (ring.next_available % ring.size), head.to_bytes(2, "little"))
        ring.next_available = (ring.next_available + 1) & 0xFFFF
        self.memory.write(ring.available + 2, ring.next_available.to_bytes(2, "little"))
        return head

    def kick(self, queue: int = 0) -> None:
        self.write(Register.QUEUE_NOTIFY, queue)

    def used(self, queue: int = 0) -> list[tuple[int, int]]:
        """(head, bytes written) of what the device is done with since the last call."""
        ring = self.rings[queue]
        index = int.from_bytes(self.memory.read(ring.used + 2, 2), "little")
        done = []
        while ring.seen_used != index:
            head, written = struct.unpack("<II", self.memory.read(ring.used + 4 + 8 * (ring.seen_used % ring.size), 8))
            self.heads.pop(head)
            done.append((head, written))
            ring.seen_used = (ring.seen_used + 1) & 0xFFFF
        if self.features & EVENT_IDX:  # the next one interrupts again
            self.memory.write(ring.available + 4 + 2 * ring.size, ring.seen_used.to_bytes(2, "little"))
        return done

    def interrupts(self) -> int:
        """InterruptStatus, acknowledged."""
        reasons = self.read(Register.INTERRUPT_STATUS)
        self.write(Register.INTERRUPT_ACK, reasons)
        return reasons


class VirtioRig:
    """For the conformance suite: a device in its slot."""

    def __init__(self, device: VirtioDevice, memory: Memory, *, modern: bool, disk: ManualDisk | None = None) -> None:
        self.wire = Wire()
        self.memory = memory
        self.disk = disk
        self.device = VirtioMmio("virtio", self.wire, device, modern=modern)
        self.windows = [self.device]

    def outside(self, number: int) -> None:
        if self.disk is not None and self.disk.in_flight:
            self.disk.complete(sorted(self.disk.in_flight)[number % len(self.disk.in_flight)], failed=number % 5 == 0)

    def calls(self) -> list[Any]:
        return [*self.wire.calls, *self.memory.writes]

    def surroundings(self) -> Any:
        disk = self.disk
        return bytes(self.memory.data), disk and (bytes(disk.data), dict(disk.in_flight), disk.next)

    def restore_surroundings(self, state: Any) -> None:
        self.memory.data[:] = state[0]
        if self.disk is not None:
            self.disk.data[:] = state[1][0]
            self.disk.in_flight, self.disk.next = dict(state[1][1]), state[1][2]
