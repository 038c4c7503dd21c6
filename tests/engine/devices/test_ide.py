"""IDE channel, ATA disk and bus master against ATA/ATAPI-7 and Intel's bus-master specification."""

from __future__ import annotations

import struct
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.virtio_driver import RAM_BASE, ManualDisk, Memory
from tests.engine.devices.wires import Wire
from timevm.engine.devices.ata_disk import AtaDisk
from timevm.engine.devices.base import Device
from timevm.engine.devices.ide_bus_master import BusMaster
from timevm.engine.devices.ide_channel import IdeChannel

SECTORS = 4096
TABLE, BUFFER = RAM_BASE, RAM_BASE + 0x1000
COUNT, LOW, MID, HIGH, DEVICE, COMMAND = 2, 3, 4, 5, 6, 7


class IdeRig:
    def __init__(self, *, read_only: bool = False) -> None:
        self.log: list[Any] = []
        self.wire = Wire(self.log)
        self.memory = Memory(size=1 << 20)
        self.master = BusMaster("dma", self.memory, lambda: True)
        self.device = IdeChannel("ide0", self.wire, self.master)
        self.disk = ManualDisk(SECTORS * 512, read_only=read_only)
        self.disk.data[:] = b"".join(struct.pack("<I", number) * 128 for number in range(SECTORS))
        self.drive = AtaDisk("hda", self.device, self.disk)
        self.device.plug(0, self.drive)
        self.windows: list[Device] = [self.device.command_block, self.device.control_block, self.master]

    # Rig; the state of the bus master belongs to the PCI function, not to the channel

    def outside(self, number: int) -> None:
        if self.disk.in_flight:
            self.disk.complete(failed=number % 5 == 0)

    def calls(self) -> list[Any]:
        return [*self.log]

    def surroundings(self) -> Any:
        disk = (bytes(self.disk.data), dict(self.disk.in_flight), self.disk.next)
        return deepcopy((disk, self.master.state(), bytes(self.memory.data)))

    def restore_surroundings(self, state: Any) -> None:
        (data, in_flight, following), master, memory = deepcopy(state)
        self.disk.data, self.disk.in_flight, self.disk.next = bytearray(data), in_flight, following
        self.master.restore(master)
        self.memory.data = bytearray(memory)

    # the driver

    def read(self, offset: int, size: int = 1) -> int:
        return self.device.command_block.read(offset, size)

    def write(self, offset: int, value: int, size: int = 1) -> None:
        self.device.command_block.write(offset, size, value)

    def status(self) -> int:
        return self.device.control_block.read(0, 1)

    def command(self, command: int, sector: int = 0, count: int = 1, *, wide: bool = False) -> None:
        if wide:
            for offset, value in ((COUNT, count >> 8), (LOW, sector >> 24), (MID, sector >> 32), (HIGH, sector >> 40)):
                self.write(offset, value & 0xFF)
            self.write(DEVICE, 0xE0)
        else:
            self.write(DEVICE, 0xE0 | sector >> 24 & 0xF)
        for offset, value in ((COUNT, count), (LOW, sector), (MID, sector >> 8), (HIGH, sector >> 16)):
            self.write(offset, value & 0xFF)
        self.write(COMMAND, command)

    def interrupt(self) -> int:
        """It is there; the status that clears it."""
        assert self.wire.level
        status = self.read(COMMAND)
        assert not self.wire.level
        return status

    def take(self, size: int = 512) -> bytes:
        return b"".join(struct.pack("<H", self.read(0, 2)) for _ in range(size // 2))

    def give(self, data: bytes) -> None:
        for (word,) in struct.iter_unpack("<I", data):
            self.write(0, word, 4)

    def table(self, *entries: tuple[int, int]) -> None:
        """(address, bytes) of each descriptor."""
        packed = [
            struct.pack("<IHH", address, size & 0xFFFF, 0x8000 * (number == len(entries) - 1))
            for number, (address, size) in enumerate(entries)
        ]
        self.memory.write(TABLE, b"".join(packed))
        self.master.write(4, 4, TABLE)

    def start(self, to_memory: bool) -> None:
        self.master.write(0, 1, 1 | 8 * to_memory)

    def stop(self) -> int:
        self.master.write(0, 1, 0)
        status = self.master.read(2, 1)
        self.master.write(2, 1, 6)
        return status

    def sectors(self, first: int, count: int) -> bytes:
        return bytes(self.disk.data[512 * first : 512 * (first + count)])


COMMANDS = [0x20, 0x30, 0xC4, 0xC5, 0xC8, 0xCA, 0x25, 0x35, 0xE7, 0xEC, 0xEF, 0xC6, 0x91, 0x90, 0x24, 0x34, 0xE5, 0xF8]
IDE_STEPS = steps(
    [0, 0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 7, 7],
    st.one_of(st.sampled_from(COMMANDS), st.sampled_from(COMMANDS), st.integers(0, 255), st.sampled_from([1, 2, 0xE0])),
)


@settings(deadline=None)
@given(IDE_STEPS, IDE_STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(IdeRig, before, after)


def test_signature_and_reset() -> None:
    rig = IdeRig()
    assert [rig.read(offset) for offset in range(1, 8)] == [1, 1, 1, 0, 0, 0xA0, 0x50]
    rig.command(0x20)
    rig.device.control_block.write(0, 1, 0x04)
    assert rig.status() == 0x80
    rig.device.control_block.write(0, 1, 0)
    assert rig.status() == 0x50 and not rig.wire.level
    rig.disk.complete_all()
    assert rig.status() == 0x50, "the request was let go"


def test_an_empty_place_reads_as_zero() -> None:
    rig = IdeRig()
    rig.write(DEVICE, 0xB0)
    assert rig.read(COMMAND) == 0 and rig.status() == 0
    rig.write(COMMAND, 0xEC)
    assert not rig.wire.level
    rig.device.plug(0, None)
    rig.write(DEVICE, 0xA0)
    assert [rig.read(offset) for offset in range(8)] == [0] * 8


def test_identify() -> None:
    rig = IdeRig()
    rig.command(0xEC)
    assert rig.interrupt() == 0x58
    words = struct.unpack("<256H", rig.take())
    assert rig.status() == 0x50
    assert words[60] | words[61] << 16 == SECTORS == words[100] | words[101] << 16
    swapped = b"".join(struct.pack(">H", word) for word in words[27:47])
    assert swapped.rstrip() == b"QEMU HARDDISK"
    assert words[1] * words[3] * words[6] == words[57] | words[58] << 16 == SECTORS // 1008 * 1008
    assert words[49] & 0x0300 and words[83] & 0x0400 and words[88] == 0x203F


def test_read_sectors_by_port() -> None:
    rig = IdeRig()
    rig.command(0x20, 7, 3)
    assert rig.status() == 0x80
    rig.disk.complete()
    got = b""
    for _ in range(3):
        assert rig.interrupt() == 0x58
        got += rig.take()
    assert got == rig.sectors(7, 3) and rig.status() == 0x50 and not rig.wire.level
    assert rig.read(LOW) == 9


def test_long_reads_come_in_several_requests() -> None:
    rig = IdeRig()
    rig.command(0x24, 1, 600, wide=True)
    got = b""
    for size in (256, 256, 88):
        rig.disk.complete()
        for _ in range(size):
            rig.interrupt()
            got += rig.take()
    assert got == rig.sectors(1, 600) and rig.status() == 0x50
    assert [entry[2] for entry in rig.disk.log] == [256 * 512, 256 * 512, 88 * 512]


def test_read_multiple() -> None:
    rig = IdeRig()
    rig.command(0xC6, 0, 4)
    assert rig.interrupt() == 0x50
    rig.command(0xC4, 100, 6)
    rig.disk.complete()
    rig.interrupt()
    got = rig.take(4 * 512)
    rig.interrupt()
    got += rig.take(2 * 512)
    assert got == rig.sectors(100, 6) and rig.status() == 0x50
    rig.command(0xC6, 0, 3)
    assert rig.interrupt() == 0x51 and rig.read(1) == 4


def test_write_sectors_by_port() -> None:
    rig = IdeRig()
    data = bytes(range(256)) * 4
    rig.command(0x30, 20, 2)
    assert rig.status() == 0x58 and not rig.wire.level
    rig.give(data[:512])
    assert rig.status() == 0x80
    rig.disk.complete()
    assert rig.interrupt() == 0x58
    rig.give(data[512:])
    rig.disk.complete()
    assert rig.interrupt() == 0x50
    assert rig.sectors(20, 2) == data


def test_without_write_cache_a_write_ends_with_a_flush() -> None:
    rig = IdeRig()
    rig.write(1, 0x82)
    rig.command(0xEF)
    rig.disk.complete()
    assert rig.interrupt() == 0x50
    rig.command(0x30, 5)
    rig.give(bytes(512))
    rig.disk.complete()
    assert rig.status() == 0x80
    rig.disk.complete()
    assert rig.interrupt() == 0x50 and rig.disk.log[-1] == ("flush",)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 40)), min_size=1, max_size=12), st.booleans())
@settings(deadline=None)
def test_dma_scatters_and_gathers(pieces: list[tuple[int, int]], wide: bool) -> None:
    """Reads and writes through any table with room: pieces of 16 bytes, here and there in the buffer."""
    rig = IdeRig()
    entries = []
    for number, (gap, units) in enumerate(pieces):
        entries.append((BUFFER + number * 0x2000 + 2 * gap, 16 * units))
    size = sum(length for _, length in entries)
    count = size // 512
    if not count:
        return
    rig.table(*entries)
    rig.command(0x25 if wide else 0xC8, 33, count, wide=wide)
    rig.start(to_memory=True)
    assert rig.status() == 0x80
    rig.disk.complete()
    assert rig.interrupt() == 0x50
    status = rig.stop()
    assert status & 6 == 4
    got = b"".join(rig.memory.read(address, length) for address, length in entries)
    assert got[: 512 * count] == rig.sectors(33, count)
    rig.command(0x35 if wide else 0xCA, 900, count, wide=wide)
    rig.start(to_memory=False)
    rig.disk.complete()
    assert rig.interrupt() == 0x50 and rig.stop() & 6 == 4
    assert rig.sectors(900, count) == rig.sectors(33, count)


def test_dma_status_bits() -> None:
    rig = IdeRig()
    rig.table((BUFFER, 1024))
    rig.command(0xC8, 0, 2)
    rig.start(to_memory=True)
    rig.disk.complete()
    assert rig.master.read(2, 1) == 4, "table and transfer end together"
    rig.stop()
    rig.table((BUFFER, 4096))
    rig.command(0xC8, 0, 2)
    rig.start(to_memory=True)
    assert rig.master.read(2, 1) & 1
    rig.disk.complete()
    assert rig.master.read(2, 1) == 5, "the table has more room"
    rig.stop()
    rig.table((BUFFER, 512))
    rig.command(0xC8, 0, 2)
    rig.start(to_memory=True)
    rig.disk.complete()
    assert rig.interrupt() == 0x51 and rig.master.read(2, 1) & 1 == 0
    rig.stop()
    rig.table((0x10, 512))
    rig.command(0xCA, 0, 1)
    rig.start(to_memory=False)
    assert rig.interrupt() == 0x51 and rig.master.read(2, 1) & 2, "not RAM"


def test_the_engine_may_be_started_before_the_command() -> None:
    rig = IdeRig()
    rig.table((BUFFER, 512))
    rig.start(to_memory=True)
    rig.command(0xC8, 3)
    rig.disk.complete()
    assert rig.interrupt() == 0x50 and rig.memory.read(BUFFER, 512) == rig.sectors(3, 1)


def test_stopping_the_engine_lets_the_command_go() -> None:
    rig = IdeRig()
    rig.table((BUFFER, 512))
    rig.command(0xC8, 3)
    rig.start(to_memory=True)
    writes = len(rig.memory.writes)
    rig.stop()
    rig.disk.complete_all()
    assert rig.status() == 0x51 and len(rig.memory.writes) == writes


def test_a_function_that_is_no_master_reaches_no_memory() -> None:
    rig = IdeRig()
    rig.master._is_master = lambda: False
    rig.table((BUFFER, 512))
    rig.command(0xC8, 3)
    rig.start(to_memory=True)
    rig.disk.complete()
    assert rig.interrupt() == 0x51


def test_errors() -> None:
    rig = IdeRig()
    rig.command(0x20, SECTORS - 1, 2)
    assert rig.interrupt() == 0x51 and rig.read(1) == 0x10
    rig.command(0x20)
    rig.disk.complete(failed=True)
    assert rig.interrupt() == 0x51 and rig.read(1) == 0x40
    rig.command(0xE7)
    rig.disk.complete(failed=True)
    assert rig.interrupt() == 0x51 and rig.read(1) == 0x04
    for command in (0xA1, 0xA0, 0xB0, 0x06, 0xFF):
        rig.command(command)
        assert rig.interrupt() == 0x51 and rig.read(1) == 0x04
    rig.command(0x40, 5, 10)
    assert rig.interrupt() == 0x50 and rig.read(LOW) == 14


def test_a_read_only_disk_refuses_writes() -> None:
    rig = IdeRig(read_only=True)
    for command in (0x30, 0xCA):
        rig.command(command)
        assert rig.interrupt() == 0x51 and rig.read(1) == 4


def test_cylinders_heads_sectors() -> None:
    rig = IdeRig()
    for offset, value in ((DEVICE, 0xA2), (COUNT, 1), (LOW, 5), (MID, 1), (HIGH, 0), (COMMAND, 0x20)):
        rig.write(offset, value)
    rig.disk.complete()
    rig.interrupt()
    assert rig.take() == rig.sectors((1 * 16 + 2) * 63 + 4, 1)
    assert (rig.read(LOW), rig.read(MID), rig.read(DEVICE) & 0xF) == (5, 1, 2)
    rig.write(LOW, 0)
    rig.write(COMMAND, 0x20)
    assert rig.interrupt() == 0x51


def test_interrupt_mask_and_native_size() -> None:
    rig = IdeRig()
    rig.device.control_block.write(0, 1, 2)
    rig.command(0xE5)
    assert not rig.wire.level and rig.read(COUNT) == 0xFF
    rig.device.control_block.write(0, 1, 0)
    assert rig.interrupt() == 0x50
    rig.command(0x27, wide=True)
    rig.interrupt()
    last = SECTORS - 1
    assert (rig.read(LOW), rig.read(MID), rig.read(HIGH)) == (last & 0xFF, last >> 8, 0)
    rig.device.control_block.write(0, 1, 0x80)
    assert rig.read(LOW) == 0, "the previous contents"


@pytest.mark.parametrize(("count", "ok"), [(0x08, True), (0x22, True), (0x45, True), (0x46, False), (0x23, False)])
def test_transfer_modes(count: int, ok: bool) -> None:
    rig = IdeRig()
    rig.write(1, 3)
    rig.command(0xEF, 0, count)
    assert rig.interrupt() == (0x50 if ok else 0x51)


def test_registers_are_left_alone_while_a_command_runs() -> None:
    rig = IdeRig()
    rig.command(0x20, 7)
    rig.write(LOW, 0x55)
    rig.write(COMMAND, 0xEC)
    rig.disk.complete()
    rig.interrupt()
    assert rig.take() == rig.sectors(7, 1)
