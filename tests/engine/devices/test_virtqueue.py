"""Split virtqueues: what a friendly driver sees, and that a hostile one gets an error and costs little."""

from __future__ import annotations

import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.virtio_driver import RAM_BASE, RAM_SIZE, Memory
from timevm.engine.devices.virtqueue import (
    INDIRECT,
    NEXT,
    WRITE,
    Chain,
    DmaError,
    RingError,
    Virtqueue,
    gather,
    scatter,
    total,
)

DESCRIPTORS, AVAILABLE, USED, TABLE = RAM_BASE, RAM_BASE + 0x1000, RAM_BASE + 0x2000, RAM_BASE + 0x3000


def queue(size: int = 8) -> Virtqueue:
    ring = Virtqueue(256)
    ring.size, ring.ready = size, True
    ring.descriptors, ring.available, ring.used = DESCRIPTORS, AVAILABLE, USED
    return ring


def describe(memory: Memory, index: int, address: int, length: int, flags: int = 0, following: int = 0) -> None:
    memory.write(DESCRIPTORS + 16 * index, struct.pack("<QIHH", address, length, flags, following))


def offer(memory: Memory, *heads: int, size: int = 8, start: int = 0) -> None:
    for number, head in enumerate(heads, start):
        memory.write(AVAILABLE + 4 + 2 * (number % size), struct.pack("<H", head))
    memory.write(AVAILABLE + 2, struct.pack("<H", (start + len(heads)) & 0xFFFF))


def test_a_chain_comes_out_as_it_went_in() -> None:
    memory, ring = Memory(), queue()
    describe(memory, 3, 0x1000, 16, NEXT, 1)
    describe(memory, 1, 0x2000, 512, NEXT | WRITE, 7)
    describe(memory, 7, 0x3000, 1, WRITE)
    assert ring.pop(memory) is None
    offer(memory, 3)
    assert ring.pop(memory) == Chain(3, ((0x1000, 16),), ((0x2000, 512), (0x3000, 1)))
    assert ring.pop(memory) is None
    ring.push(memory, 3, 513)
    assert memory.read(USED + 2, 2) == b"\1\0"
    assert struct.unpack("<II", memory.read(USED + 4, 8)) == (3, 513)


def test_an_indirect_table_stands_for_its_descriptors() -> None:
    memory, ring = Memory(), queue()
    rows = [(0x100, 4, NEXT, 2), (0x300, 6, WRITE, 0), (0x200, 5, NEXT, 1)]
    memory.write(TABLE, b"".join(struct.pack("<QIHH", *row) for row in rows))
    describe(memory, 0, 0x50, 9, NEXT, 4)
    describe(memory, 4, TABLE, 48, INDIRECT)
    offer(memory, 0)
    assert ring.pop(memory) == Chain(0, ((0x50, 9), (0x100, 4), (0x200, 5)), ((0x300, 6),))


def test_indexes_go_round() -> None:
    memory, ring = Memory(), queue(4)
    describe(memory, 2, 0x10, 1)
    for number in range(70_000):
        if number > 10 and number < 65_500:
            continue  # the interesting places are the start and the wrap
        state = ring.state()
        state["next_available"] = state["next_used"] = number & 0xFFFF
        ring.restore(state)
        offer(memory, 2, size=4, start=number & 0xFFFF)
        assert ring.pop(memory) is not None
        ring.push(memory, 2, number)
        assert struct.unpack("<II", memory.read(USED + 4 + 8 * (number & 3), 8)) == (2, number)
        assert memory.read(USED + 2, 2) == struct.pack("<H", (number + 1) & 0xFFFF)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([(0, 0x10, 1, NEXT, 0)], "circle"),
        ([(0, 0x10, 1, NEXT, 1), (1, 0x10, 1, NEXT, 0)], "circle"),
        ([(0, 0x10, 1, NEXT, 8)], "descriptor 8 of a queue of 8"),
        ([(0, 0x10, 0, 0, 0)], "no bytes"),
        ([(0, 0x10, 1, WRITE | NEXT, 1), (1, 0x10, 1, 0, 0)], "behind one to write to"),
        ([(0, TABLE, 15, INDIRECT, 0)], "indirect table of 15 bytes"),
        ([(0, TABLE, 0, INDIRECT, 0)], "indirect table of 0 bytes"),
        ([(0, TABLE, 16, INDIRECT | NEXT, 1)], "behind an indirect table"),
    ],
)
def test_nonsense_is_named(rows: list[tuple[int, int, int, int, int]], why: str) -> None:
    memory, ring = Memory(), queue()
    for row in rows:
        describe(memory, *row)
    offer(memory, 0)
    with pytest.raises(RingError, match=why):
        ring.pop(memory)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ([(0x10, 1, NEXT, 0)], "circle"),
        ([(0x10, 1, NEXT, 2), (0x10, 1, 0, 0)], "descriptor 2 of an indirect table of 2"),
        ([(0x10, 16, INDIRECT, 0)], "inside another"),
    ],
)
def test_nonsense_in_an_indirect_table_is_named(table: list[tuple[int, int, int, int]], why: str) -> None:
    memory, ring = Memory(), queue()
    memory.write(TABLE, b"".join(struct.pack("<QIHH", *row) for row in table))
    describe(memory, 0, TABLE, 16 * len(table), INDIRECT)
    offer(memory, 0)
    with pytest.raises(RingError, match=why):
        ring.pop(memory)


def test_more_buffers_than_the_queue_has_are_refused() -> None:
    memory, ring = Memory(), queue()
    memory.write(AVAILABLE + 2, struct.pack("<H", 9))
    with pytest.raises(RingError, match="9 buffers available in a queue of 8"):
        ring.pop(memory)


def test_rings_outside_of_ram_are_refused() -> None:
    memory, ring = Memory(), queue()
    ring.available = RAM_BASE + RAM_SIZE
    with pytest.raises(DmaError):
        ring.pop(memory)


def test_without_event_index_a_flag_suppresses_interrupts() -> None:
    memory, ring = Memory(), queue()
    assert ring.wants_interrupt(memory, event_index=False)
    memory.write(AVAILABLE, b"\1\0")
    assert not ring.wants_interrupt(memory, event_index=False)


@given(st.integers(0, 0xFFFF), st.integers(1, 8), st.integers(0, 0xFFFF))
def test_with_event_index_the_driver_says_which_one_interrupts(start: int, pushed: int, event: int) -> None:
    """2.7.7.2: an interrupt if and only if the used index passed ``event``."""
    memory, ring = Memory(), queue()
    state = ring.state()
    state["next_used"] = state["signalled"] = start
    ring.restore(state)
    memory.write(AVAILABLE + 4 + 2 * 8, struct.pack("<H", event))
    for _ in range(pushed):
        ring.push(memory, 0, 0)
    passed = {(start + number) & 0xFFFF for number in range(pushed)}
    assert ring.wants_interrupt(memory, event_index=True) is (event in passed)
    assert not ring.wants_interrupt(memory, event_index=True)


def test_the_first_use_always_interrupts() -> None:
    memory, ring = Memory(), queue()
    memory.write(AVAILABLE + 4 + 2 * 8, struct.pack("<H", 1000))
    ring.push(memory, 0, 0)
    assert ring.wants_interrupt(memory, event_index=True)


segments = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 60)), max_size=6)


@given(segments, st.integers(0, 200), st.integers(0, 200))
def test_gather_and_scatter_see_one_stream(where: list[tuple[int, int]], start: int, size: int) -> None:
    memory = Memory()
    memory.data[:600] = bytes(index % 251 for index in range(600))
    places = tuple((RAM_BASE + 1000 * number + offset, length) for number, (offset, length) in enumerate(where))
    for address, length in places:
        memory.write(address, bytes((address + index) % 251 for index in range(length)))
    whole = b"".join(memory.read(*place) for place in places)
    assert total(places) == len(whole)
    assert gather(memory, places, start, size) == whole[start : start + size]
    data = bytes(range(255, 255 - min(size, max(0, len(whole) - start)), -1))
    scatter(memory, places, start, data)
    assert gather(memory, places, 0, 1000) == whole[:start][: len(whole)] + data + whole[start + len(data) :]


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from([1, 2, 8, 256]))
def test_a_hostile_driver_gets_an_error_or_a_chain_and_no_hang(data: st.DataObject, size: int) -> None:
    """Rings full of chosen rubbish: loops, tables of 4 GiB, addresses anywhere."""
    memory, ring = Memory(), queue(size)
    address = st.one_of(
        st.sampled_from([DESCRIPTORS, TABLE, RAM_BASE + RAM_SIZE - 8, 0, 2**64 - 1]), st.integers(0, 2**64 - 1)
    )
    length = st.one_of(st.sampled_from([0, 1, 16, 32, 16 * 1024, 2**32 - 16, 2**32 - 1]), st.integers(0, 2**32 - 1))
    row = st.tuples(address, length, st.integers(0, 7), st.one_of(st.integers(0, size), st.integers(0, 0xFFFF)))
    for index, values in enumerate(data.draw(st.lists(row, min_size=1, max_size=min(size, 8)))):
        describe(memory, index, *values)
    for index, values in enumerate(data.draw(st.lists(row, max_size=4))):
        memory.write(TABLE + 16 * index, struct.pack("<QIHH", *values))
    memory.write(AVAILABLE + 2, struct.pack("<H", data.draw(st.integers(0, size + 1))))
    heads = data.draw(st.lists(st.integers(0, size), max_size=min(size, 4)))
    for index, head in enumerate(heads):
        memory.write(AVAILABLE + 4 + 2 * index, struct.pack("<H", head))
    start = time.monotonic()
    for _ in range(size + 1):
        try:
            chain = ring.pop(memory)
        except (RingError, DmaError) as error:
            assert str(error)
            break
        if chain is None:
            break
        assert len(chain.readable) + len(chain.writable) <= 1024 + size
    else:
        pytest.fail("a queue gave more chains than it has entries")
    assert time.monotonic() - start < 5
