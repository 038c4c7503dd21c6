"""Overlay and journal against the simplest model: a list of all versions of a disk."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.blkreplay.memory_node import MemoryNode
from timevm.blkreplay.granules import BLOCK, GRANULE
from timevm.blkreplay.journal import Journal
from timevm.blkreplay.layer import ImageLayer
from timevm.blkreplay.spool import Spool
from timevm.blkreplay.temporary_overlay import TemporaryOverlay
from timevm.errors import HostError

BLOCK_BYTES = BLOCK * GRANULE
#: two blocks and a bit, no multiple of anything
SIZE = 2 * BLOCK_BYTES + 5 * GRANULE + 512


def ranges(size: int = SIZE) -> st.SearchStrategy[tuple[int, int]]:
    """(offset, length >= 1) of a disk; often at granules, sometimes large."""
    edge = st.one_of(
        st.integers(0, size),
        st.builds(lambda number, by: min(size, max(0, number * GRANULE + by)), st.integers(0, 8), st.integers(-1, 1)),
        st.sampled_from([0, BLOCK_BYTES, 2 * BLOCK_BYTES, size]),
    )
    return st.tuples(edge, edge).map(lambda pair: (min(*pair), max(pair) - min(*pair))).filter(lambda pair: pair[1] > 0)


operations = st.lists(
    st.tuples(st.sampled_from(["write", "write", "zero", "read"]), ranges(), st.integers(1, 255)), max_size=12
)


def pattern(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(min(length, 5000)).ljust(length, bytes([seed % 256]))


BASE = pattern(1, SIZE)


@settings(max_examples=30, deadline=None)
@given(operations, st.sampled_from([0, 5000, 1 << 30]))
def test_an_overlay_is_the_disk_that_was_written(todo: list[tuple[str, tuple[int, int], int]], memory: int) -> None:
    node = MemoryNode(BASE)
    overlay = TemporaryOverlay(node, memory=memory)
    model = bytearray(BASE)
    for kind, (offset, length), seed in todo:
        if kind == "write":
            overlay.write(offset, pattern(seed, length))
            model[offset : offset + length] = pattern(seed, length)
        elif kind == "zero":
            overlay.write_zeroes(offset, length)
            model[offset : offset + length] = bytes(length)
        assert overlay.read(offset, length) == model[offset : offset + length]
    assert overlay.read(0, SIZE) == model
    assert node.data == BASE and {what for what, _, _ in node.log} <= {"read"}
    overlay.close()


def test_an_overlay_writes_a_granule_twice_into_the_same_place() -> None:
    overlay = TemporaryOverlay(MemoryNode(1 << 20))
    for seed in range(100):
        overlay.write(3, pattern(seed, 20_000))
    assert overlay._spool.size == 5 * GRANULE


@settings(max_examples=30, deadline=None)
@given(operations, st.lists(st.integers(0, 12), max_size=6), st.sampled_from([0, 9000, 1 << 30]), st.data())
def test_a_journal_holds_every_version(
    todo: list[tuple[str, tuple[int, int], int]], returns: list[int], memory: int, data: st.DataObject
) -> None:
    """Any version can be read at any time, also after going back and writing the same once more."""
    todo = [one for one in todo if one[0] != "read"]
    versions = [BASE]
    for kind, (offset, length), seed in todo:
        new = bytearray(versions[-1])
        new[offset : offset + length] = pattern(seed, length) if kind == "write" else bytes(length)
        versions.append(bytes(new))
    journal = Journal(MemoryNode(BASE), memory=memory)

    def write(number: int) -> None:
        kind, (offset, length), seed = todo[number - 1]
        if kind == "write":
            journal.write(offset, pattern(seed, length), number)
        else:
            journal.write_zeroes(offset, length, number)

    at = furthest = 0
    for target in [*returns, len(todo)]:
        goal = min(target, len(todo))
        at = min(at, goal)  # a restore: nothing but a number
        kept = journal.bytes_kept
        for number in range(at + 1, goal + 1):
            write(number)
        if goal <= furthest:
            assert journal.bytes_kept == kept
        at, furthest = goal, max(goal, furthest)
        version = data.draw(st.integers(0, furthest))
        offset, length = data.draw(ranges())
        assert journal.read(offset, length, version) == versions[version][offset : offset + length]
    for version in {0, 1, len(todo) // 2, len(todo)} & set(range(len(versions))):
        expected = versions[version]
        assert journal.read(0, SIZE, version) == expected
        disk = bytearray(BASE)
        touched = [*journal.touched(version)]
        assert touched == sorted(set(touched))
        for offset in touched:
            length = min(GRANULE, SIZE - offset)
            disk[offset : offset + length] = journal.read(offset, length, version)
        assert disk == expected
    journal.close()


def test_a_journal_over_the_disk_of_a_snapshot() -> None:
    """Loaded at version 10, the writes before it unknown; then from the start, through 10 and on."""
    final = random.Random(3)
    writes = {
        number: (final.randrange(0, 60_000), bytes([number]) * final.randrange(1, 9000)) for number in range(1, 21)
    }
    versions = [bytes(1 << 17)]
    for number in range(1, 21):
        new = bytearray(versions[-1])
        offset, piece = writes[number]
        new[offset : offset + len(piece)] = piece
        versions.append(bytes(new))
    journal = Journal(MemoryNode(versions[0]))
    assert journal.knows(0) and not journal.knows(10)
    journal.adopt(10, MemoryNode(versions[10]))
    for number in range(11, 21):
        journal.write(*writes[number], number)
    assert not journal.knows(15)
    for version in range(10, 21):
        assert journal.read(0, 1 << 17, version) == versions[version]
    for number in range(1, 21):
        journal.write(*writes[number], number)
    assert journal.knows(15) and not journal.knows(21)
    for version in range(21):
        assert journal.read(0, 1 << 17, version) == versions[version]


def test_zeroing_a_large_disk_costs_nothing_much() -> None:
    """20 GiB: no granule by granule."""

    class Huge(MemoryNode):
        @property
        def size(self) -> int:
            return 20 << 30

    start = time.monotonic()
    journal, overlay = Journal(Huge(0)), TemporaryOverlay(Huge(0))
    journal.write_zeroes(512, (20 << 30) - 1024, 1)
    overlay.write_zeroes(0, 20 << 30)
    assert journal.read(10 << 30, 8192, 1) == overlay.read(10 << 30, 8192) == bytes(8192)
    assert time.monotonic() - start < 20


@settings(max_examples=50)
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20), st.integers(0, 2000))
def test_a_spool_keeps_what_it_got(pieces: list[bytes], memory: int) -> None:
    spool = Spool(memory)
    places = [spool.append(piece) for piece in pieces]
    whole = b"".join(pieces)
    assert [spool.read(place, len(piece)) for place, piece in zip(places, pieces, strict=True)] == pieces
    assert spool.read(0, len(whole)) == whole and spool.size == len(whole)
    assert spool.spilled == 0 if len(whole) <= memory else spool.spilled >= len(whole) - memory
    if len(whole) > 10:
        spool.overwrite(3, b"1234567")
        assert spool.read(0, len(whole)) == whole[:3] + b"1234567" + whole[10:]
    spool.close()
    spool.close()


def test_no_room_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    spool = Spool(10)
    spool.append(b"12345")
    with pytest.raises(HostError, match=r"no room for what the guest writes in .*gone: .* TMPDIR"):
        spool.append(b"123456")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(2, 9))
def test_a_write_that_the_host_refused_is_read_as_the_guest_wrote_it(seed: int, every: int) -> None:
    """The image may hold anything there; a replay holds what the guest wrote.  It must be the same, always."""
    size = 64 * GRANULE
    node = MemoryNode(bytes(size))
    layer, journal = ImageLayer(node), Journal(MemoryNode(bytes(size)))
    chance = random.Random(seed)
    node.refuse = lambda kind, offset, length: chance.randrange(every) == 0
    for number in range(1, 40):
        first = chance.randrange(0, size // 512 - 60)
        offset, piece = first * 512, bytes([number]) * (512 * chance.randrange(1, 60))
        zeroes = chance.randrange(3) == 0
        if zeroes:
            journal.write_zeroes(offset, len(piece), number)
        else:
            journal.write(offset, piece, number)
        try:
            if zeroes:
                layer.write_zeroes(offset, len(piece), number, unmap=True)
            else:
                layer.write(offset, piece, number)
        except HostError:
            pass
        try:
            seen = layer.read(0, size, number)
        except HostError:
            continue
        assert seen == journal.read(0, size, number)
