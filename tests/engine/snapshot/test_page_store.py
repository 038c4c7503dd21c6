"""The page store against a dictionary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timevm.engine.machine.ram import PAGE
from timevm.engine.snapshot.page_store import ZERO, PageStore, Slots
from timevm.errors import HostError, InternalError

PAGES = 8


def ram() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.zeros((PAGES, PAGE), dtype=np.uint8)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("take"), st.dictionaries(st.integers(0, PAGES - 1), st.integers(0, 3))),
            st.tuples(st.just("release"), st.integers(0, 20)),
        ),
        max_size=40,
    )
)
@settings(max_examples=100, deadline=None)
def test_tables_keep_their_contents(actions: list[tuple[str, dict[int, int] | int]]) -> None:
    store, memory = PageStore(PAGES * 40), ram()
    tables: list[tuple[Slots, np.ndarray[tuple[int, int], np.dtype[np.uint8]]]] = []
    last = np.zeros(PAGES, dtype=np.int32)
    for action, what in actions:
        if action == "take" and isinstance(what, dict):
            for number, value in what.items():
                memory[number, number % 5 :] = value
            numbers = np.array(sorted(what), dtype=np.int64)
            table = last.copy()
            table[numbers] = store.add(memory, numbers)
            store.hold(table)
            tables.append((table, memory.copy()))
            last = table
        elif isinstance(what, int) and len(tables) > 1:
            # the last one stays: the next table is made from it
            table, _ = tables.pop(what % (len(tables) - 1))
            store.release(table)
        for table, contents in tables:
            assert (store.pages[table] == contents).all()
    needed = {slot for table, _ in tables for slot in table.tolist()} - {ZERO}
    assert store.used == len(needed)


def test_zero_pages_cost_nothing() -> None:
    store, memory = PageStore(4), ram()
    assert store.add(memory, np.arange(PAGES)).tolist() == [ZERO] * PAGES
    assert store.used_bytes == 0


def test_a_full_store_says_so() -> None:
    store, memory = PageStore(4), ram()
    memory[:] = 1
    with pytest.raises(HostError, match="rrmem"):
        store.add(memory, np.arange(PAGES))


def test_a_table_given_back_twice_is_a_bug() -> None:
    store, memory = PageStore(4), ram()
    memory[0] = 1
    table = store.add(memory, np.arange(2))
    store.hold(table)
    store.release(table)
    with pytest.raises(InternalError):
        store.release(table)
