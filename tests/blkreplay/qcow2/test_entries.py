"""Table entries and reference counts as arithmetic, against slow models that work entry by entry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timevm.blkreplay.qcow2 import refcount_codec
from timevm.blkreplay.qcow2.entries import (
    COMPRESSED,
    COPIED,
    OFFSET_MASK,
    ZERO,
    Kind,
    compressed_extent,
    decode,
    encode,
    kind_of,
    kinds_of,
    referenced_clusters,
    runs_of,
)
from timevm.blkreplay.qcow2.layout import l1_entries_for

BITS = st.sampled_from((9, 12, 16, 21))
PLACES = st.integers(0, 40)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, list[int]]:
    """Cluster bits, entries that a sound image may have."""
    bits = draw(BITS)
    entries: list[int] = []
    for kind in draw(st.lists(st.sampled_from("uzZdddDc"), min_size=1, max_size=30)):
        host = draw(PLACES) << bits
        match kind:
            case "u":
                entries.append(0)
            case "z":
                entries.append(ZERO)
            case "Z":
                entries.append(ZERO | host | COPIED)
            case "d":
                entries.append(host | COPIED)
            case "D":
                entries.append((entries[-1] + (1 << bits)) & (OFFSET_MASK | COPIED) if entries else host)
            case "c":
                sectors = draw(st.integers(0, (1 << (bits - 8)) - 1))
                entries.append(COMPRESSED | sectors << (62 - (bits - 8)) | draw(st.integers(0, 1 << 30)))
    return bits, entries


@given(tables())
def test_runs_say_what_the_entries_say(made: tuple[int, list[int]]) -> None:
    bits, entries = made
    table = np.array(entries, dtype=np.uint64)
    seen: list[tuple[Kind, int]] = []
    for run in runs_of(table, 1 << bits):
        assert run.first == len(seen)
        for number in range(run.count):
            seen.append((run.kind, run.host + (number << bits if run.kind == Kind.DATA else 0)))
    for (kind, host), entry in zip(seen, entries, strict=True):
        assert kind == kind_of(entry)
        if kind == Kind.DATA:
            assert host == entry & OFFSET_MASK
        elif kind == Kind.COMPRESSED:
            assert host == entry
    assert [Kind(kind) for kind in kinds_of(table)] == [kind_of(entry) for entry in entries]


@given(tables())
def test_references_are_counted_cluster_by_cluster(made: tuple[int, list[int]]) -> None:
    bits, entries = made
    expected: list[int] = []
    for entry in entries:
        if kind_of(entry) == Kind.COMPRESSED:
            offset, length = compressed_extent(entry, bits)
            expected += range(offset >> bits, ((offset + length - 1) >> bits) + 1)
        elif entry & OFFSET_MASK:
            expected.append((entry & OFFSET_MASK) >> bits)
    assert sorted(referenced_clusters(np.array(entries, dtype=np.uint64), bits).tolist()) == sorted(expected)


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_tables_are_big_endian(entries: list[int]) -> None:
    data = b"".join(entry.to_bytes(8, "big") for entry in entries)
    assert decode(data).tolist() == entries
    assert encode(decode(data)) == data


@pytest.mark.parametrize("order", range(7))
@given(data=st.data())
def test_counts_of_every_width(order: int, data: st.DataObject) -> None:
    width = 1 << order
    counts = data.draw(st.lists(st.integers(0, (1 << width) - 1), min_size=64, max_size=64))
    packed = 0
    for number, count in enumerate(counts):  # the specification counts bits within a byte from the least significant
        place = number * width
        for byte in range(max(1, width // 8)):
            part = count >> (max(width, 8) - 8 - byte * 8) & 0xFF
            packed |= part << (place // 8 + byte) * 8 + place % 8
    stored = packed.to_bytes(64 * width // 8, "little")
    assert refcount_codec.decode(stored, order).tolist() == counts
    assert refcount_codec.encode(refcount_codec.decode(stored, order), order) == stored
    assert refcount_codec.largest(order) == (1 << width) - 1


@pytest.mark.parametrize(
    ("size", "bits", "entries"), [(0, 16, 0), (1, 16, 1), (512 << 20, 16, 1), ((512 << 20) + 1, 16, 2), (32768, 9, 1)]
)
def test_l1_entries(size: int, bits: int, entries: int) -> None:
    assert l1_entries_for(size, bits) == entries
