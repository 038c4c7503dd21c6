"""Ethernet, ARP, IPv4, ICMP and UDP as data: each kind is read (None for what makes no sense) and written here.

Addresses are bytes in network order: 6 of hardware, 4 of IPv4.  Reading checks lengths and checksums.
RFC 826, 791, 792, 768.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

BROADCAST: Final = b"\xff" * 6
EVERYBODY: Final = b"\xff" * 4
TYPE_IPV4, TYPE_ARP = 0x0800, 0x0806
ICMP, TCP, UDP = 1, 6, 17
ARP_REQUEST, ARP_REPLY = 1, 2
ECHO_REPLY, UNREACHABLE, ECHO_REQUEST = 0, 3, 8
#: codes of UNREACHABLE
HOST_UNREACHABLE, PORT_UNREACHABLE = 1, 3
#: bytes of an IPv4 packet on this network at most
MTU: Final = 1500

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
#: Ethernet over IPv4, sizes of their addresses
_ARP_KIND = (1, TYPE_IPV4, 6, 4)
_MORE, _OFFSET = 0x2000, 0x1FFF
_HOPS = 64
_SHORTEST_FRAME = 60


def checksum(data: bytes) -> int:
    """The Internet's (RFC 1071); of data that ends with its own right checksum it is 0.  1.5 us for a full frame."""
    if len(data) & 1:
        data += b"\0"
    number = int.from_bytes(data, "big")
    # ones' complement addition of 16-bit words is arithmetic modulo 0xFFFF
    rest = number % 0xFFFF
    return 0xFFFF - (rest or (0xFFFF if number else 0))


def pseudo_header(source: bytes, target: bytes, protocol: int, size: int) -> bytes:
    """What checksums of UDP and TCP cover besides their own ``size`` bytes."""
    return source + target + struct.pack("!HH", protocol, size)


@dataclass(frozen=True, slots=True)
class Ethernet:
    target: bytes
    source: bytes
    kind: int
    payload: bytes

    @classmethod
    def read(cls, frame: bytes) -> Ethernet | None:
        if len(frame) < _ETHERNET.size:
            return None
        target, source, kind = _ETHERNET.unpack_from(frame)
        return None if source[0] & 1 else cls(target, source, kind, frame[_ETHERNET.size :])

    def write(self) -> bytes:
        frame = _ETHERNET.pack(self.target, self.source, self.kind) + self.payload
        return frame.ljust(_SHORTEST_FRAME, b"\0")


@dataclass(frozen=True, slots=True)
class Arp:
    """``operation`` ARP_REQUEST or ARP_REPLY."""

    operation: int
    source_hardware: bytes
    source: bytes
    target_hardware: bytes
    target: bytes

    @classmethod
    def read(cls, data: bytes) -> Arp | None:
        if len(data) < _ARP.size:
            return None
        *kind, operation, source_hardware, source, target_hardware, target = _ARP.unpack_from(data)
        if tuple(kind) != _ARP_KIND or operation not in (ARP_REQUEST, ARP_REPLY) or source_hardware[0] & 1:
            return None
        return cls(operation, source_hardware, source, target_hardware, target)

    def write(self) -> bytes:
        return _ARP.pack(
            *_ARP_KIND, self.operation, self.source_hardware, self.source, self.target_hardware, self.target
        )


@dataclass(frozen=True, slots=True)
class Packet:
    """IPv4, whole.  ``head`` is how it began, for those who complain of it: header and 8 bytes."""

    source: bytes
    target: bytes
    protocol: int
    payload: bytes
    head: bytes = b""

    @classmethod
    def read(cls, data: bytes) -> Packet | None:
        """None for a fragment, too."""
        fragment = Fragment.read(data)
        return None if fragment is None or fragment.more or fragment.start else fragment.packet

    def write(self, number: int) -> Iterator[bytes]:
        """One packet, or the fragments of a larger one; ``number`` (16 bits) tells what belongs together."""
        room = (MTU - _IPV4.size) // 8 * 8
        for start in range(0, len(self.payload) or 1, room):
            part = self.payload[start : start + room]
            more = _MORE if start + room < len(self.payload) else 0
            fields = (0x45, 0, _IPV4.size + len(part), number, more | start // 8, _HOPS, self.protocol)
            header = _IPV4.pack(*fields, 0, self.source, self.target)
            yield _IPV4.pack(*fields, checksum(header), self.source, self.target) + part


@dataclass(frozen=True, slots=True)
class Fragment:
    """What came as one IPv4 packet: all of it, or the bytes from ``start`` on of the packet with this ``number``."""

    packet: Packet
    number: int
    start: int
    more: bool

    @classmethod
    def read(cls, data: bytes) -> Fragment | None:
        if len(data) < _IPV4.size:
            return None
        first, _, length, number, place, _, protocol, _, source, target = _IPV4.unpack_from(data)
        header = 4 * (first & 15)
        if first >> 4 != 4 or header < _IPV4.size or not header <= length <= len(data) or checksum(data[:header]):
            return None
        packet = Packet(source, target, protocol, data[header:length], data[: min(header + 8, length)])
        return cls(packet, number, 8 * (place & _OFFSET), bool(place & _MORE))


@dataclass(frozen=True, slots=True)
class Icmp:
    """``rest`` is what follows the checksum."""

    kind: int
    code: int
    rest: bytes

    @classmethod
    def read(cls, data: bytes) -> Icmp | None:
        if len(data) < 8 or checksum(data):
            return None
        return cls(data[0], data[1], data[4:])

    def write(self) -> bytes:
        start = bytes((self.kind, self.code))
        return start + checksum(start + b"\0\0" + self.rest).to_bytes(2, "big") + self.rest


@dataclass(frozen=True, slots=True)
class Udp:
    source_port: int
    target_port: int
    payload: bytes

    @classmethod
    def read(cls, packet: Packet) -> Udp | None:
        data = packet.payload
        if len(data) < _UDP.size:
            return None
        source_port, target_port, length, given = _UDP.unpack_from(data)
        if not _UDP.size <= length <= len(data) or not source_port or not target_port:
            return None
        data = data[:length]
        if given and checksum(pseudo_header(packet.source, packet.target, UDP, length) + data):
            return None
        return cls(source_port, target_port, data[_UDP.size :])

    def write(self, source: bytes, target: bytes) -> bytes:
        length = _UDP.size + len(self.payload)
        bare = _UDP.pack(self.source_port, self.target_port, length, 0) + self.payload
        total = checksum(pseudo_header(source, target, UDP, length) + bare) or 0xFFFF
        return _UDP.pack(self.source_port, self.target_port, length, total) + self.payload
