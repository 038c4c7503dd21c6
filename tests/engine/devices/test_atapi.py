"""The CD-ROM drive against ATA/ATAPI-7 (PACKET) and SCSI MMC."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.test_ide import BUFFER, COMMAND, DEVICE, HIGH, MID, IdeRig
from timevm.engine.devices.ata_identify import DiskNames
from timevm.engine.devices.atapi_cdrom import AtapiCdrom
from timevm.engine.devices.scsi_cdrom import PACKET_BYTES, Read, Sense, interpret

BLOCKS = 1024
FEATURES, COUNT = 1, 2


class CdRig(IdeRig):
    """A CD-ROM drive as the only one of its channel; byte 0 of each word of a block is the block's number."""

    def __init__(self) -> None:
        super().__init__(read_only=True)
        self.disk.data[:] = b"".join(struct.pack("<I", number) * 512 for number in range(BLOCKS))
        self.device.plug(0, AtapiCdrom("cd", self.device, self.disk, DiskNames("QM00003", "QEMU DVD-ROM")))

    def packet(self, *data: int, limit: int = 0xFFFE, dma: bool = False) -> None:
        """Send a packet command; its interrupt, if it comes at once, is still pending."""
        for offset, value in (
            (DEVICE, 0xA0),
            (FEATURES, dma),
            (MID, limit & 0xFF),
            (HIGH, limit >> 8),
            (COMMAND, 0xA0),
        ):
            self.write(offset, value)
        assert self.status() & 0x88 == 8 and self.read(COUNT) == 1 and not self.wire.level
        self.give(bytes(data).ljust(PACKET_BYTES, b"\0"))

    def receive(self) -> bytes:
        """All the data that the drive offers, to the end of the command."""
        got = b""
        while self.interrupt() & 8:
            assert self.read(COUNT) == 2
            size = self.read(MID) | self.read(HIGH) << 8
            got += self.take(size + size % 2)[:size]
            if self.disk.in_flight:
                self.disk.complete()
        assert self.read(COUNT) == 3 and self.status() == 0x50
        return got

    def sense(self) -> tuple[int, int]:
        """Of the failure that the drive has just reported."""
        assert self.interrupt() == 0x41
        key = self.read(1) >> 4
        self.packet(0x03, 0, 0, 0, 18)
        data = self.receive()
        assert len(data) == 18 and data[2] == key
        return data[2], data[12]

    def blocks(self, first: int, count: int) -> bytes:
        return bytes(self.disk.data[2048 * first : 2048 * (first + count)])


PACKETS = [
    0x00,
    0x03,
    0x12,
    0x1A,
    0x1B,
    0x1E,
    0x25,
    0x28,
    0x2B,
    0x35,
    0x43,
    0x46,
    0x4A,
    0x51,
    0x5A,
    0xA8,
    0xBB,
    0xBD,
    0xBE,
]
CD_STEPS = steps(
    [0, 0, 0, 0, 1, 2, 4, 5, 6, 7, 7],
    st.one_of(st.sampled_from([0xA0, 0xA1, 0xA0, 0x08]), st.sampled_from(PACKETS), st.integers(0, 0xFFFFFFFF)),
)


@settings(deadline=None)
@given(CD_STEPS, CD_STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(CdRig, before, after)


@settings(deadline=None)
@given(st.sampled_from(PACKETS), st.binary(min_size=11, max_size=11), st.integers(1, 1 << 20))
def test_any_packet_has_an_answer(opcode: int, rest: bytes, blocks: int) -> None:
    answer = interpret(bytes((opcode,)) + rest, blocks, Sense(0, 0))
    match answer:
        case Read(block, count):
            assert count > 0 and 0 <= block <= block + count <= blocks
        case Sense(key, _):
            assert key
        case _:
            assert len(answer) <= 0xFFFF


def test_signature_and_identification() -> None:
    rig = CdRig()
    rig.device.control_block.write(0, 1, 4)
    rig.device.control_block.write(0, 1, 0)
    assert [rig.read(offset) for offset in (COUNT, 3, MID, HIGH)] == [1, 1, 0x14, 0xEB] and rig.status() == 0
    rig.write(COMMAND, 0xEC)
    assert rig.interrupt() & 1 and rig.read(1) == 4 and rig.read(MID) == 0x14, "a disk's command is refused"
    rig.write(COMMAND, 0xA1)
    rig.interrupt()
    words = struct.unpack("<256H", rig.take())
    assert words[0] == 0x85C0 and rig.status() == 0x50
    assert b"".join(struct.pack(">H", word) for word in words[27:47]).rstrip() == b"QEMU DVD-ROM"


def test_inquiry_capacity_and_readiness() -> None:
    rig = CdRig()
    rig.packet(0x12, 0, 0, 0, 36)
    data = rig.receive()
    assert len(data) == 36 and data[0] == 5 and data[1] == 0x80 and data[8:32] == b"QEMU    QEMU DVD-ROM    "
    rig.packet(0x25)
    assert struct.unpack(">II", rig.receive()) == (BLOCKS - 1, 2048)
    rig.packet(0x00)
    assert rig.receive() == b""


@pytest.mark.parametrize("limit", [0xFFFE, 2048, 512, 0, 100])
def test_reading_by_port_in_pieces(limit: int) -> None:
    rig = CdRig()
    rig.packet(0x28, 0, 0, 0, 0, 7, 0, 0, 3, limit=limit)
    assert rig.status() == 0x80
    rig.disk.complete()
    assert rig.receive() == rig.blocks(7, 3)


def test_long_reads_come_in_several_requests() -> None:
    rig = CdRig()
    rig.packet(0xA8, 0, 0, 0, 0, 1, 0, 0, 0, 150)
    rig.disk.complete()
    assert rig.receive() == rig.blocks(1, 150)
    assert [entry[2] // 2048 for entry in rig.disk.log] == [64, 64, 22]


def test_reading_by_dma() -> None:
    rig = CdRig()
    rig.table((BUFFER, 4096), (BUFFER + 0x8000, 4096))
    rig.packet(0x28, 0, 0, 0, 0, 40, 0, 0, 4, dma=True)
    rig.start(to_memory=True)
    rig.disk.complete()
    assert rig.interrupt() == 0x50 and rig.read(COUNT) == 3
    assert rig.stop() & 6 == 4
    assert rig.memory.read(BUFFER, 4096) + rig.memory.read(BUFFER + 0x8000, 4096) == rig.blocks(40, 4)


def test_table_of_contents() -> None:
    rig = CdRig()
    rig.packet(0x43, 0, 0, 0, 0, 0, 0, 0, 100)
    data = rig.receive()
    assert data[:4] == bytes((0, 18, 1, 1)) and data[6] == 1 and data[14] == 0xAA
    assert struct.unpack_from(">I", data, 16) == (BLOCKS,)
    rig.packet(0x43, 2, 0, 0, 0, 0, 0, 0, 100)
    assert rig.receive()[16:20] == bytes((0, 0, (BLOCKS + 150) // 75, (BLOCKS + 150) % 75))
    rig.packet(0x43, 0, 1, 0, 0, 0, 0, 0, 4)
    assert len(rig.receive()) == 4


def test_failures_leave_their_sense() -> None:
    rig = CdRig()
    rig.packet(0x28, 0, 0, 0, 4, 0, 0, 0, 1)
    assert rig.sense() == (5, 0x21)
    rig.packet(0xFF)
    assert rig.sense() == (5, 0x20)
    rig.packet(0x28, 0, 0, 0, 0, 0, 0, 0, 1)
    rig.disk.complete(failed=True)
    assert rig.sense() == (3, 0x11)
    rig.packet(0x03, 0, 0, 0, 18)
    assert rig.receive()[2] == 0, "told once"


def test_device_reset_while_a_request_is_under_way() -> None:
    rig = CdRig()
    rig.packet(0x28, 0, 0, 0, 0, 0, 0, 0, 1)
    rig.write(COMMAND, 0x08)
    assert rig.status() == 0 and rig.read(MID) == 0x14
    rig.disk.complete()
    assert not rig.wire.level
