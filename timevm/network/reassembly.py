"""Fragments of IPv4 packets, put together again (RFC 791, 3.2)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from timevm.network.packets import Fragment, Packet

#: packets that are waited for at the same time, bytes of one, and seconds for which the rest may be missing
MOST_PACKETS: Final = 16
MOST_BYTES: Final = 65_535 - 20
PATIENCE: Final = 15.0

_Key = tuple[bytes, bytes, int, int]


@dataclass(slots=True)
class _Incomplete:
    begun: float
    parts: dict[int, bytes] = field(default_factory=dict)
    head: bytes = b""
    #: bytes of the whole, known when the last fragment is here
    size: int | None = None

    def whole(self) -> bytes | None:
        """None: something is missing, or does not fit together."""
        if self.size is None:
            return None
        data = bytearray()
        for start in sorted(self.parts):
            if start > len(data):
                return None
            data[start:] = self.parts[start]
        return bytes(data) if len(data) == self.size else None


class Reassembly:
    """Of what one guest sends."""

    def __init__(self) -> None:
        self._incomplete: dict[_Key, _Incomplete] = {}

    def take(self, fragment: Fragment, now: float) -> Packet | None:
        """The packet that is whole now, if there is one."""
        packet = fragment.packet
        if not fragment.start and not fragment.more:
            return packet
        end = fragment.start + len(packet.payload)
        if end > MOST_BYTES or not packet.payload or (fragment.more and len(packet.payload) % 8):
            return None
        self._forget_old(now)
        key = packet.source, packet.target, packet.protocol, fragment.number
        known = self._incomplete.setdefault(key, _Incomplete(now))
        known.parts[fragment.start] = packet.payload
        if not fragment.start:
            known.head = packet.head
        if not fragment.more:
            known.size = end
        data = known.whole()
        if data is None:
            return None
        del self._incomplete[key]
        return replace(packet, payload=data, head=known.head)

    def _forget_old(self, now: float) -> None:
        for key in [key for key, each in self._incomplete.items() if now - each.begun > PATIENCE]:
            del self._incomplete[key]
        while len(self._incomplete) >= MOST_PACKETS:
            del self._incomplete[next(iter(self._incomplete))]
