"""The virtual clock against a naive one, and its corners one by one."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timevm.engine.clock.virtual_clock import VirtualClock
from timevm.errors import InternalError

NAMES = ("a", "b", "c", "d")


class Rig:
    """A clock whose icount the test sets; what fires is noted, and may arm a timer anew."""

    def __init__(self, shift: int = 0, names: tuple[str, ...] = NAMES) -> None:
        self.icount = 0
        self.fired: list[tuple[str, int]] = []
        self.sooner = 0
        self.again: dict[str, int] = {}
        self.clock = VirtualClock(shift, lambda: self.icount, self._on_sooner)
        self.timers = {name: self.clock.timer(name, partial(self._on_fire, name)) for name in names}

    def _on_sooner(self) -> None:
        self.sooner += 1

    def _on_fire(self, name: str) -> None:
        self.fired.append((name, self.clock.now_ns()))
        if name in self.again:
            self.timers[name].arm(self.again.pop(name))

    def fire_all(self) -> None:
        while self.clock.fire_next_due():
            pass


class Naive:
    """Deadlines in a dictionary, looked through each time."""

    def __init__(self, shift: int) -> None:
        self.shift = shift
        self.warp = 0
        self.deadlines: dict[str, int] = {}

    def first(self) -> tuple[int, str] | None:
        return min(((deadline, name) for name, deadline in self.deadlines.items()), default=None)

    def next_icount(self) -> int | None:
        first = self.first()
        if first is None:
            return None
        icount = max(0, (first[0] - self.warp) // (1 << self.shift) - 2)
        while (icount << self.shift) + self.warp < first[0]:
            icount += 1
        return icount

    def fire_all(self, icount: int) -> list[tuple[str, int]]:
        now = (icount << self.shift) + self.warp
        fired = []
        while (first := self.first()) is not None and first[0] <= now:
            del self.deadlines[first[1]]
            fired.append((first[1], now))
        return fired


MOVES = st.one_of(
    st.tuples(st.just("arm"), st.sampled_from(NAMES), st.integers(0, 60)),
    st.tuples(st.just("arm"), st.sampled_from(NAMES), st.integers(0, 60)),
    st.tuples(st.just("cancel"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("run"), st.just(""), st.integers(0, 9)),
    st.tuples(st.just("warp"), st.just(""), st.integers(0, 9)),
    st.tuples(st.just("save"), st.just(""), st.just(0)),
    st.tuples(st.just("back"), st.just(""), st.just(0)),
    st.tuples(st.just("reset"), st.just(""), st.just(0)),
)


@settings(max_examples=400)
@given(st.integers(0, 3), st.lists(MOVES, max_size=60))
def test_against_the_naive_clock(shift: int, moves: list[tuple[str, str, int]]) -> None:
    rig, naive = Rig(shift), Naive(shift)
    saved: tuple[Any, int, Naive] = (rig.clock.state(), 0, deepcopy(naive))
    for kind, name, number in moves:
        calls = rig.sooner
        match kind:
            case "arm":
                deadline = rig.clock.now_ns() + number - 10
                before = naive.first()
                moved = naive.deadlines.get(name) != deadline
                naive.deadlines[name] = deadline
                rig.timers[name].arm(deadline)
                now_first = naive.first()
                assert now_first is not None
                if before is None or now_first < before:
                    assert rig.sooner == calls + 1, "the CPU's bound is now too late, and nobody said so"
                if not moved or now_first[1] != name:
                    assert rig.sooner == calls, "nothing is due sooner"
            case "cancel":
                naive.deadlines.pop(name, None)
                rig.timers[name].cancel()
                assert rig.sooner == calls
            case "run":
                rig.icount += number
            case "warp":
                rig.clock.warp(number)
                naive.warp += number
            case "save":
                saved = (rig.clock.state(), rig.icount, deepcopy(naive))
            case "back":
                fired = len(rig.fired)
                rig.clock.restore(deepcopy(saved[0]))
                rig.icount, naive = saved[1], deepcopy(saved[2])
                assert (rig.sooner, len(rig.fired)) == (calls, fired), "restore called somebody"
            case "reset":
                rig.clock.reset()
                naive.deadlines.clear()
        first = naive.first()
        assert rig.clock.next_deadline_ns() == (None if first is None else first[0])
        assert rig.clock.next_icount() == naive.next_icount()
        assert rig.clock.now_ns() == (rig.icount << shift) + naive.warp
        assert rig.clock.state() == {"warp_ns": naive.warp, "armed": naive.deadlines}
        if kind in ("run", "warp"):
            fired = len(rig.fired)
            rig.fire_all()
            assert rig.fired[fired:] == naive.fire_all(rig.icount)


def test_ties_are_broken_by_name_whatever_the_order_of_arming() -> None:
    for order in (NAMES, NAMES[::-1]):
        rig = Rig()
        for name in order:
            rig.timers[name].arm(5)
        rig.icount = 5
        rig.fire_all()
        assert [name for name, _ in rig.fired] == list(NAMES)


def test_a_timer_may_arm_itself_while_it_fires() -> None:
    rig = Rig(shift=1)
    rig.again["a"] = 30
    rig.timers["a"].arm(10)
    rig.timers["b"].arm(20)
    rig.icount = 100
    rig.fire_all()
    assert [name for name, _ in rig.fired] == ["a", "b", "a"]


def test_a_timer_that_arms_itself_for_the_past_fires_at_the_same_moment() -> None:
    rig = Rig()
    rig.again["b"] = 0
    rig.timers["b"].arm(3)
    rig.timers["a"].arm(4)
    rig.icount = 4
    rig.fire_all()
    assert rig.fired == [("b", 4), ("b", 4), ("a", 4)]


def test_a_timer_is_disarmed_before_it_fires() -> None:
    rig = Rig()
    rig.timers["a"].arm(1)
    rig.icount = 1
    seen: list[int | None] = []
    rig.timers["a"].fire = lambda: seen.append(rig.clock.next_deadline_ns())
    rig.fire_all()
    assert seen == [None]


def test_arming_for_the_same_moment_again_changes_nothing() -> None:
    rig = Rig()
    rig.timers["a"].arm(7)
    rig.timers["a"].arm(7)
    assert rig.sooner == 1
    rig.icount = 7
    rig.fire_all()
    assert len(rig.fired) == 1


def test_many_stale_entries_do_not_stay() -> None:
    rig = Rig()
    for deadline in range(10_000, 0, -1):
        rig.timers["a"].arm(deadline)
    rig.icount = 1
    rig.fire_all()
    assert rig.fired == [("a", 1)]
    assert rig.clock.next_deadline_ns() is None
    rig.icount = 20_000
    rig.fire_all()
    assert len(rig.fired) == 1


@given(st.integers(0, 10), st.integers(0, 1 << 62), st.integers(0, 1 << 50))
def test_the_icount_of_a_deadline_is_the_first_at_which_it_is_due(shift: int, deadline: int, warp: int) -> None:
    rig = Rig(shift)
    rig.clock.warp(warp)
    rig.timers["a"].arm(deadline)
    icount = rig.clock.next_icount()
    assert icount is not None and (icount << shift) + warp >= deadline
    assert icount == 0 or ((icount - 1) << shift) + warp < deadline


def test_a_state_is_plain_and_independent_of_history() -> None:
    first, second = Rig(), Rig()
    for deadline in (9, 8, 5):
        first.timers["c"].arm(deadline)
    first.timers["b"].arm(1)
    first.timers["b"].cancel()
    first.timers["a"].arm(6)
    second.timers["a"].arm(6)
    second.timers["c"].arm(5)
    assert first.clock.state() == second.clock.state() == {"warp_ns": 0, "armed": {"a": 6, "c": 5}}
    assert list(first.clock.state()["armed"]) == ["a", "c"]


def test_errors() -> None:
    rig = Rig()
    with pytest.raises(InternalError, match="two timers are called a"):
        rig.clock.timer("a", lambda: None)
    with pytest.raises(InternalError, match="only goes forward"):
        rig.clock.warp(-1)
