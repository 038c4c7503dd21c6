"""What a network card does to a frame for its driver: checksums of IPv4, UDP and TCP, large segments cut up, VLAN tags.

A frame that is not what the driver says goes out as it is; nothing here raises anything.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

_ADDRESSES, _ETHERNET = 12, 14
_IPV4, _VLAN = b"\x08\x00", b"\x81\x00"
TCP, UDP = 6, 17
#: where the checksum is in each header
_CHECKSUM_AT: Final = {TCP: 16, UDP: 6}
_FIN_PSH, _FLAGS_AT, _SEQUENCE_AT = 0x09, 13, 4
_SHORTEST_TCP, _SHORTEST_IP, _SHORTEST_UDP = 20, 20, 8


def checksum(data: bytes) -> int:
    """The Internet's, RFC 1071."""
    if len(data) & 1:
        data += b"\0"
    number = int.from_bytes(data, "big")
    rest = number % 0xFFFF
    return 0xFFFF - (rest or (0xFFFF if number else 0))


def _headers(frame: bytes, protocol: int | None = None) -> tuple[int, int] | None:
    """Where the IPv4 header's payload begins and ends in ``frame``; None: it is no such packet."""
    if frame[_ADDRESSES:_ETHERNET] != _IPV4 or len(frame) < _ETHERNET + _SHORTEST_IP or frame[_ETHERNET] >> 4 != 4:
        return None
    start = _ETHERNET + 4 * (frame[_ETHERNET] & 15)
    end = _ETHERNET + int.from_bytes(frame[_ETHERNET + 2 : _ETHERNET + 4], "big")
    if start < _ETHERNET + _SHORTEST_IP or not start <= end <= len(frame):
        return None
    if protocol is not None and frame[_ETHERNET + 9] != protocol:
        return None
    return start, end


def with_ip_checksum(frame: bytes) -> bytes:
    found = _headers(frame)
    if found is None:
        return frame
    header = bytearray(frame[_ETHERNET : found[0]])
    header[10:12] = b"\0\0"
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    return frame[:_ETHERNET] + bytes(header) + frame[found[0] :]


def with_payload_checksum(frame: bytes, protocol: int) -> bytes:
    """``protocol`` TCP or UDP."""
    found = _headers(frame, protocol)
    shortest = _SHORTEST_TCP if protocol == TCP else _SHORTEST_UDP
    if found is None or found[1] - found[0] < shortest:
        return frame
    start, end = found
    data = bytearray(frame[start:end])
    at = _CHECKSUM_AT[protocol]
    data[at : at + 2] = b"\0\0"
    addresses = frame[_ETHERNET + 12 : _ETHERNET + 20]
    total = checksum(addresses + struct.pack("!HH", protocol, len(data)) + bytes(data))
    if protocol == UDP:
        total = total or 0xFFFF
    data[at : at + 2] = total.to_bytes(2, "big")
    return frame[:start] + bytes(data) + frame[end:]


def segments(frame: bytes, size: int) -> Iterator[bytes]:
    """A large TCP segment as several with ``size`` bytes (> 0) of payload each, with their checksums."""
    found = _headers(frame[:_ETHERNET] + _with_whole_length(frame), TCP)
    if found is None or found[1] - found[0] < _SHORTEST_TCP:
        yield frame
        return
    start, end = found[0], len(frame)
    data = start + 4 * (frame[start + 12] >> 4)
    if not start + _SHORTEST_TCP <= data <= end:
        yield frame
        return
    number = int.from_bytes(frame[_ETHERNET + 4 : _ETHERNET + 6], "big")
    sequence = int.from_bytes(frame[start + _SEQUENCE_AT : start + _SEQUENCE_AT + 4], "big")
    for index, at in enumerate(range(data, max(end, data + 1), size)):
        payload = frame[at : min(at + size, end)]
        head = bytearray(frame[:data])
        head[_ETHERNET + 2 : _ETHERNET + 4] = (data - _ETHERNET + len(payload)).to_bytes(2, "big")
        head[_ETHERNET + 4 : _ETHERNET + 6] = (number + index & 0xFFFF).to_bytes(2, "big")
        head[start + _SEQUENCE_AT : start + _SEQUENCE_AT + 4] = (sequence + at - data & 0xFFFFFFFF).to_bytes(4, "big")
        if at + size < end:
            head[start + _FLAGS_AT] &= ~_FIN_PSH
        yield with_payload_checksum(with_ip_checksum(bytes(head) + payload), TCP)


def _with_whole_length(frame: bytes) -> bytes:
    """The packet with a length that is that of the frame: in a large one it may not fit, or be left at zero."""
    length = min(len(frame) - _ETHERNET, 0xFFFF)
    return frame[_ETHERNET : _ETHERNET + 2] + max(length, 0).to_bytes(2, "big") + frame[_ETHERNET + 4 :]


def with_vlan_tag(frame: bytes, tag: int) -> bytes:
    """``tag``: 16 bits of priority and network."""
    return frame[:_ADDRESSES] + _VLAN + tag.to_bytes(2, "big") + frame[_ADDRESSES:]
