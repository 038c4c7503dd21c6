"""Packets of gdb's remote serial protocol out of a byte stream and back (gdb manual, "Remote Protocol: Overview").

Sans-IO.  The reader never raises: what is wrong becomes an item, and what follows is read as if nothing had been.
"""

from __future__ import annotations

from dataclasses import dataclass

ESCAPE, RUN, START, END = b"}", b"*", b"$", b"#"
#: begins a packet that is no answer; gdb passes over those that it does not know
NOTIFICATION = b"%"
INTERRUPT = 0x03
#: added to a count of repetitions to make it a printable character
_RUN_BIAS = 29
_ESCAPED = {byte[0]: ESCAPE + bytes([byte[0] ^ 0x20]) for byte in (ESCAPE, RUN, START, END)}


@dataclass(frozen=True, slots=True)
class Packet:
    """A sound packet: its contents, escapes and run lengths resolved."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Damaged:
    """A packet whose checksum is wrong, or that another one began inside of: the peer shall send it again."""


@dataclass(frozen=True, slots=True)
class Oversized:
    """A sound packet of more bytes than we take; its contents are gone."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """The checksum is right, but escapes or run lengths make no sense: sending it again would not help."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """``+``"""


@dataclass(frozen=True, slots=True)
class Refused:
    """``-``: the peer wants our last packet again."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The byte 3 between packets: Ctrl-C."""


Item = Packet | Damaged | Oversized | Malformed | Acknowledged | Refused | Interrupted
_BETWEEN: dict[int, Item] = {ord("+"): Acknowledged(), ord("-"): Refused(), INTERRUPT: Interrupted()}


class PacketReader:
    """``limit``: bytes of a packet on the wire, without ``$``, ``#`` and checksum."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting = bytearray()
        self._in_packet = False
        #: sum of the bytes of this packet that are gone already, because there are too many of them
        self._dropped_sum: int | None = None

    def feed(self, data: bytes) -> list[Item]:
        self._waiting += data
        items: list[Item] = []
        while self._waiting and (self._read_packet(items) if self._in_packet else self._read_between(items)):
            pass
        return items

    def _read_between(self, items: list[Item]) -> bool:
        start = self._waiting.find(START)
        between = self._waiting if start < 0 else self._waiting[:start]
        items.extend(_BETWEEN[byte] for byte in between if byte in _BETWEEN)
        del self._waiting[: len(self._waiting) if start < 0 else start + 1]
        self._in_packet = start >= 0
        self._dropped_sum = None
        return start >= 0

    def _read_packet(self, items: list[Item]) -> bool:
        """One packet, if it is there to its end."""
        end = self._waiting.find(END)
        # a bare $ is never inside of a packet: the end of the one before it was lost
        again = self._waiting.find(START, 0, len(self._waiting) if end < 0 else end)
        if again >= 0:
            del self._waiting[: again + 1]
            self._dropped_sum = None
            items.append(Damaged())
            return True
        if end < 0 or len(self._waiting) < end + 3:
            self._drop_excess(len(self._waiting) if end < 0 else end)
            return False
        self._drop_excess(end)
        end = self._waiting.find(END)
        body, checksum = bytes(self._waiting[:end]), bytes(self._waiting[end + 1 : end + 3])
        del self._waiting[: end + 3]
        self._in_packet = False
        items.append(self._finish(body, checksum))
        return True

    def _drop_excess(self, end: int) -> None:
        if self._dropped_sum is not None or end > self._limit:
            self._dropped_sum = ((self._dropped_sum or 0) + sum(self._waiting[:end])) & 0xFF
            del self._waiting[:end]

    def _finish(self, body: bytes, checksum: bytes) -> Item:
        total = (sum(body) + (self._dropped_sum or 0)) & 0xFF
        try:
            sound = int(checksum, 16) == total and checksum.isalnum()
        except ValueError:
            sound = False
        if not sound:
            return Damaged()
        if self._dropped_sum is not None:
            return Oversized()
        unpacked = unpack(body, self._limit)
        return Malformed() if unpacked is None else Packet(unpacked)


def unpack(body: bytes, limit: int) -> bytes | None:
    """Escapes and run lengths resolved; None if they make no sense or give more than ``limit`` bytes."""
    if ESCAPE not in body and RUN not in body:
        return body
    data = bytearray()
    position = 0
    while position < len(body):
        byte = body[position : position + 1]
        if byte in (ESCAPE, RUN):
            position += 1
            if position == len(body):
                return None
            if byte == ESCAPE:
                data.append(body[position] ^ 0x20)
            else:
                repeat = body[position] - _RUN_BIAS
                if repeat < 1 or not data or len(data) + repeat > limit:
                    return None
                data += data[-1:] * repeat
        else:
            data += byte
        position += 1
    return bytes(data)


def pack(data: bytes, start: bytes = START) -> bytes:
    """A whole packet on the wire."""
    if any(byte in data for byte in (ESCAPE, RUN, START, END)):
        data = b"".join(_ESCAPED.get(byte, bytes([byte])) for byte in data)
    return b"%b%b#%02x" % (start, data, sum(data) & 0xFF)
