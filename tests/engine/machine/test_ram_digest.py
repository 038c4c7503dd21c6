"""The digest of RAM says what RAM holds, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timevm.engine.machine import dirty_pages
from timevm.engine.machine.dirty_pages import ComparingWatcher, DirtyPages
from timevm.engine.machine.ram import PAGE, Ram
from timevm.engine.machine.ram_digest import RamDigest

BASE = 0x4000_0000
PAGES = 16
GOLDEN = 17661007674817268240

WRITES = st.lists(st.tuples(st.integers(0, PAGES * PAGE - 8), st.integers(0, 5)), max_size=30)


def fresh(contents: bytes) -> int:
    """The digest of a machine that never held anything else."""
    ram = Ram(BASE, len(contents))
    ram.write(BASE, contents)
    return RamDigest(ram, DirtyPages(ram)).digest()


@settings(max_examples=60)
@given(WRITES, st.lists(WRITES, max_size=5), st.booleans(), st.booleans())
def test_it_depends_on_the_contents_only(
    before: list[tuple[int, int]], rounds: list[list[tuple[int, int]]], compare: bool, untouched: bool
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        if compare:
            patched.setattr(dirty_pages, "watcher_for", ComparingWatcher)
        ram = Ram(BASE, PAGES * PAGE)
        if untouched:
            digest = RamDigest(ram, DirtyPages(ram), untouched=True)
        for offset, value in before:
            ram.write(BASE + offset, bytes([value]) * 8)
        if not untouched:
            digest = RamDigest(ram, DirtyPages(ram))
        for writes in rounds:
            for offset, value in writes:
                ram.write(BASE + offset, bytes([value]) * 8)
            assert digest.digest() == fresh(bytes(ram.view))
            assert digest.digest() == fresh(bytes(ram.view)), "asking changes nothing"


@given(st.permutations(range(PAGES)), st.permutations(range(PAGES)))
def test_the_order_of_writes_does_not_matter(first: list[int], second: list[int]) -> None:
    digests = set()
    for order in (first, second):
        ram = Ram(BASE, PAGES * PAGE)
        digest = RamDigest(ram, DirtyPages(ram))
        for page in order:
            ram.pages[page, page] = page + 1
            digest.digest()
        digests.add(digest.digest())
    assert len(digests) == 1


def test_the_same_page_elsewhere_is_another_content() -> None:
    empty = fresh(bytes(4 * PAGE))
    page = bytes(range(256)) * 16
    moved = [fresh(bytes(n * PAGE) + page + bytes((3 - n) * PAGE)) for n in range(4)]
    both = fresh(page + page + bytes(2 * PAGE))
    assert len({empty, both, *moved}) == 6


def test_two_pages_that_change_places() -> None:
    one, other = b"\1" * PAGE, b"\2" * PAGE
    assert fresh(one + other) != fresh(other + one)
    assert fresh(one + one) != fresh(other + other)


@given(st.integers(0, PAGES * PAGE - 1), st.integers(1, 255))
def test_one_byte_matters(where: int, value: int) -> None:
    contents = bytearray(PAGES * PAGE)
    before = fresh(bytes(contents))
    contents[where] = value
    assert fresh(bytes(contents)) != before


def test_it_is_a_number_of_64_bits_and_zero_for_empty_ram() -> None:
    assert fresh(bytes(PAGE)) == fresh(bytes(64 * PAGE)) == 0, "size is compared by the recording's identity"
    assert 0 < fresh(b"x" * PAGE) < 1 << 64


def test_it_is_what_it_was_in_earlier_versions() -> None:
    """Recordings hold it: another value would need another version of their format."""
    assert fresh(b"timevm".ljust(PAGE, b".") + bytes(PAGE) + b"\xff" * PAGE) == GOLDEN
