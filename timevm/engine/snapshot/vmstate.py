"""A machine's state ↔ bytes, as it is stored in an image: a checksummed head, then RAM as it is, in chunks.

    0   8  magic "TIMEVM\\r\\n"            16  8  xxh3-64 of everything from 24 to the head's end
    8   4  version                        24  8  bytes of the record
    12  4  chunks that the head fills     32  …  the record (record_codec), one xxh3-64 for each chunk of RAM

The chunks of RAM that are not all zeroes follow in order, each at a multiple of CHUNK, so that an image's clusters can
be shared between snapshots: a chunk that is as in the snapshot before is the same cluster.  They are not compressed:
that saves less than sharing does, and loading is as fast as the host can read.  Everything is little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from timevm import __version__
from timevm.blkreplay.qcow2.snapshot_operations import Unchanged
from timevm.engine.machine.fingerprint import Build, build_differences
from timevm.engine.machine.ram import Ram
from timevm.engine.snapshot import record_codec
from timevm.engine.snapshot.record_codec import MalformedRecord
from timevm.errors import UserError

MAGIC = b"TIMEVM\r\n"
VERSION = 1
CHUNK = 64 << 10
#: bytes of RAM handled at a time
ROW = 1 << 20
_HEAD = struct.Struct("<8sIIQQ")
#: chunks of a head at most (1 GiB)
MOST_HEAD = 1 << 14
ZERO_CHUNK = xxhash.xxh3_64_intdigest(bytes(CHUNK))


class MalformedState(UserError):
    """What an image holds is no state of a timevm machine, or is damaged."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Which machine a state is of.  ``recording``: fingerprint of the recording's identity; None: a live machine."""

    machine: str
    cpu: str
    ram_base: int
    ram_bytes: int
    shift: int
    recording: str | None
    version: str = __version__
    #: of what the machine's state consists; (): an older timevm saved it, which did not say
    layout: Build = ()

    def differences(self, now: Origin) -> list[str]:
        """In what ``now`` (this machine) is another one, one line each.  The recording is another question."""
        rows = (
            ("timevm", self.version, now.version),
            ("machine", self.machine, now.machine),
            ("CPU model", self.cpu, now.cpu),
            ("RAM size", _mib(self.ram_bytes), _mib(now.ram_bytes)),
            ("RAM address", hex(self.ram_base), hex(now.ram_base)),
            ("icount shift", str(self.shift), str(now.shift)),
        )
        lines = [f"{what}: saved with {then}, now {here}" for what, then, here in rows if then != here]
        parts = build_differences(self.layout, now.layout)
        return lines if lines or not parts else [f"parts: here is {parts}"]


def _mib(size: int) -> str:
    return f"{size >> 20} MiB" if size % (1 << 20) == 0 else f"{size} bytes"


@dataclass(frozen=True, slots=True)
class Head:
    """``state`` is the machine's record; ``size`` is how many bytes the head fills."""

    origin: Origin
    state: dict[str, Any]
    checksums: npt.NDArray[np.uint64]
    size: int


@dataclass(frozen=True, slots=True)
class Known:
    """An earlier snapshot in the same image, and which chunks of RAM (a truth value each) were written since."""

    checksums: npt.NDArray[np.uint64]
    head_size: int
    changed: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Encoded:
    """``pieces``: bytes, and what is as in the known snapshot; ``checksums`` and ``head_size`` make the next Known."""

    checksums: npt.NDArray[np.uint64]
    head_size: int
    pieces: Iterator[bytes | Unchanged]


def encode(ram: Ram, state: dict[str, Any], origin: Origin, cluster_size: int, known: Known | None = None) -> Encoded:
    """0.2 ms for a MiB that was written.  ``known`` counts only if a chunk is made of whole clusters."""
    if ram.size % CHUNK:
        raise UserError(f"a machine with {ram.size} bytes of RAM cannot be saved: make it a multiple of 64 KiB")
    count = ram.size // CHUNK
    if known is None or CHUNK % cluster_size:
        known = Known(np.zeros(count, dtype=np.uint64), 0, np.ones(count, dtype=np.bool_))
    checksums = known.checksums.copy()
    for number in np.flatnonzero(known.changed).tolist():
        checksums[number] = _checksum(ram, number)
    head = _encode_head(state, origin, checksums)
    return Encoded(checksums, len(head), _pieces(ram, head, checksums, known, CHUNK // cluster_size))


def _checksum(ram: Ram, number: int) -> int:
    at = number * CHUNK
    if not ram.bytes[at : at + CHUNK].view(np.uint64).any():
        return ZERO_CHUNK
    return xxhash.xxh3_64_intdigest(ram.view[at : at + CHUNK])


def _encode_head(state: dict[str, Any], origin: Origin, checksums: npt.NDArray[np.uint64]) -> bytes:
    record = record_codec.encode({"origin": _origin_record(origin), "state": state})
    body = struct.pack("<Q", len(record)) + record + checksums.tobytes()
    chunks = -(-(_HEAD.size - 8 + len(body)) // CHUNK)
    body = body.ljust(chunks * CHUNK - (_HEAD.size - 8), b"\0")
    return struct.pack("<8sIIQ", MAGIC, VERSION, chunks, xxhash.xxh3_64_intdigest(body)) + body


def _pieces(
    ram: Ram, head: bytes, checksums: npt.NDArray[np.uint64], known: Known, clusters: int
) -> Iterator[bytes | Unchanged]:
    """``clusters``: in a chunk."""
    yield head
    numbers = np.flatnonzero(checksums != np.uint64(ZERO_CHUNK))
    # where it is in the known snapshot's state, in chunks; -1: it is not
    places = np.where(known.changed, -1, known.head_size // CHUNK + ranks(known.checksums))[numbers]
    starts = np.flatnonzero(np.diff(places, prepend=-2) != np.where(places < 0, 0, 1))
    for start, end in pairwise([*starts.tolist(), len(places)]):
        if places[start] >= 0:
            yield Unchanged(int(places[start]) * clusters, (end - start) * clusters)
            continue
        for number in numbers[start:end].tolist():
            yield bytes(ram.view[number * CHUNK : (number + 1) * CHUNK])


def ranks(checksums: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """How many chunks are stored before each one."""
    stored = (checksums != np.uint64(ZERO_CHUNK)).astype(np.int64)
    before: npt.NDArray[np.int64] = np.cumsum(stored) - stored
    return before


def _origin_record(origin: Origin) -> dict[str, Any]:
    return {name: getattr(origin, name) for name in Origin.__slots__ if name != "layout"} | {
        "layout": [list(part) for part in origin.layout]
    }


def _read_origin(record: dict[str, Any]) -> Origin:
    """Raises KeyError, TypeError, ValueError."""
    layout = record.get("layout", [])
    if not isinstance(layout, list) or not all(type(name) is type(digest) is str for name, digest in layout):
        raise TypeError("its layout is none")
    plain = {name: record[name] for name in Origin.__slots__ if name != "layout"}
    return Origin(**plain, layout=tuple((name, digest) for name, digest in layout))


Read = Callable[[int, int], bytes]


def read_head(read: Read) -> Head:
    """``read(offset, length)`` gives as much as there is.  Raises MalformedState for what ``encode`` does not write."""
    first = read(0, CHUNK)
    if len(first) < CHUNK or first[: len(MAGIC)] != MAGIC:
        raise MalformedState("the snapshot was not made by timevm: its state cannot be loaded")
    _, version, chunks, checksum, length = _HEAD.unpack_from(first)
    if version != VERSION:
        raise MalformedState(f"the snapshot's state is of format {version}, this timevm reads format {VERSION}")
    if not 0 < chunks <= MOST_HEAD:
        raise MalformedState("the snapshot's state is damaged: its head has an impossible size")
    data = first if chunks == 1 else read(0, chunks * CHUNK)
    if len(data) < chunks * CHUNK or xxhash.xxh3_64_intdigest(memoryview(data)[_HEAD.size - 8 :]) != checksum:
        raise MalformedState("the snapshot's state is damaged: its head has another checksum")
    body = memoryview(data)[_HEAD.size :]
    if length > len(body):
        raise MalformedState("the snapshot's state is damaged: its record is longer than its head")
    try:
        record = record_codec.decode(bytes(body[:length]))
        origin = _read_origin(record["origin"])
        state = record["state"]
    except (MalformedRecord, KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedState(f"the snapshot's state is damaged: {error}") from error
    if not _sound(origin) or not isinstance(state, dict):
        raise MalformedState("the snapshot's state is damaged: its record holds something else")
    count = origin.ram_bytes // CHUNK
    if length + 8 * count > len(body):
        raise MalformedState("the snapshot's state is damaged: checksums are missing")
    checksums = np.frombuffer(body, dtype=np.uint8, count=8 * count, offset=length).copy().view(np.uint64)
    return Head(origin, state, checksums, len(data))


def read_chunks(read: Read, head: Head, wanted: npt.NDArray[np.bool_]) -> Iterator[tuple[int, bytes | None]]:
    """(number of the first chunk, bytes of one or more) in order, None for one of zeroes.

    Each chunk's checksum has been compared.  Raises MalformedState.
    """
    numbers = np.flatnonzero(wanted)
    places = np.where(head.checksums == np.uint64(ZERO_CHUNK), -1, ranks(head.checksums))[numbers]
    at = 0
    while at < len(numbers):
        if places[at] < 0:
            yield int(numbers[at]), None
            at += 1
            continue
        end = at + 1
        while (
            end < len(numbers)
            and end - at < ROW // CHUNK
            and places[end] == places[end - 1] + 1
            and numbers[end] == numbers[end - 1] + 1
        ):
            end += 1
        data = read(head.size + int(places[at]) * CHUNK, (end - at) * CHUNK)
        view = memoryview(data)
        for number, start in zip(numbers[at:end].tolist(), range(0, ROW, CHUNK), strict=False):
            piece = view[start : start + CHUNK]
            if len(piece) < CHUNK or xxhash.xxh3_64_intdigest(piece) != int(head.checksums[number]):
                raise MalformedState(f"the snapshot's RAM is damaged at {number * CHUNK:#x}: it has another checksum")
        yield int(numbers[at]), data
        at = end


def _sound(origin: Origin) -> bool:
    return (
        all(isinstance(text, str) for text in (origin.machine, origin.cpu, origin.version))
        and all(type(number) is int for number in (origin.ram_base, origin.ram_bytes, origin.shift))
        and (origin.recording is None or isinstance(origin.recording, str))
        and 0 < origin.ram_bytes <= 1 << 48
        and origin.ram_bytes % CHUNK == 0
    )
