"""Tables of pages against whole copies of RAM."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from timevm.engine.machine.ram import PAGE
from timevm.engine.snapshot.page_store import ZERO, PageStore
from timevm.engine.snapshot.page_tables import PART, PageTables, Table

#: three parts and a piece of one
PAGES = 3 * PART + 5

Memory = np.ndarray[tuple[int, int], np.dtype[np.uint8]]

written = st.dictionaries(st.integers(0, PAGES - 1), st.integers(0, 3), max_size=12)


@given(
    st.lists(
        st.one_of(st.tuples(st.just("derive"), written), st.tuples(st.just("release"), st.integers(0, 30))), max_size=40
    )
)
@settings(max_examples=150, deadline=None)
def test_tables_keep_their_contents(actions: list[tuple[str, dict[int, int] | int]]) -> None:
    memory: Memory = np.zeros((PAGES, PAGE), dtype=np.uint8)
    store = PageStore(PAGES * 50)
    tables = PageTables(store, PAGES)
    kept: list[tuple[Table, Memory]] = []
    last = tables.empty()
    everything = np.arange(PAGES)
    for action, what in actions:
        if action == "derive" and isinstance(what, dict):
            for number, value in what.items():
                memory[number, number % 5 :] = value
            last = tables.derive(last, memory, np.array(sorted(what), dtype=np.int64))
            kept.append((last, memory.copy()))
        elif isinstance(what, int) and len(kept) > 1:
            tables.release(kept.pop(what % (len(kept) - 1))[0])  # the last one stays: the next is derived from it
        for table, contents in kept:
            assert (store.pages[tables.slots(table, everything)] == contents).all()
    for one, contents in kept:
        for other, others in kept:
            # a content that came back is another slot: what differs is in, and nothing whose slot is the same
            found = tables.differing(one, other)
            assert (
                found.tolist()
                == np.flatnonzero(tables.slots(one, everything) != tables.slots(other, everything)).tolist()
            )
            assert set(np.flatnonzero((contents != others).any(axis=1)).tolist()) <= set(found.tolist())
    needed = [set(tables.slots(table, everything).tolist()) - {ZERO} for table, _ in kept]
    assert store.used == len(set().union(*needed))
    for at, (table, _) in enumerate(kept):
        elsewhere = set().union(*(slots for other, slots in enumerate(needed) if other != at))
        assert tables.only_here(table) == len(needed[at] - elsewhere)
    for table, _ in kept:
        tables.release(table)
    assert store.used == 0 and tables.used_bytes == PART * 4


def test_a_table_costs_what_was_written() -> None:
    memory: Memory = np.zeros((PAGES, PAGE), dtype=np.uint8)
    memory[:] = 1
    tables = PageTables(PageStore(PAGES * 50), PAGES)
    first = tables.derive(tables.empty(), memory, np.arange(PAGES))
    before = tables.used_bytes
    memory[7] = 2
    tables.derive(first, memory, np.array([7]))
    assert tables.used_bytes - before == PART * 4 and first.nbytes == 4 * 4
