"""virtio-blk against section 5.2 of the specification."""

from __future__ import annotations

import itertools
import struct
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.virtio_driver import RAM_BASE, RAM_SIZE, Driver, ManualDisk, Memory
from tests.engine.devices.wires import Wire
from timevm.engine.devices.virtio import EVENT_IDX, INDIRECT_DESC
from timevm.engine.devices.virtio_blk import (
    CONFIG_WCE,
    FLUSH,
    IOERR,
    MOST_ZEROES,
    OK,
    RO,
    UNSUPP,
    WRITEBACK_OFFSET,
    BlockOptions,
    RequestType,
    VirtioBlk,
)
from timevm.engine.devices.virtio_mmio import Register, VirtioMmio

NOT_YET = 0xFF


class Rig:
    """A started disk of 1 MiB, its driver, and requests of one call each."""

    def __init__(
        self,
        *,
        modern: bool = True,
        features: int | None = None,
        options: BlockOptions | None = None,
        read_only: bool = False,
        size: int = 1 << 20,
        queue_size: int = 64,
    ) -> None:
        self.memory, self.disk, self.wire = Memory(), ManualDisk(size, read_only=read_only), Wire()
        self.device = VirtioBlk("disk", self.memory, self.disk, options)
        self.mmio = VirtioMmio("virtio0", self.wire, self.device, modern=modern)
        self.driver = Driver(self.mmio, self.memory, modern=modern, features=features, size=queue_size)
        self.driver.start(queues=(options or BlockOptions()).queues)

    def request(
        self,
        kind: int,
        sector: int = 0,
        out: bytes = b"",
        room: int = 0,
        *,
        indirect: bool = False,
        queue: int = 0,
        kick: bool = True,
    ) -> tuple[int, int]:
        """Where its data and its status will be."""
        driver = self.driver
        header = driver.place(struct.pack("<IIQ", kind, 0, sector))
        status = driver.place(bytes([NOT_YET]))
        data = driver.place(out or bytes(room))
        sent = [(header, 16), (data, len(out))] if out else [(header, 16)]
        into = [(data, room), (status, 1)] if room else [(status, 1)]
        driver.add(sent, into, indirect=indirect, queue=queue)
        if kick:
            driver.kick(queue)
        return data, status

    def status(self, where: int) -> int:
        return self.memory.read(where, 1)[0]

    def now(self, kind: int, sector: int = 0, out: bytes = b"", room: int = 0, **options: Any) -> tuple[int, bytes]:
        """Request and completion; (status, what was read)."""
        data, status = self.request(kind, sector, out, room, **options)
        self.disk.complete_all()
        [(_, written)] = self.driver.used()
        answer = self.status(status)
        assert written == (room + 1 if room and answer == OK else 1)
        return answer, self.memory.read(data, room)


@pytest.mark.parametrize("modern", [False, True])
@pytest.mark.parametrize("features", [None, 0, EVENT_IDX, INDIRECT_DESC])
def test_what_was_written_is_read(modern: bool, features: int | None) -> None:
    rig = Rig(modern=modern, features=features)
    indirect = rig.device.has(INDIRECT_DESC)
    pattern = bytes(range(256)) * 8
    assert rig.now(RequestType.OUT, 5, pattern, indirect=indirect) == (OK, b"")
    assert rig.disk.data[5 * 512 : 5 * 512 + 2048] == pattern
    assert rig.now(RequestType.IN, 6, room=512, indirect=indirect) == (OK, pattern[512:1024])
    assert rig.now(RequestType.FLUSH) == (OK, b"")


def test_data_to_write_is_taken_at_once_and_data_read_comes_at_the_end() -> None:
    rig = Rig()
    data, status = rig.request(RequestType.OUT, 1, b"a" * 512)
    rig.memory.write(data, b"b" * 512)
    assert rig.disk.data[512:1024] == b"a" * 512 and rig.status(status) == NOT_YET
    rig.disk.complete()
    assert rig.status(status) == OK
    data, status = rig.request(RequestType.IN, 1, room=512)
    rig.disk.data[512:1024] = b"c" * 512
    assert rig.memory.read(data, 512) == bytes(512)
    rig.disk.complete()
    assert rig.memory.read(data, 512) == b"a" * 512 and rig.status(status) == OK


def test_many_requests_are_under_way_and_end_in_any_order() -> None:
    rig = Rig()
    for sector in range(8):
        rig.disk.data[sector * 512 : (sector + 1) * 512] = bytes([sector]) * 512
    places = [rig.request(RequestType.IN, sector, room=512) for sector in range(8)]
    order = [3, 7, 0, 1, 6, 2, 5, 4]
    for number in order:
        rig.disk.complete(number)
    assert [rig.memory.read(data, 512)[0] for data, _ in places] == list(range(8))
    assert [head for head, _ in rig.driver.used()] == [3 * number for number in order]


def test_more_requests_than_the_host_takes_wait_in_the_ring() -> None:
    rig = Rig()
    rig.disk.room = 2
    places = [rig.request(RequestType.IN, sector, room=512) for sector in range(6)]
    assert len(rig.disk.log) == 2
    rig.disk.complete()
    assert len(rig.disk.log) == 3
    rig.disk.complete_all()
    assert [rig.status(status) for _, status in places] == [OK] * 6


def test_the_host_could_not_do_it() -> None:
    rig = Rig()
    data, status = rig.request(RequestType.IN, 0, room=512)
    rig.memory.write(data, b"old" + bytes(509))
    rig.disk.complete(failed=True)
    assert rig.status(status) == IOERR and rig.memory.read(data, 3) == b"old"
    assert rig.driver.used() == [(0, 1)]


@pytest.mark.parametrize(
    ("kind", "sector", "out", "room", "answer"),
    [
        (RequestType.IN, 2048, b"", 512, IOERR),  # behind the end
        (RequestType.IN, 2047, b"", 1024, IOERR),
        (RequestType.IN, 2**64 - 1, b"", 512, IOERR),
        (RequestType.IN, 0, b"", 511, IOERR),  # no whole sector
        (RequestType.IN, 0, b"", 0, IOERR),
        (RequestType.OUT, 2048, b"x" * 512, 0, IOERR),
        (RequestType.OUT, 0, b"x" * 100, 0, IOERR),
        (RequestType.OUT, 0, b"", 0, IOERR),
        (77, 0, b"", 0, UNSUPP),
        (2, 0, b"", 0, UNSUPP),  # SCSI commands
        (RequestType.DISCARD, 0, b"x" * 15, 0, IOERR),
        (RequestType.DISCARD, 0, struct.pack("<QII", 0, 1, 0) * 2, 0, UNSUPP),
        (RequestType.DISCARD, 0, struct.pack("<QII", 0, 1, 1), 0, UNSUPP),
        (RequestType.WRITE_ZEROES, 0, struct.pack("<QII", 0, 1, 2), 0, UNSUPP),
        (RequestType.WRITE_ZEROES, 0, struct.pack("<QII", 0, 0, 0), 0, IOERR),
        (RequestType.WRITE_ZEROES, 0, struct.pack("<QII", 2048, 1, 0), 0, IOERR),
        (RequestType.WRITE_ZEROES, 0, struct.pack("<QII", 0, MOST_ZEROES + 1, 0), 0, IOERR),
    ],
)
def test_requests_that_cannot_be_done_say_so_at_once(
    kind: int, sector: int, out: bytes, room: int, answer: int
) -> None:
    rig = Rig()
    assert rig.now(kind, sector, out, room)[0] == answer
    assert not rig.disk.log
    assert rig.now(RequestType.FLUSH) == (OK, b"")  # and it works on


def test_discarding_and_zeroing() -> None:
    rig = Rig()
    rig.disk.data[:4096] = b"x" * 4096
    assert rig.now(RequestType.DISCARD, 0, struct.pack("<QII", 1, 2, 0)) == (OK, b"")
    assert rig.now(RequestType.WRITE_ZEROES, 0, struct.pack("<QII", 4, 1, 0)) == (OK, b"")
    assert rig.now(RequestType.WRITE_ZEROES, 0, struct.pack("<QII", 5, 1, 1)) == (OK, b"")
    assert rig.disk.log == [("zero", 512, 1024, True), ("zero", 2048, 512, False), ("zero", 2560, 512, True)]


@pytest.mark.parametrize(
    ("serial", "room", "answer"),
    [("ABC-1", 20, b"ABC-1" + bytes(15)), ("", 20, bytes(20)), ("x" * 30, 20, b"x" * 20), ("ABC", 2, b"AB")],
)
def test_the_serial_number(serial: str, room: int, answer: bytes) -> None:
    rig = Rig(options=BlockOptions(serial=serial))
    assert rig.now(RequestType.GET_ID, room=room) == (OK, answer)
    assert not rig.disk.log


def test_a_read_only_disk() -> None:
    rig = Rig(read_only=True)
    assert rig.device.has(RO)
    assert rig.now(RequestType.OUT, 0, b"x" * 512)[0] == IOERR
    assert rig.now(RequestType.DISCARD, 0, struct.pack("<QII", 0, 1, 0))[0] == IOERR
    assert rig.now(RequestType.IN, 0, room=512)[0] == OK


def test_the_configuration_is_that_of_qemu() -> None:
    """Read from qemu-system-aarch64 7.2 with a disk of 16 MiB: words 0 … 7 of it."""
    rig = Rig(size=16 << 20)
    words = [rig.mmio.read(Register.CONFIG + 4 * number, 4) for number in range(8)]
    assert words == [0x8000, 0, 0, 0xFE, 0x3F100020, 0x200, 0, 0]
    assert rig.mmio.read(Register.CONFIG + WRITEBACK_OFFSET, 1) == 1
    assert rig.mmio.read(Register.CONFIG + 34, 2) == 1  # queues


def test_block_sizes() -> None:
    options = BlockOptions(logical_block_size=4096, physical_block_size=16384, min_io_size=8192, opt_io_size=65536)
    rig = Rig(options=options)
    assert rig.mmio.read(Register.CONFIG + 20, 4) == 4096
    assert rig.mmio.read(Register.CONFIG + 24, 1) == 2
    assert rig.mmio.read(Register.CONFIG + 26, 2) == 2
    assert rig.mmio.read(Register.CONFIG + 28, 4) == 16
    assert rig.now(RequestType.IN, 0, room=512)[0] == IOERR
    assert rig.now(RequestType.IN, 1, room=4096)[0] == IOERR
    assert rig.now(RequestType.IN, 8, room=4096)[0] == OK


def test_without_a_write_cache_a_write_is_done_when_it_is_on_the_disk() -> None:
    for features, writeback, cached in (
        (FLUSH | CONFIG_WCE, 1, True),
        (FLUSH | CONFIG_WCE, 0, False),
        (FLUSH, None, True),
        (0, None, False),
    ):
        rig = Rig(features=features)
        if writeback is not None:
            rig.mmio.write(Register.CONFIG + WRITEBACK_OFFSET, 1, writeback)
        _, status = rig.request(RequestType.OUT, 0, b"x" * 512)
        rig.disk.complete()
        assert (rig.status(status) == OK) is cached
        assert [what[0] for what in rig.disk.log] == (["write"] if cached else ["write", "flush"])
        rig.disk.complete_all()
        assert rig.status(status) == OK and len(rig.driver.used()) == 1


def test_the_cache_is_not_switched_off_with_the_flush_under_way() -> None:
    rig = Rig(options=BlockOptions(write_cache=False))
    _, status = rig.request(RequestType.OUT, 0, b"x" * 512)
    rig.disk.complete()
    rig.disk.complete(failed=True)
    assert rig.status(status) == IOERR


def test_a_reset_leaves_requests_behind() -> None:
    """They are completed one day, and nobody is told: nothing of the new driver's memory changes."""
    rig = Rig()
    for sector in range(4):
        rig.request(RequestType.IN, sector, room=512)
    rig.driver.heads.clear()
    rig.driver.start()
    before = bytes(rig.memory.data)
    rig.disk.complete()
    rig.disk.complete(failed=True)
    assert rig.memory.data == before and not rig.wire.level
    # orphans do count against the room
    rig.disk.room = 2
    _, status = rig.request(RequestType.FLUSH)
    assert ("flush",) not in rig.disk.log
    rig.disk.complete()
    assert ("flush",) in rig.disk.log
    rig.disk.complete_all()
    assert rig.status(status) == OK


def test_several_queues() -> None:
    rig = Rig(options=BlockOptions(queues=3, queue_size=16), queue_size=16)
    assert rig.mmio.read(Register.CONFIG + 34, 2) == 3
    _, status = rig.request(RequestType.FLUSH, queue=2)
    rig.disk.complete()
    assert rig.status(status) == OK
    assert len(rig.driver.used(2)) == 1 and rig.driver.used(0) == []


def test_one_interrupt_for_what_the_driver_did_not_look_at_yet() -> None:
    rig = Rig(features=EVENT_IDX)
    for sector in range(3):
        rig.request(RequestType.IN, sector, room=512)
    rig.disk.complete()
    assert rig.driver.interrupts() == 1
    rig.disk.complete()
    assert rig.driver.interrupts() == 0  # the driver has not seen the first yet
    assert len(rig.driver.used()) == 2
    rig.disk.complete()
    assert rig.driver.interrupts() == 1


def test_header_and_data_in_pieces_of_any_size() -> None:
    rig = Rig()
    driver = rig.driver
    header, data = struct.pack("<IIQ", RequestType.OUT, 0, 3), bytes(range(256)) * 2
    whole = header + data
    cuts = [0, 1, 7, 16, 17, 300, len(whole)]
    out = [(driver.place(whole[a:b]), b - a) for a, b in itertools.pairwise(cuts)]
    status = driver.place(b"\xff")
    driver.add(out, [(status, 1)])
    driver.kick()
    rig.disk.complete()
    assert rig.status(status) == OK and rig.disk.data[3 * 512 : 4 * 512] == data


def test_a_status_byte_behind_the_data_in_one_buffer() -> None:
    rig = Rig()
    place = rig.driver.place(b"\xff" * 513)
    rig.disk.data[:512] = b"d" * 512
    rig.driver.add([(rig.driver.place(bytes(16)), 16)], [(place, 513)])
    rig.driver.kick()
    rig.disk.complete()
    assert rig.memory.read(place, 513) == b"d" * 512 + b"\0"


@pytest.mark.parametrize("into", [[(0, 512), (RAM_BASE, 1)], [(RAM_BASE + RAM_SIZE - 4, 512), (RAM_BASE, 1)]])
def test_a_buffer_outside_of_ram_breaks_the_device_when_it_is_reached(into: list[tuple[int, int]]) -> None:
    rig = Rig()
    rig.driver.add([(rig.driver.place(bytes(16)), 16)], into)
    rig.driver.kick()
    rig.disk.complete()
    assert rig.device.is_broken and rig.driver.read(Register.STATUS) & 64


def test_a_request_without_header_or_status_breaks_the_device() -> None:
    for out, into in (([15], [1]), ([16], []), ([], [1])):
        rig = Rig()
        rig.driver.add(
            [(rig.driver.place(bytes(size)), size) for size in out],
            [(rig.driver.place(bytes(size)), size) for size in into],
        )
        rig.driver.kick()
        assert rig.device.is_broken and not rig.disk.log


def test_a_read_of_many_gigabytes_is_refused() -> None:
    """The same page four million times: the host's memory is not the guest's to fill."""
    rig = Rig(size=1 << 20)
    place = rig.driver.place(bytes(4096))
    rig.driver.add([(rig.driver.place(bytes(16)), 16)], [(place, 0xFFFFF000)] * 1000 + [(place, 1)], indirect=True)
    start = time.monotonic()
    rig.driver.kick()
    assert time.monotonic() - start < 5 and not rig.disk.log


@settings(max_examples=150, deadline=None)
@given(st.data(), st.booleans())
def test_a_hostile_driver_never_gets_out(data: st.DataObject, modern: bool) -> None:
    """Rubbish in RAM, any register writes, completions in between: no exception, no hang, all inside of the disk."""
    rig = Rig(modern=modern, size=1 << 14)
    address = st.one_of(st.integers(RAM_BASE, RAM_BASE + 0x3000), st.sampled_from([0, 2**64 - 16]))
    row = st.tuples(
        address, st.sampled_from([0, 1, 16, 17, 512, 513, 4096, 2**32 - 1]), st.integers(0, 7), st.integers(0, 9)
    )
    rows = data.draw(st.lists(row, min_size=1, max_size=12))
    for index, fields in enumerate(rows):
        rig.memory.write(rig.driver.rings[0].descriptors + 16 * index, struct.pack("<QIHH", *fields))
    offsets = st.sampled_from([int(register) for register in Register] + [0x84, 0x94, 0xA4, 0x120])
    values = st.one_of(st.integers(0, 16), st.sampled_from([RAM_BASE, RAM_BASE // 4096, 4096, 15, 2**32 - 1]))
    start = time.monotonic()
    for _ in range(data.draw(st.integers(1, 25))):
        match data.draw(st.integers(0, 4)):
            case 0:
                rig.mmio.write(data.draw(offsets), 4, data.draw(values))
            case 1:
                where = rig.driver.rings[0].available
                head = data.draw(st.integers(0, 12))
                rig.memory.write(where + 4, struct.pack("<8H", *[head] * 8))
                rig.memory.write(where + 2, struct.pack("<H", data.draw(st.integers(0, 70))))
            case 2:
                rig.mmio.write(Register.QUEUE_NOTIFY, 4, data.draw(st.integers(0, 3)))
            case 3 if rig.disk.in_flight:
                rig.disk.complete(
                    data.draw(st.sampled_from(sorted(rig.disk.in_flight))), failed=data.draw(st.booleans())
                )
            case _:
                rig.mmio.read(data.draw(offsets), data.draw(st.sampled_from([1, 2, 4, 8])))
    assert time.monotonic() - start < 10
