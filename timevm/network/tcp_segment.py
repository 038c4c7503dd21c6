"""TCP segments as data (RFC 9293): read, None for what makes no sense, and written."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from timevm.network.packets import TCP, Packet, checksum, pseudo_header

_HEADER = struct.Struct("!HHIIBBHHH")
#: options
_END, _NOTHING, _MSS = 0, 1, 2
#: segment size of a host that names none
DEFAULT_MSS: Final = 536
LEAST_MSS: Final = 64


class Flag(IntFlag):
    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16


@dataclass(frozen=True, slots=True)
class Segment:
    """``sequence`` and ``acknowledged`` are 32 bits wide; ``mss`` 0: it has no such option."""

    source_port: int
    target_port: int
    sequence: int
    acknowledged: int
    flags: Flag
    window: int
    payload: bytes = b""
    mss: int = 0

    @classmethod
    def read(cls, packet: Packet) -> Segment | None:
        data = packet.payload
        if len(data) < _HEADER.size:
            return None
        source, target, sequence, acknowledged, offset, flags, window, _, _ = _HEADER.unpack_from(data)
        header = (offset >> 4) * 4
        if not _HEADER.size <= header <= len(data) or not source or not target:
            return None
        if checksum(pseudo_header(packet.source, packet.target, TCP, len(data)) + data):
            return None
        mss = _find_mss(data[_HEADER.size : header])
        return cls(source, target, sequence, acknowledged, Flag(flags & 31), window, data[header:], mss)

    def write(self, source: bytes, target: bytes) -> bytes:
        options = struct.pack("!BBH", _MSS, 4, self.mss) if self.mss else b""
        offset = (_HEADER.size + len(options)) // 4 << 4
        ports = (self.source_port, self.target_port)
        fields = (*ports, self.sequence, self.acknowledged, offset, int(self.flags), self.window)
        bare = _HEADER.pack(*fields, 0, 0) + options + self.payload
        total = checksum(pseudo_header(source, target, TCP, len(bare)) + bare)
        return _HEADER.pack(*fields, total, 0) + options + self.payload

    @property
    def length(self) -> int:
        """Sequence numbers that it takes."""
        return len(self.payload) + bool(self.flags & Flag.SYN) + bool(self.flags & Flag.FIN)


def _find_mss(options: bytes) -> int:
    at = 0
    while at < len(options) and options[at] != _END:
        if options[at] == _NOTHING:
            at += 1
            continue
        if at + 1 >= len(options) or options[at + 1] < 2:
            return 0
        if options[at] == _MSS and options[at + 1] == 4 and at + 4 <= len(options):
            return int.from_bytes(options[at + 2 : at + 4], "big")
        at += options[at + 1]
    return 0


def reset_for(segment: Segment) -> Segment | None:
    """The answer to a segment of a connection that there is not (RFC 9293, 3.10.7.1); None: it is one itself."""
    if segment.flags & Flag.RST:
        return None
    ports = (segment.target_port, segment.source_port)
    if segment.flags & Flag.ACK:
        return Segment(*ports, segment.acknowledged, 0, Flag.RST, 0)
    return Segment(*ports, 0, (segment.sequence + segment.length) & 0xFFFFFFFF, Flag.RST | Flag.ACK, 0)
