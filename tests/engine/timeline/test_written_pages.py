"""Searches for writes pass over the stretches that did not touch the memory, and find what a whole run finds."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.timeline.guests import Replay, record_typing, replay
from tests.engine.timeline.test_timeline import ShortPace, Waiter
from tests.linux.harness import Terminal, build
from timevm.engine.cpu.base import WatchKind, Watchpoint
from timevm.engine.machine.dirty_pages import ComparingWatcher, DirtyPages
from timevm.engine.machine.outcome import RunEnd, Stops
from timevm.engine.machine.ram import PAGE, Ram
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.timeline import quiet_times
from timevm.engine.timeline.written_pages import WrittenPages, may_be_written


@given(st.sets(st.integers(0, 299)))
def test_a_page_that_was_written_is_known(pages: set[int]) -> None:
    ram = Ram(0x4000_0000, 300 * PAGE)
    written = WrittenPages(DirtyPages(ram))
    for page in pages:
        ram.write(ram.base + page * PAGE + 8, bytes(1))  # that changes nothing
    taken = written.take()
    known = {page for page in range(300) if may_be_written(taken, [page])}
    assert known == pages or known == set(), "a host that only compares sees nothing here"
    assert may_be_written(taken, range(300)) == bool(known)
    assert not may_be_written(written.take(), range(300))
    assert not may_be_written(taken, [300, 100_000])


def test_a_host_that_only_compares_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timevm.engine.machine.dirty_pages.watcher_for", ComparingWatcher)
    assert not DirtyPages(Ram(0, 4 * PAGE)).sees_every_write


def stored_to(spec: MachineSpec) -> list[int]:
    """Addresses that the guest stores to."""
    machine = build(replace(spec, mode="play"), Terminal())
    machine.set_stops(Stops(watchpoints=frozenset({Watchpoint(machine.ram.base, machine.ram.size, WatchKind.WRITE)})))
    found: set[int] = set()
    while True:
        result, passed, _ = machine.pass_by(machine.icount + 5_000)
        found |= {stop.address for stop in passed if stop.address is not None}
        if result.end is not RunEnd.LIMIT:
            machine.close()
            return sorted(found)


def to_the_end(spec: MachineSpec, icount: int) -> Replay:
    travel = replay(spec, pace=ShortPace(1_000))
    travel.timeline.seek(icount, Waiter())
    return travel


def test_what_is_passed_over_had_no_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet_times, "WORTH", 400)
    spec, outcome = record_typing(tmp_path / "irq.rr", keys=20)
    travel, plain = to_the_end(spec, outcome.icount), to_the_end(spec, outcome.icount)
    if not travel.machine.dirty.sees_every_write:
        pytest.skip("this host's kernel cannot tell which pages were written")
    monkeypatch.setattr(plain.track, "quiet_since", lambda moment, stops: moment)
    generator, stores = random.Random(3), stored_to(spec)
    used = [int(page) for page in travel.machine.dirty.ever()]
    ran: dict[int, int] = {}

    def find(there: Replay, stops: Stops) -> object:
        original = there.machine.pass_by

        def counted(limit: int) -> object:
            before = there.machine.icount
            try:
                return original(limit)
            finally:
                ran[id(there)] = ran.get(id(there), 0) + there.machine.icount - before

        with monkeypatch.context() as patched:
            patched.setattr(there.machine, "pass_by", counted)
            return there.timeline.find_last(stops, Waiter())

    found = 0
    for _ in range(40):
        address = travel.machine.ram.base + generator.choice(used) * PAGE + generator.randrange(0, PAGE, 8)
        if generator.random() < 0.7:
            address = generator.choice(stores)
        watch = Watchpoint(address, generator.choice((1, 8, 64)), WatchKind.WRITE, physical=True)
        stops = Stops(watchpoints=frozenset({watch}))
        answer = find(travel, stops)
        assert answer == find(plain, stops)
        found += getattr(answer, "stop", None) is not None
        place = generator.randrange(outcome.icount)
        travel.timeline.seek(place, Waiter())
        plain.timeline.seek(place, Waiter())
    assert found > 5
    assert ran[id(travel)] < 0.8 * ran[id(plain)], "nothing was passed over"
    travel.machine.close()
    plain.machine.close()


def test_virtual_addresses_and_reads_are_run_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet_times, "WORTH", 400)
    spec, outcome = record_typing(tmp_path / "irq.rr", keys=6)
    travel = to_the_end(spec, outcome.icount)
    travel.track.remember()
    end = 2 * outcome.icount
    nothing = travel.machine.ram.end - PAGE
    for watch in (
        Watchpoint(nothing, 8, WatchKind.WRITE),
        Watchpoint(nothing, 8, WatchKind.ACCESS, physical=True),
        Watchpoint(nothing, 8, WatchKind.READ, physical=True),
    ):
        assert travel.track.quiet_since(end, Stops(watchpoints=frozenset({watch}))) == end
    if travel.machine.dirty.sees_every_write:
        watched = Stops(watchpoints=frozenset({Watchpoint(nothing, 8, WatchKind.WRITE, physical=True)}))
        assert travel.track.quiet_since(end, watched) < end
    travel.machine.close()
