"""The stored form of a machine's state: what is written is read again, and nothing else is."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from timevm.blkreplay.qcow2.snapshot_operations import Unchanged
from timevm.engine.machine.fingerprint import Build
from timevm.engine.machine.ram import Ram
from timevm.engine.snapshot import record_codec
from timevm.engine.snapshot.record_codec import MalformedRecord
from timevm.engine.snapshot.vmstate import (
    CHUNK,
    Encoded,
    Known,
    MalformedState,
    Origin,
    Read,
    encode,
    read_chunks,
    read_head,
)
from timevm.errors import InternalError, UserError

CHUNKS = 8
ORIGIN = Origin("virt", "cortex-a57", 0x4000_0000, CHUNKS * CHUNK, 3, None)
STATE: dict[str, Any] = {"cpu": {"icount": 7, "context": bytes(range(256)), "waiting": False}, "list": [1, None, "x"]}

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), plain))
def test_records_come_back(record: dict[str, Any]) -> None:
    assert record_codec.decode(record_codec.encode(record)) == record


@pytest.mark.parametrize("value", [1.5j, object(), {1, 2}, np.int64(3)])
def test_what_is_not_plain_is_a_devices_bug(value: object) -> None:
    with pytest.raises(InternalError, match="correct the device"):
        record_codec.encode({"x": value})


@given(st.binary(max_size=300))
def test_other_bytes_are_no_record(data: bytes) -> None:
    with pytest.raises(MalformedRecord):
        record_codec.decode(data)


def test_a_record_that_says_it_is_huge_is_not_unpacked() -> None:
    bomb = bytearray(record_codec.encode({"x": "y" * 100_000}))
    at = 4 + 1  # magic, descriptor; then the size of the contents
    bomb[at : at + 4] = struct.pack("<I", 0xFFFF_FFF0)
    with pytest.raises(MalformedRecord):
        record_codec.decode(bytes(bomb))


def ram_of(contents: dict[int, int]) -> Ram:
    ram = Ram(ORIGIN.ram_base, ORIGIN.ram_bytes)
    for number, value in contents.items():
        ram.bytes[number * CHUNK + 5 : (number + 1) * CHUNK - 5] = value
    return ram


def stored(encoded: Encoded, before: bytes = b"", cluster: int = CHUNK) -> bytes:
    pieces = []
    for piece in encoded.pieces:
        if isinstance(piece, Unchanged):
            pieces.append(before[piece.first * cluster : (piece.first + piece.count) * cluster])
            assert len(pieces[-1]) == piece.count * cluster
        else:
            pieces.append(piece)
    return b"".join(pieces)


def reader(data: bytes) -> Read:
    return lambda offset, length: data[offset : offset + length]


def contents_of(data: bytes) -> bytes:
    read = reader(data)
    head = read_head(read)
    ram = bytearray(head.origin.ram_bytes)
    for first, piece in read_chunks(read, head, np.ones(len(head.checksums), dtype=np.bool_)):
        if piece is not None:
            ram[first * CHUNK : first * CHUNK + len(piece)] = piece
    return bytes(ram)


rams = st.dictionaries(st.integers(0, CHUNKS - 1), st.integers(0, 3))


@given(st.lists(rams, min_size=1, max_size=5), st.sampled_from([4096, CHUNK, 2 * CHUNK]))
@settings(max_examples=60, deadline=None)
def test_ram_comes_back_however_much_of_it_is_known(rounds: list[dict[int, int]], cluster: int) -> None:
    ram, before, known = ram_of({}), b"", None
    for contents in rounds:
        changed = np.zeros(CHUNKS, dtype=np.bool_)
        for number, value in contents.items():
            ram.bytes[number * CHUNK + 5 : (number + 1) * CHUNK - 5] = value
            changed[number] = True
        if known is not None:
            known = Known(known.checksums, known.head_size, changed)
        encoded = encode(ram, STATE, ORIGIN, cluster, known)
        data = stored(encoded, before, cluster)
        assert contents_of(data) == bytes(ram.view)
        head = read_head(reader(data))
        assert head.state == STATE and head.origin == ORIGIN
        before, known = data, Known(encoded.checksums, encoded.head_size, changed)


def test_what_is_known_is_not_stored_again() -> None:
    ram = ram_of({1: 1, 2: 2, 5: 3})
    first = encode(ram, STATE, ORIGIN, CHUNK)
    changed = np.zeros(CHUNKS, dtype=np.bool_)
    changed[2] = True
    again = encode(ram, STATE, ORIGIN, CHUNK, Known(first.checksums, first.head_size, changed))
    _, *pieces = again.pieces
    assert pieces == [Unchanged(1, 1), bytes(ram.view[2 * CHUNK : 3 * CHUNK]), Unchanged(3, 1)]


@pytest.mark.parametrize("layout", [(), (("memory map", "12"), ("device uart0", "34"))])
def test_where_it_comes_from_is_stored(layout: Build) -> None:
    origin = replace(ORIGIN, layout=layout)
    assert read_head(reader(stored(encode(ram_of({}), STATE, origin, CHUNK)))).origin == origin


def test_the_parts_of_another_machine_are_named() -> None:
    origin, now = (replace(ORIGIN, layout=(("memory map", "1"), ("device uart0", digest))) for digest in "23")
    assert origin.differences(now) == ["parts: here is another device uart0"]
    assert origin.differences(replace(now, cpu="max")) == ["CPU model: saved with cortex-a57, now max"]
    assert ORIGIN.differences(now) == origin.differences(origin) == []


SAMPLE = stored(encode(ram_of({0: 9, 3: 1, 4: 2}), STATE, ORIGIN, CHUNK))


@given(st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_change_is_noticed(data: st.DataObject) -> None:
    broken = bytearray(SAMPLE)
    at = data.draw(st.integers(0, len(broken) - 1) | st.integers(0, 600))
    broken[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(MalformedState):
        contents_of(bytes(broken))


@given(st.integers(0, len(SAMPLE) - 1))
@settings(max_examples=50, deadline=None)
def test_what_ends_too_early_is_noticed(length: int) -> None:
    with pytest.raises(MalformedState):
        contents_of(SAMPLE[:length])


@given(st.binary(max_size=200))
def test_other_bytes_are_no_state(data: bytes) -> None:
    with pytest.raises(MalformedState):
        read_head(reader(data.ljust(CHUNK, b"\0")))


def test_the_format_is_named() -> None:
    for at, message in ((0, "not made by timevm"), (8, "is of format 255, this timevm reads format 1")):
        other = bytearray(SAMPLE)
        other[at] = 255
        with pytest.raises(MalformedState, match=message):
            read_head(reader(bytes(other)))


def test_a_chunk_is_64_kib_and_so_is_ram() -> None:
    with pytest.raises(UserError, match="multiple of 64 KiB"):
        encode(Ram(0, CHUNK + 4096), STATE, ORIGIN, CHUNK)
