"""The registers of the RTL8139C+ as data (Realtek's data sheet, chapter 6): where they are, what a driver may write."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

SIZE: Final = 256


class Register(IntEnum):
    """Offsets.  In C+ mode the four transmit registers' place is taken by TALLY and the descriptors' addresses."""

    ADDRESS = 0x00
    MULTICAST = 0x08
    TRANSMIT_STATUS = 0x10
    TRANSMIT_ADDRESS = 0x20
    RECEIVE_BUFFER = 0x30
    COMMAND = 0x37
    READ_POINTER = 0x38
    WRITE_POINTER = 0x3A
    INTERRUPT_MASK = 0x3C
    INTERRUPT_STATUS = 0x3E
    TRANSMIT_CONFIG = 0x40
    RECEIVE_CONFIG = 0x44
    TIMER_COUNT = 0x48
    MISSED = 0x4C
    EEPROM = 0x50
    CONFIG0 = 0x51
    CONFIG1 = 0x52
    TIMER_LIMIT = 0x54
    MEDIA_STATUS = 0x58
    CONFIG3 = 0x59
    CONFIG4 = 0x5A
    MULTIPLE_INTERRUPT = 0x5C
    REVISION = 0x5E
    TRANSMIT_SUMMARY = 0x60
    PHY_CONTROL = 0x62
    PHY_STATUS = 0x64
    PHY_ADVERTISED = 0x66
    PHY_PARTNER = 0x68
    PHY_EXPANSION = 0x6A
    CONFIG5 = 0xD8
    POLL = 0xD9
    C_PLUS_COMMAND = 0xE0
    RECEIVE_RING = 0xE4
    EARLY_THRESHOLD = 0xEC
    # C+ mode
    TALLY = 0x10
    NORMAL_RING = 0x20
    HIGH_RING = 0x28


class Command(IntFlag):
    BUFFER_EMPTY = 0x01
    TRANSMIT = 0x04
    RECEIVE = 0x08
    RESET = 0x10


class Interrupt(IntFlag):
    RECEIVED = 0x0001
    SENT = 0x0004
    OVERFLOW = 0x0010
    SOFTWARE = 0x0100
    TIMEOUT = 0x4000
    SYSTEM_ERROR = 0x8000


class CPlus(IntFlag):
    TRANSMIT = 0x01
    RECEIVE = 0x02
    STRIP_VLAN = 0x40


class Receive(IntFlag):
    """Which frames are taken, and how the ring buffer is used."""

    ALL = 0x01
    OWN = 0x02
    MULTICAST = 0x04
    BROADCAST = 0x08
    WRAP = 0x80


class Poll(IntFlag):
    SOFTWARE_INTERRUPT = 0x01
    NORMAL = 0x40
    HIGH = 0x80


LOOPBACK: Final = 0x0006_0000
#: bits of TRANSMIT_CONFIG that tell an 8139C+
VERSION: Final = 0x7480_0000
TALLY_DUMP: Final = 0x08

# EEPROM register
EEPROM_OUT, EEPROM_IN, EEPROM_CLOCK, EEPROM_SELECT = 0x01, 0x02, 0x04, 0x08
EEPROM_MODE, MODE_LOAD, MODE_CONFIG = 0xC0, 0x40, 0xC0

#: register -> (bytes, bits that a driver may write); what is not here cannot be written
WRITABLE: Final = {
    Register.MULTICAST: (8, (1 << 64) - 1),
    Register.TRANSMIT_STATUS: (16, (1 << 128) - 1),
    Register.TRANSMIT_ADDRESS: (16, (1 << 128) - 1),
    Register.RECEIVE_BUFFER: (4, 0xFFFF_FFFF),
    Register.COMMAND: (1, Command.TRANSMIT | Command.RECEIVE),
    Register.READ_POINTER: (2, 0xFFFF),
    Register.INTERRUPT_MASK: (2, 0xFFFF),
    Register.TRANSMIT_CONFIG: (4, 0x0307_07F1),
    Register.RECEIVE_CONFIG: (4, 0x0F01_FFFF),
    Register.EEPROM: (1, EEPROM_MODE | EEPROM_SELECT | EEPROM_CLOCK | EEPROM_IN),
    Register.TIMER_LIMIT: (4, 0xFFFF_FFFF),
    Register.MEDIA_STATUS: (1, 0xC0),
    Register.MULTIPLE_INTERRUPT: (2, 0xFFFF),
    Register.PHY_CONTROL: (2, 0x3100),
    Register.PHY_ADVERTISED: (2, 0xFFFF),
    Register.C_PLUS_COMMAND: (2, 0x007B),
    Register.RECEIVE_RING: (8, (1 << 64) - 1),
    Register.EARLY_THRESHOLD: (1, 0xFF),
}
#: these also want the EEPROM register in its mode for writing them
LOCKED: Final = {
    Register.ADDRESS: (6, (1 << 48) - 1),
    Register.CONFIG0: (1, 0xFF),
    Register.CONFIG1: (1, 0xFF),
    Register.CONFIG3: (1, 0xFF),
    Register.CONFIG4: (1, 0xFF),
    Register.CONFIG5: (1, 0xFF),
}
#: register -> (bytes, value after a reset); all others are zero
INITIAL: Final = {
    Register.TRANSMIT_STATUS: (16, int.from_bytes(b"\0\x20\0\0" * 4, "little")),  # the driver's turn
    Register.READ_POINTER: (2, 0xFFF0),
    Register.TRANSMIT_CONFIG: (4, VERSION),
    Register.CONFIG1: (1, 0x0C),
    Register.REVISION: (1, 0x10),
    Register.PHY_CONTROL: (2, 0x3100),  # 100 Mbit/s, negotiated, full duplex
    Register.PHY_STATUS: (2, 0x782D),  # the link is up
    Register.PHY_ADVERTISED: (2, 0x05E1),
    Register.PHY_PARTNER: (2, 0x45E1),
    Register.PHY_EXPANSION: (2, 0x0001),
}


class Registers:
    """The 256 bytes, little-endian."""

    def __init__(self) -> None:
        self.bytes = bytearray(SIZE)

    def get(self, offset: int, size: int) -> int:
        return int.from_bytes(self.bytes[offset : offset + size], "little")

    def put(self, offset: int, size: int, value: int) -> None:
        self.bytes[offset : offset + size] = value.to_bytes(size, "little")

    def reset(self) -> None:
        self.bytes[:] = bytes(SIZE)
        for register, (size, value) in INITIAL.items():
            self.put(register, size, value)


def masks(*tables: dict[Register, tuple[int, int]]) -> bytes:
    """For each byte of the registers what may be written into it."""
    out = bytearray(SIZE)
    for table in tables:
        for register, (size, mask) in table.items():
            out[register : register + size] = int(mask).to_bytes(size, "little")
    return bytes(out)
