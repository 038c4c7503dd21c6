"""What a CD-ROM drive answers to packet commands (SCSI-3 MMC, INF-8020i), as far as it needs no data from the disc.

Read-only discs with one data track, which are always in the drive.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

BLOCK: Final = 2048
PACKET_BYTES: Final = 12

TEST_READY, REQUEST_SENSE, INQUIRY, MODE_SENSE_6, START_STOP, PREVENT_REMOVAL = 0x00, 0x03, 0x12, 0x1A, 0x1B, 0x1E
READ_CAPACITY, READ_10, SEEK, SYNCHRONIZE, READ_TOC, READ_HEADER = 0x25, 0x28, 0x2B, 0x35, 0x43, 0x44
GET_CONFIGURATION, GET_EVENT, READ_DISC_INFORMATION, MODE_SENSE_10 = 0x46, 0x4A, 0x51, 0x5A
READ_12, SET_SPEED, MECHANISM_STATUS, READ_CD = 0xA8, 0xBB, 0xBD, 0xBE

# sense keys, and what is wrong in detail (additional sense code)
NO_SENSE, NOT_READY, MEDIUM_ERROR, ILLEGAL_REQUEST, UNIT_ATTENTION = 0x0, 0x2, 0x3, 0x5, 0x6
INVALID_OPCODE, OUT_OF_RANGE, INVALID_FIELD, UNRECOVERED_READ, MEDIUM_CHANGED = 0x20, 0x21, 0x24, 0x11, 0x28

NOTHING_TO_DO: Final = (TEST_READY, START_STOP, PREVENT_REMOVAL, SEEK, SYNCHRONIZE, SET_SPEED)
LEAD_OUT: Final = 0xAA
#: MMC profile of a CD-ROM
PROFILE: Final = 0x0008


@dataclass(frozen=True, slots=True)
class Read:
    """``count`` blocks from ``block`` on are wanted."""

    block: int
    count: int


@dataclass(frozen=True, slots=True)
class Sense:
    """Why a command failed."""

    key: int
    code: int


def interpret(packet: bytes, blocks: int, last_sense: Sense) -> bytes | Read | Sense:
    """The answer of a drive with a disc of ``blocks`` blocks to a packet of PACKET_BYTES bytes."""
    opcode = packet[0]
    if opcode in NOTHING_TO_DO:
        return b""
    if opcode in (READ_10, READ_12, READ_CD):
        return _read(packet, blocks)
    if opcode == REQUEST_SENSE:
        return _limited(_sense_data(last_sense), packet[4])
    if opcode == INQUIRY:
        return _inquiry(packet)
    if opcode == READ_CAPACITY:
        return struct.pack(">II", blocks - 1, BLOCK)
    if opcode == READ_TOC:
        return _contents(packet, blocks)
    if opcode in (MODE_SENSE_10, MODE_SENSE_6):
        return _mode(packet)
    if opcode == GET_CONFIGURATION:
        return _configuration(packet)
    if opcode == GET_EVENT:
        return _event(packet)
    if opcode == READ_DISC_INFORMATION:
        return _limited(struct.pack(">H7B25x", 32, 0x0E, 1, 1, 1, 1, 0x20, 0), _length(packet))
    if opcode == MECHANISM_STATUS:
        return _limited(bytes(5) + b"\x01\0\0", struct.unpack_from(">H", packet, 8)[0])
    return Sense(ILLEGAL_REQUEST, INVALID_OPCODE)


def _length(packet: bytes) -> int:
    return int(struct.unpack_from(">H", packet, 7)[0])


def _limited(data: bytes, most: int) -> bytes:
    return data[:most]


def _read(packet: bytes, blocks: int) -> bytes | Read | Sense:
    block = int.from_bytes(packet[2:6], "big")
    if packet[0] == READ_10:
        count = _length(packet)
    elif packet[0] == READ_12:
        count = int.from_bytes(packet[6:10], "big")
    else:
        count = int.from_bytes(packet[6:9], "big")
        if packet[9] & 0xF8 not in (0x00, 0x10):
            return Sense(ILLEGAL_REQUEST, INVALID_FIELD)  # only the data of a sector can be had
        if not packet[9]:
            return b""
    if block + count > blocks:
        return Sense(ILLEGAL_REQUEST, OUT_OF_RANGE)
    return Read(block, count) if count else b""


def _sense_data(sense: Sense) -> bytes:
    return bytes((0xF0, 0, sense.key, 0, 0, 0, 0, 10, 0, 0, 0, 0, sense.code, 0, 0, 0, 0, 0))


def _inquiry(packet: bytes) -> bytes | Sense:
    if packet[1] & 1 or packet[2]:
        return Sense(ILLEGAL_REQUEST, INVALID_FIELD)
    head = bytes((0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0))
    return _limited(head + b"QEMU    " + b"QEMU DVD-ROM    " + b"2.5+", packet[4])


def _msf(block: int) -> bytes:
    """Minute, second, frame of an address; the disc begins at second 2."""
    block += 150
    return bytes((0, block // 75 // 60 & 0xFF, block // 75 % 60, block % 75))


def _contents(packet: bytes, blocks: int) -> bytes | Sense:
    """Format 0: the track and the lead-out; format 1: the session; 2 (full) is answered with the same points."""
    minutes, form, start = bool(packet[1] & 2), packet[2] & 0xF or packet[9] >> 6, packet[6]

    def address(block: int) -> bytes:
        return _msf(block) if minutes else struct.pack(">I", block)

    if form == 0:
        if start > 1 and start != LEAD_OUT:
            return Sense(ILLEGAL_REQUEST, INVALID_FIELD)
        entries = b"" if start == LEAD_OUT else bytes((0, 0x14, 1, 0)) + address(0)
        entries += bytes((0, 0x14, LEAD_OUT, 0)) + address(blocks)
        body = bytes((1, 1)) + entries
    elif form == 1:
        body = bytes((1, 1, 0, 0x14, 1, 0)) + address(0)
    elif form == 2:
        points = ((0xA0, bytes((0, 1, 0, 0))), (0xA1, bytes((0, 1, 0, 0))), (0xA2, address(blocks)), (1, address(0)))
        body = bytes((1, 1)) + b"".join(bytes((1, 0x14, 0, point, 0, 0, 0)) + where for point, where in points)
    else:
        return Sense(ILLEGAL_REQUEST, INVALID_FIELD)
    return _limited(struct.pack(">H", len(body)) + body, _length(packet))


#: mode pages: error recovery, and capabilities (reads CD-R, CD-RW, DVD; locks; 4 Mbit/s tray loader)
_PAGES: Final = {
    0x01: bytes((0x01, 6, 0, 5, 0, 0, 0, 0)),
    0x2A: bytes((0x2A, 18, 0x3B, 0, 0x70, 0x60, 0x29, 0)) + struct.pack(">HHHH", 0x2C2, 2, 512, 0x2C2) + bytes(4),
}


def _mode(packet: bytes) -> bytes | Sense:
    page = packet[2] & 0x3F
    if packet[2] >> 6 or (page != 0x3F and page not in _PAGES):
        return Sense(ILLEGAL_REQUEST, INVALID_FIELD)
    body = b"".join(_PAGES[number] for number in sorted(_PAGES) if page in (number, 0x3F))
    if packet[0] == MODE_SENSE_6:
        return _limited(bytes((len(body) + 3, 0x70, 0, 0)) + body, packet[4])
    return _limited(struct.pack(">HB5x", len(body) + 6, 0x70) + body, _length(packet))


def _configuration(packet: bytes) -> bytes:
    """Profile list, core and removable medium features."""
    features = struct.pack(">HBBHBx", 0x0000, 0x03, 4, PROFILE, 1)
    features += struct.pack(">HBBIB3x", 0x0001, 0x0B, 8, 2, 1)
    features += struct.pack(">HBBB3x", 0x0003, 0x03, 4, 0x29)
    return _limited(struct.pack(">IHH", len(features) + 4, 0, PROFILE) + features, _length(packet))


def _event(packet: bytes) -> bytes | Sense:
    if not packet[1] & 1:
        return Sense(ILLEGAL_REQUEST, INVALID_FIELD)  # only polling
    if not packet[4] & 0x10:
        return _limited(bytes((0, 2, 0x80, 0x10)), _length(packet))
    return _limited(bytes((0, 6, 0x04, 0x10, 0, 2, 0, 0)), _length(packet))
