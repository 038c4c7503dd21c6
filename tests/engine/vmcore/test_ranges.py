"""What of the memory goes where: nothing is lost, nothing is there that was not asked for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from timevm.engine.cpu.mappings import Mappings
from timevm.engine.machine.memory_image import MemoryBlock
from timevm.engine.machine.ram import PAGE
from timevm.engine.vmcore.ranges import Part, physical_loads, select, virtual_loads

BASE = 0x4000_0000
PAGES = 12


def block(held: set[int], base: int = BASE) -> MemoryBlock:
    """Of PAGES pages; what each byte is says its place."""
    memory = bytearray(PAGES * PAGE)
    for number in held:
        memory[number * PAGE : (number + 1) * PAGE] = bytes(1 + (at + number) % 255 for at in range(PAGE))
    return MemoryBlock(base, memoryview(memory), np.array(sorted(held), np.int64))


def content(part: Part, most: int = 3000) -> bytes:
    pieces = list(part.pieces(most))
    assert all(size > 0 and (data is None or len(data) == size <= most) for data, size in pieces)
    assert not any(first is None and second is None for (first, _), (second, _) in pairwise(pieces))
    return b"".join(bytes(size) if data is None else bytes(data) for data, size in pieces)


@given(
    st.sets(st.integers(0, PAGES - 1)),
    st.integers(-2 * PAGE, (PAGES + 2) * PAGE),
    st.integers(-5, (PAGES + 4) * PAGE),
    st.sampled_from([1000, PAGE, 1 << 20]),
)
def test_any_range_of_any_memory(held: set[int], start: int, length: int, most: int) -> None:
    memory = block(held)
    chosen = range(BASE + start, BASE + start + length)
    parts = select([memory], chosen)
    first, last = max(start, 0), min(start + length, PAGES * PAGE)
    if first >= last:
        assert parts == []
        return
    [part] = parts
    assert (part.base, part.size, part.offset) == (BASE + first, last - first, 0)
    assert content(part, most) == bytes(memory.view[first:last])


def test_pages_that_hold_nothing_are_one_hole() -> None:
    [part] = select([block({3, 4, 9})], None)
    assert [(data is None, size // PAGE) for data, size in part.pieces(1 << 20)] == [
        (True, 3),
        (False, 2),
        (True, 4),
        (False, 1),
        (True, 2),
    ]


def test_pages_that_were_written_and_are_zero_again_are_holes_too() -> None:
    memory = block({3, 4, 5, 9})
    memory.view[4 * PAGE : 5 * PAGE] = bytes(PAGE)
    memory.view[9 * PAGE : 10 * PAGE - 1] = bytes(PAGE - 1)
    [part] = select([memory], None)
    assert [(data is None, size // PAGE) for data, size in part.pieces(1 << 20)] == [
        (True, 3),
        (False, 1),
        (True, 1),
        (False, 1),
        (True, 3),
        (False, 1),
        (True, 2),
    ]
    assert content(part) == bytes(memory.view)


def test_blocks_stand_one_behind_the_other() -> None:
    low, high = block({1}), block({2}, BASE + (1 << 30))
    parts = select([low, high], None)
    assert [(load.virtual, load.physical, load.size, load.offset) for load in physical_loads(parts)] == [
        (BASE, BASE, PAGES * PAGE, 0),
        (BASE + (1 << 30), BASE + (1 << 30), PAGES * PAGE, PAGES * PAGE),
    ]


def mapped(*rows: tuple[int, int, int]) -> Mappings:
    columns = np.array(rows, np.uint64).reshape(-1, 3)
    return Mappings(columns[:, 0], columns[:, 1], columns[:, 2])


def test_neighbours_in_both_memories_are_one_segment() -> None:
    parts = select([block({0})], None)
    top = (1 << 64) - 3 * PAGE
    found = virtual_loads(
        parts,
        mapped(
            (0, BASE, PAGE),
            (PAGE, BASE + PAGE, PAGE),
            (2 * PAGE, BASE + 5 * PAGE, PAGE),
            (4 * PAGE, BASE + 6 * PAGE, PAGE),
            (top, BASE, 2 * PAGE),
            (top + 2 * PAGE, BASE + 2 * PAGE, PAGE),
        ),
    )
    assert [(it.virtual, it.physical - BASE, it.size, it.offset) for it in found] == [
        (0, 0, 2 * PAGE, 0),
        (2 * PAGE, 5 * PAGE, PAGE, 5 * PAGE),
        (4 * PAGE, 6 * PAGE, PAGE, 6 * PAGE),
        (top, 0, 3 * PAGE, 0),
    ]


def test_what_is_mapped_beside_the_memory_is_left_out() -> None:
    parts = select([block({0}), block({0}, BASE + 100 * PAGE)], range(BASE + 10, BASE + 102 * PAGE))
    found = virtual_loads(parts, mapped((0, 0, PAGE), (1 << 30, BASE & ~0x1FFFFF, 1 << 21)))
    assert [(it.virtual - (1 << 30), it.physical - BASE, it.size, it.offset) for it in found] == [
        (10, 10, PAGES * PAGE - 10, 0),
        (100 * PAGE, 100 * PAGE, 2 * PAGE, PAGES * PAGE - 10),
    ]
    assert virtual_loads(parts, mapped((0, 0, PAGE))) == []
    assert virtual_loads(parts, Mappings()) == []
