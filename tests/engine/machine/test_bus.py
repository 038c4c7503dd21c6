"""Device windows on whole pages: who answers where, against a look at every window."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timevm.engine.cpu.base import MmioHandler
from timevm.engine.machine.bus import PAGE, SharedPages, Window, map_windows
from timevm.engine.machine.outcome import MemoryRegion
from timevm.errors import InternalError


class Handler:
    def __init__(self, number: int, log: list[Any]) -> None:
        self.number = number
        self.log = log

    def read(self, offset: int, size: int) -> int:
        self.log.append((self.number, "read", offset, size))
        return self.number

    def write(self, offset: int, size: int, value: int) -> None:
        self.log.append((self.number, "write", offset, size, value))


class Space:
    """An address space of pages, as a CPU would map them."""

    def __init__(self, places: list[tuple[int, int]]) -> None:
        self.log: list[Any] = []
        self.mapped: list[tuple[int, int, MmioHandler]] = []
        self.windows = [
            Window(f"device {number}", base, size, Handler(number, self.log))
            for number, (base, size) in enumerate(places)
        ]
        map_windows(self.windows, lambda base, size, handler: self.mapped.append((base, size, handler)))

    def at(self, address: int) -> tuple[MmioHandler, int] | None:
        found = [(handler, address - base) for base, size, handler in self.mapped if base <= address < base + size]
        assert len(found) <= 1, "two runs of pages overlap"
        return found[0] if found else None


#: gap before the window, its size
SPREAD = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 64), st.sampled_from([0, PAGE // 2, PAGE, 3 * PAGE])),
        st.one_of(st.integers(1, 600), st.sampled_from([PAGE // 2, PAGE, 2 * PAGE])),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=200)
@given(SPREAD, st.permutations(range(8)), st.lists(st.integers(0, 1 << 16), max_size=20))
def test_the_right_one_answers(spread: list[tuple[int, int]], order: list[int], looks: list[int]) -> None:
    places, at = [], 0x0900_0000
    for gap, size in spread:
        places.append((at + gap, size))
        at += gap + size
    shuffled = [places[number] for number in order if number < len(places)]
    space = Space(shuffled)
    edges = [edge + by for base, size in places for edge in (base, base + size) for by in (-1, 0, 1)]
    for address in [*edges, *(0x0900_0000 + look for look in looks)]:
        owners = [window for window in space.windows if window.base <= address < window.end]
        found = space.at(address)
        if found is None:
            assert not owners
            continue
        handler, offset = found
        space.log.clear()
        answer = handler.read(offset, 4)
        handler.write(offset, 2, 77)
        if owners:
            number, inside = space.windows.index(owners[0]), address - owners[0].base
            assert answer == number
            assert space.log == [(number, "read", inside, 4), (number, "write", inside, 2, 77)]
        else:
            assert answer == 0 and not space.log
    for base, size, _ in space.mapped:
        assert base % PAGE == 0 and size % PAGE == 0


def test_a_window_of_whole_pages_is_mapped_itself() -> None:
    space = Space([(0x1000, 0x2000), (0x4000, 0x200)])
    assert space.mapped[0] == (0x1000, 0x2000, space.windows[0].handler)
    assert isinstance(space.mapped[1][2], SharedPages)


def test_small_windows_share_a_page() -> None:
    space = Space([(0x0A00_0000 + 0x200 * number, 0x200) for number in range(32)])
    assert [(base, size) for base, size, _ in space.mapped] == [(0x0A00_0000 + n * PAGE, PAGE) for n in range(4)]


@pytest.mark.parametrize("second", [0x0FFF, 0x1000, 0x1001, 0x10FF])
def test_overlaps_are_refused(second: int) -> None:
    with pytest.raises(InternalError, match=r"the windows of device . and device . overlap: correct the board"):
        Space([(0x1000, 0x100), (second, 2)])


def test_neighbours_are_no_overlap() -> None:
    Space([(0x1000, 0x100), (0x1100, 0x100), (0x0F00, 0x100)])


def test_a_region_of_the_memory_map() -> None:
    window = Window("uart", 0x1000, 0x200, Handler(0, []))
    assert window.region() == MemoryRegion("uart", 0x1000, 0x200, "io")
