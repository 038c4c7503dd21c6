"""Every event survives the codec; no bytes make it do anything but decode or refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timevm.engine.replay.codec import (
    LARGEST,
    Cursor,
    Entry,
    EventKind,
    MalformedEvent,
    decode,
    encode,
    encoded_size,
    kind_of,
    put_varint,
)
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

words = st.integers(0, LARGEST)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(SerialInput, st.integers(0, 300), st.binary(max_size=300)),
    st.builds(Idle, st.integers(1, NEVER)),
    st.builds(Request, st.sampled_from(RequestKind)),
    st.builds(Digest, words, words, words),
    st.builds(End, st.text()),
    st.builds(BlockCompletion, st.integers(0, 300), words, st.booleans()),
    st.builds(NetworkInput, st.integers(0, 300), st.binary(max_size=300)),
)
deltas = st.integers(0, 1 << 40)


@given(st.lists(st.tuples(deltas, events)), st.integers(0, 1 << 50))
def test_events_survive_a_round_trip(pairs: list[tuple[int, Event]], first: int) -> None:
    out = bytearray()
    expected = []
    icount = first
    for delta, event in pairs:
        before = len(out)
        encode(out, delta, event)
        assert len(out) - before == encoded_size(delta, event)
        icount += delta
        expected.append(Entry(icount, event))
    assert list(decode(bytes(out), first)) == expected


@given(words)
def test_a_varint_survives_and_is_short(value: int) -> None:
    out = bytearray()
    put_varint(out, value)
    assert len(out) == max(1, -(-value.bit_length() // 7))
    cursor = Cursor(bytes(out))
    assert cursor.varint() == value
    assert cursor.at_end


@pytest.mark.parametrize("value", [-1, LARGEST + 1])
def test_what_is_no_64_bit_number_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        put_varint(bytearray(), value)


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_decoded_but_nothing_else(data: bytes) -> None:
    try:
        entries = list(decode(data, 0))
    except MalformedEvent as error:
        assert str(error)
    else:
        assert len(entries) <= len(data)


@given(events, st.data())
def test_an_event_that_is_cut_short_is_refused(event: Event, data: st.DataObject) -> None:
    out = bytearray()
    encode(out, 1000, event)
    cut = data.draw(st.integers(1, len(out) - 1))
    with pytest.raises(MalformedEvent):
        list(decode(bytes(out[:cut]), 0))


def test_a_disk_request_ends_well_or_not() -> None:
    with pytest.raises(MalformedEvent, match="status 2"):
        list(decode(b"\x00\x10\x00\x05\x02", 0))


def test_a_kind_of_a_later_version_is_named_with_the_version() -> None:
    with pytest.raises(MalformedEvent, match=r"event kind 200 is unknown to this timevm \(.*format 1\)"):
        list(decode(b"\x00\xc8", 0))


def test_the_numbers_of_the_kinds_never_change() -> None:
    """They are in every recording ever made."""
    assert {kind.name: int(kind) for kind in EventKind} == {
        "SERIAL_INPUT": 1,
        "IDLE": 2,
        "REQUEST": 3,
        "DIGEST": 4,
        "END": 5,
        "BLOCK_COMPLETION": 16,
        "NETWORK_INPUT": 17,
    }
    assert kind_of(Idle(1)) is EventKind.IDLE


def test_bytes_on_disk_are_those_of_the_document() -> None:
    out = bytearray()
    encode(out, 300, SerialInput(0, b"hi"))
    encode(out, 0, Idle(128))
    encode(out, 1, Request(RequestKind.POWERDOWN))
    encode(out, 0, Digest(1, 2, 3))
    encode(out, 0, End("quit"))
    encode(out, 2, BlockCompletion(1, 300))
    encode(out, 0, BlockCompletion(0, 5, failed=True))
    encode(out, 7, NetworkInput(1, b"frame"))
    assert bytes(out) == (
        b"\xac\x02\x01\x00\x02hi"
        b"\x00\x02\x80\x01"
        b"\x01\x03\x02"
        b"\x00\x04" + b"".join(bytes([n, 0, 0, 0, 0, 0, 0, 0]) for n in (1, 2, 3)) + b"\x00\x05\x04quit"
        b"\x02\x10\x01\xac\x02\x00"
        b"\x00\x10\x00\x05\x01"
        b"\x07\x11\x01\x05frame"
    )
