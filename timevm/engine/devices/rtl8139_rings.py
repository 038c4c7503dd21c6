"""How the RTL8139C+ and its driver hand frames to each other: rings of descriptors (C+ mode), or one ring buffer.

All methods may raise DmaError.  A frame in memory is followed by its checksum.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from timevm.engine.devices import frame_offloads
from timevm.engine.devices.base import GuestMemory
from timevm.engine.devices.rtl8139_registers import CPlus, Receive, Register, Registers

DESCRIPTOR: Final = struct.Struct("<IIQ")
#: descriptors of a ring at most
LONGEST_RING: Final = 64
CHECKSUM_BYTES: Final = 4
#: bytes of a frame to be sent at most, large segments included
MOST_BYTES: Final = 1 << 16
_VLAN_TAGGED_IN, _VLAN_TAG_OUT = 1 << 16, 1 << 17
_VLAN: Final = b"\x81\x00"


class Descriptor(IntFlag):
    """The first word."""

    OWN = 1 << 31  # the card's
    END = 1 << 30  # the last of the ring
    FIRST = 1 << 29
    LAST = 1 << 28
    # to be sent
    LARGE = 1 << 27
    IP_CHECKSUM = 1 << 18
    UDP_CHECKSUM = 1 << 17
    TCP_CHECKSUM = 1 << 16


@dataclass(frozen=True, slots=True)
class Kind:
    """Whom a frame that arrived is for, as the status words of both modes say it."""

    multicast: bool = False
    own: bool = False
    broadcast: bool = False

    @property
    def descriptor_bits(self) -> int:
        return self.multicast << 26 | self.own << 25 | self.broadcast << 24

    @property
    def buffer_bits(self) -> int:
        return self.multicast << 15 | self.own << 14 | self.broadcast << 13


def _with_checksum(frame: bytes) -> bytes:
    return frame + zlib.crc32(frame).to_bytes(CHECKSUM_BYTES, "little")


def _swapped(value: int) -> int:
    return (value & 0xFF) << 8 | value >> 8 & 0xFF


class ReceiveRing:
    """C+ mode: a frame a descriptor."""

    def __init__(self, memory: GuestMemory, registers: Registers) -> None:
        self._memory, self._registers = memory, registers
        self.index = 0

    def _where(self) -> int:
        return (self._registers.get(Register.RECEIVE_RING, 8) & ~0xFF) + DESCRIPTOR.size * self.index

    def has_room(self, frame: bytes) -> bool:
        word, _, _ = DESCRIPTOR.unpack(self._memory.read(self._where(), DESCRIPTOR.size))
        return bool(word & Descriptor.OWN)

    def put(self, frame: bytes, kind: Kind) -> bool:
        """False: it was too large for its buffer, or there was none."""
        where = self._where()
        word, _, address = DESCRIPTOR.unpack(self._memory.read(where, DESCRIPTOR.size))
        second = 0
        if self._registers.get(Register.C_PLUS_COMMAND, 2) & CPlus.STRIP_VLAN and frame[12:14] == _VLAN:
            second = _VLAN_TAGGED_IN | _swapped(int.from_bytes(frame[14:16], "big"))
            frame = frame[:12] + frame[16:]
        data = _with_checksum(frame)
        if not word & Descriptor.OWN or len(data) > word & 0x1FFF:
            return False
        self._memory.write(address, data)
        status = word & Descriptor.END | Descriptor.FIRST | Descriptor.LAST | kind.descriptor_bits | len(data)
        self._memory.write(where, struct.pack("<II", status, second))
        self.index = _next(self.index, word)
        return True


class TransmitRing:
    """C+ mode: a frame is the pieces of one or more descriptors; ``register`` has the ring's address."""

    def __init__(self, memory: GuestMemory, registers: Registers, register: Register) -> None:
        self._memory, self._registers, self._register = memory, registers, register
        self.index = 0
        self.begin()

    def begin(self) -> None:
        """No frame has been begun."""
        self.parts = b""
        self.flags = self.tag = 0

    def take(self) -> list[bytes]:
        """All frames that are ready, as they go onto the cable."""
        frames: list[bytes] = []
        base = self._registers.get(self._register, 8) & ~0xFF
        for _ in range(LONGEST_RING):
            where = base + DESCRIPTOR.size * self.index
            word, second, address = DESCRIPTOR.unpack(self._memory.read(where, DESCRIPTOR.size))
            if not word & Descriptor.OWN:
                break
            if word & Descriptor.FIRST:
                self.begin()
            self.flags |= word
            self.tag = second
            size = word & 0xFFFF
            if size and len(self.parts) + size <= MOST_BYTES:
                self.parts += self._memory.read(address, size)
            self._memory.write(where, struct.pack("<I", word & ~Descriptor.OWN))
            self.index = _next(self.index, word)
            if word & Descriptor.LAST:
                frames += self._finished()
                self.begin()
        return frames

    def _finished(self) -> list[bytes]:
        frame, flags = self.parts, self.flags
        size = flags >> 16 & 0x7FF
        if flags & Descriptor.LARGE and size:
            done = list(frame_offloads.segments(frame, size))
        else:
            if flags & Descriptor.IP_CHECKSUM:
                frame = frame_offloads.with_ip_checksum(frame)
            if flags & Descriptor.TCP_CHECKSUM:
                frame = frame_offloads.with_payload_checksum(frame, frame_offloads.TCP)
            elif flags & Descriptor.UDP_CHECKSUM:
                frame = frame_offloads.with_payload_checksum(frame, frame_offloads.UDP)
            done = [frame]
        if self.tag & _VLAN_TAG_OUT:
            done = [frame_offloads.with_vlan_tag(each, _swapped(self.tag & 0xFFFF)) for each in done]
        return done


def _next(index: int, word: int) -> int:
    return 0 if word & Descriptor.END or index == LONGEST_RING - 1 else index + 1


class ReceiveBuffer:
    """Without C+ mode: one frame behind the other, each with four bytes of status and length before it."""

    def __init__(self, memory: GuestMemory, registers: Registers) -> None:
        self._memory, self._registers = memory, registers

    @property
    def _size(self) -> int:
        return 8192 << (self._registers.get(Register.RECEIVE_CONFIG, 4) >> 11 & 3)

    @property
    def _read_at(self) -> int:
        return (self._registers.get(Register.READ_POINTER, 2) + 16) % self._size

    @property
    def is_empty(self) -> bool:
        return self._registers.get(Register.WRITE_POINTER, 2) % self._size == self._read_at

    def _needed(self, frame: bytes) -> int:
        return (4 + len(frame) + CHECKSUM_BYTES + 3) // 4 * 4

    def has_room(self, frame: bytes) -> bool:
        """One that can never fit has room as well: it is thrown away."""
        size, needed = self._size, self._needed(frame)
        at = self._registers.get(Register.WRITE_POINTER, 2) % size
        free = size if self.is_empty else (self._read_at - at) % size
        return needed < free or needed >= size

    def put(self, frame: bytes, kind: Kind) -> bool:
        """False: it is larger than the buffer, or than what is free."""
        size, needed = self._size, self._needed(frame)
        if needed >= size or not self.has_room(frame):
            return False
        at = self._registers.get(Register.WRITE_POINTER, 2) % size
        data = struct.pack("<HH", 1 | kind.buffer_bits, len(frame) + CHECKSUM_BYTES) + _with_checksum(frame)
        base = self._registers.get(Register.RECEIVE_BUFFER, 4)
        linear = self._registers.get(Register.RECEIVE_CONFIG, 4) & Receive.WRAP and size < 1 << 16
        room = len(data) if linear else size - at
        self._memory.write(base + at, data[:room])
        if data[room:]:
            self._memory.write(base, data[room:])
        self._registers.put(Register.WRITE_POINTER, 2, (at + needed) % size)
        return True
