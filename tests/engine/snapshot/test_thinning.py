"""Spacing doubles away from the present, whatever came before."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from timevm.engine.snapshot.thinning import weakest


@given(st.lists(st.integers(0, 1 << 40), unique=True, max_size=50), st.integers(0, 1 << 40), st.data())
def test_never_a_pinned_one(places: list[int], present: int, data: st.DataObject) -> None:
    places.sort()
    pinned = data.draw(st.sets(st.integers(0, len(places) - 1))) if places else set()
    victim = weakest(places, present, pinned)
    assert (victim is None) == (len(pinned) == len(places))
    assert victim is None or (0 <= victim < len(places) and victim not in pinned)


def kept_after(count: int, room: int) -> list[int]:
    """Distances from the present of what is left when one is taken every 1000 instructions."""
    places: list[int] = []
    for number in range(count):
        places.append(number * 1000)
        while len(places) > room:
            victim = weakest(places, places[-1], {0, len(places) - 1})
            assert victim is not None
            places.pop(victim)
    return [places[-1] - place for place in places][::-1]


def test_gaps_are_in_proportion_to_the_distance() -> None:
    room = 40
    for count in (200, 3000):
        distances = kept_after(count, room)
        assert len(distances) == room and distances[-1] == (count - 1) * 1000
        # what a way back costs at most: the gap before a place, compared with how far away it is
        for nearer, farther in pairwise(distances[5:]):
            assert farther - nearer <= 0.6 * farther
        assert distances[:5] == [0, 1000, 2000, 3000, 4000]
