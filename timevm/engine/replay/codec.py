"""The only codec of typed events: icount delta (varint), kind (one byte), payload (varints and bytes).

Varints are little-endian groups of seven bits, the top bit of a byte says that another follows (as in LEB128); values
are 0 … 2**64 - 1.  Layout of each kind: docs/recording-format.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from enum import IntEnum

from timevm import __version__
from timevm.engine.replay.events import (
    BlockCompletion,
    Digest,
    End,
    Event,
    Idle,
    NetworkInput,
    Request,
    RequestKind,
    SerialInput,
)
from timevm.engine.replay.gate import NEVER
from timevm.errors import RecordingError

#: of the whole file; a change of any layout in it makes a new one
FORMAT_VERSION = 1
LARGEST = (1 << 64) - 1


class EventKind(IntEnum):
    """Numbers are for ever."""

    SERIAL_INPUT = 1
    IDLE = 2
    REQUEST = 3
    DIGEST = 4
    END = 5
    BLOCK_COMPLETION = 16
    NETWORK_INPUT = 17


class MalformedEvent(RecordingError):
    """Bytes that are no event."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event and the icount at which it is applied."""

    icount: int
    event: Event


def put_varint(out: bytearray, value: int) -> None:
    """``value`` in 0 … LARGEST (else ValueError)."""
    if not 0 <= value <= LARGEST:
        raise ValueError(f"{value} does not fit a varint of the recording")
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


class Cursor:
    """Reads varints and bytes from ``data``; raises MalformedEvent at its end or for a varint that is too large."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data, self.position = data, position

    @property
    def at_end(self) -> bool:
        return self.position >= len(self.data)

    def byte(self) -> int:
        if self.position >= len(self.data):
            raise MalformedEvent("the event goes on behind the end of its frame")
        value = self.data[self.position]
        self.position += 1
        return value

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise MalformedEvent("a number of more than ten bytes")
        if value > LARGEST:
            raise MalformedEvent("a number of more than 64 bits")
        return value

    def block(self) -> bytes:
        """A length and so many bytes."""
        length = self.varint()
        end = self.position + length
        if end > len(self.data):
            raise MalformedEvent("the event goes on behind the end of its frame")
        value = self.data[self.position : end]
        self.position = end
        return value


def encode(out: bytearray, delta: int, event: Event) -> None:
    """Append ``event``, ``delta`` instructions (>= 0) after the one before it."""
    put_varint(out, delta)
    match event:
        case SerialInput(port, data):
            out.append(EventKind.SERIAL_INPUT)
            put_varint(out, port)
            put_varint(out, len(data))
            out += data
        case Idle(ns):
            out.append(EventKind.IDLE)
            put_varint(out, ns)
        case Request(kind):
            out.append(EventKind.REQUEST)
            put_varint(out, kind)
        case BlockCompletion(drive, request, failed):
            out.append(EventKind.BLOCK_COMPLETION)
            put_varint(out, drive)
            put_varint(out, request)
            put_varint(out, failed)
        case NetworkInput(card, frame):
            out.append(EventKind.NETWORK_INPUT)
            put_varint(out, card)
            put_varint(out, len(frame))
            out += frame
        case Digest(cpu, ram, devices):
            out.append(EventKind.DIGEST)
            for value in (cpu, ram, devices):
                out += value.to_bytes(8, "little")
        case End(reason):
            out.append(EventKind.END)
            text = reason.encode()
            put_varint(out, len(text))
            out += text


def _serial_input(cursor: Cursor) -> Event:
    return SerialInput(cursor.varint(), cursor.block())


def _idle(cursor: Cursor) -> Event:
    ns = cursor.varint()
    if not 0 < ns <= NEVER:
        raise MalformedEvent(f"an idle jump of {ns} ns")
    return Idle(ns)


def _request(cursor: Cursor) -> Event:
    number = cursor.varint()
    if number not in _REQUESTS:
        raise MalformedEvent(f"request {number} is unknown to this timevm ({__version__}, format {FORMAT_VERSION})")
    return Request(RequestKind(number))


def _block_completion(cursor: Cursor) -> Event:
    drive, request, status = cursor.varint(), cursor.varint(), cursor.varint()
    if status > 1:
        raise MalformedEvent(f"a disk request that ended with status {status}")
    return BlockCompletion(drive, request, bool(status))


def _network_input(cursor: Cursor) -> Event:
    return NetworkInput(cursor.varint(), cursor.block())


def _digest(cursor: Cursor) -> Event:
    end = cursor.position + 24
    if end > len(cursor.data):
        raise MalformedEvent("the event goes on behind the end of its frame")
    words = [int.from_bytes(cursor.data[at : at + 8], "little") for at in range(cursor.position, end, 8)]
    cursor.position = end
    return Digest(*words)


def _end(cursor: Cursor) -> Event:
    try:
        return End(cursor.block().decode())
    except UnicodeDecodeError as error:
        raise MalformedEvent("the reason of the end is no text") from error


_REQUESTS = frozenset(int(kind) for kind in RequestKind)
_DECODERS: dict[int, Callable[[Cursor], Event]] = {
    EventKind.SERIAL_INPUT: _serial_input,
    EventKind.IDLE: _idle,
    EventKind.REQUEST: _request,
    EventKind.DIGEST: _digest,
    EventKind.END: _end,
    EventKind.BLOCK_COMPLETION: _block_completion,
    EventKind.NETWORK_INPUT: _network_input,
}


def decode(data: bytes, first_icount: int) -> Iterator[Entry]:
    """All events of a frame; the first one's delta counts from ``first_icount``.  Raises MalformedEvent."""
    cursor = Cursor(data)
    icount = first_icount
    while not cursor.at_end:
        icount += cursor.varint()
        kind = cursor.byte()
        decoder = _DECODERS.get(kind)
        if decoder is None:
            raise MalformedEvent(
                f"event kind {kind} is unknown to this timevm ({__version__}, recording format {FORMAT_VERSION}): "
                "replay it with the version that recorded it"
            )
        yield Entry(icount, decoder(cursor))


#: what each kind is of
CLASSES: dict[EventKind, type[Event]] = {
    EventKind.SERIAL_INPUT: SerialInput,
    EventKind.IDLE: Idle,
    EventKind.REQUEST: Request,
    EventKind.DIGEST: Digest,
    EventKind.END: End,
    EventKind.BLOCK_COMPLETION: BlockCompletion,
    EventKind.NETWORK_INPUT: NetworkInput,
}
_KINDS = {event: kind for kind, event in CLASSES.items()}


def kind_of(event: Event) -> EventKind:
    return _KINDS[type(event)]


def event_layouts() -> dict[str, list[str]]:
    """By name of kind: its number, then names and types of its fields."""
    return {
        kind.name: [str(int(kind)), *(f"{field.name}: {field.type}" for field in fields(event))]
        for kind, event in CLASSES.items()
    }


def encoded_size(delta: int, event: Event) -> int:
    """Bytes that ``encode`` appends."""
    out = bytearray()
    encode(out, delta, event)
    return len(out)
