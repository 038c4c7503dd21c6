"""One connection's packets with their acknowledgements: bytes in → what the peer wants and bytes to send."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from timevm.gdb.framing import (
    Acknowledged,
    Damaged,
    Interrupted,
    Malformed,
    Oversized,
    Packet,
    PacketReader,
    Refused,
    pack,
)

#: bytes of one packet that we take and send (``PacketSize``)
PACKET_SIZE = 0x4000
#: packets of ours that can be sent again
_KEPT = 64


@dataclass(slots=True)
class Arrived:
    """What a piece of the stream was: to do in this order, and to send at once (acknowledgements, repetitions)."""

    packets: list[Packet | Oversized | Malformed | Interrupted] = field(default_factory=list)
    answer: bytes = b""


class Link:
    """``send`` makes the wire bytes of a packet, and keeps them until the peer has them."""

    def __init__(self) -> None:
        self._reader = PacketReader(PACKET_SIZE)
        self._acknowledging = True
        #: packets of ours that the peer has not acknowledged
        self._sent: deque[bytes] = deque(maxlen=_KEPT)

    def stop_acknowledging(self) -> None:
        """``QStartNoAckMode`` has been answered: from now on the transport is trusted."""
        self._acknowledging = False
        self._sent.clear()

    def feed(self, data: bytes) -> Arrived:
        arrived = Arrived()
        again = False
        for item in self._reader.feed(data):
            match item:
                case Packet() | Oversized() | Malformed():
                    arrived.packets.append(item)
                    if self._acknowledging:
                        arrived.answer += b"+"
                case Damaged():
                    if self._acknowledging:
                        arrived.answer += b"-"
                case Interrupted():
                    arrived.packets.append(item)
                case Refused():
                    again = True
                case Acknowledged():
                    if self._sent:
                        self._sent.popleft()
        if again:  # once, however often it was said
            arrived.answer += b"".join(self._sent)
        return arrived

    def send(self, data: bytes) -> bytes:
        packet = pack(data)
        if self._acknowledging:
            self._sent.append(packet)
        return packet
