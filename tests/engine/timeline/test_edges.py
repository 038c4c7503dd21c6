"""Resets, ends, damage, little memory, and thinning on the real machine."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tests.engine.timeline.guests import Replay, record_typing, replay
from tests.engine.timeline.test_timeline import ShortPace, Waiter
from tests.linux.harness import Terminal, bare_guest, build
from timevm.engine.machine.outcome import RunEnd, RunResult, Stops
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.replay.events import Request, RequestKind, SerialInput
from timevm.engine.snapshot.page_store import PageStore
from timevm.engine.snapshot.position import Position
from timevm.errors import HostError, UserError


def record_with_resets(path: Path, resets: int) -> tuple[MachineSpec, int]:
    """The interrupt guest, reset from outside now and then, and switched off at last; its icount then."""
    spec = bare_guest("irq", path)
    generator = random.Random(resets)
    machine = build(spec, Terminal())
    for _ in range(resets):
        machine.run(machine.icount + generator.randint(5_000, 40_000))
        machine.inject(SerialInput(0, b"abc"))
        machine.run(machine.icount + generator.randint(1, 3_000))
        machine.inject(Request(RequestKind.RESET))
        while (result := machine.run(machine.icount + 1000)).end is not RunEnd.RESET:
            assert result.end in (RunEnd.LIMIT, RunEnd.KICKED)
        machine.reset()
    machine.run(machine.icount + 20_000)
    machine.inject(SerialInput(0, b"q"))
    while machine.run(1 << 60).end is not RunEnd.POWERED_OFF:
        pass
    machine.finish("shutdown")
    machine.close()
    return spec, machine.icount


def forward(spec: MachineSpec, icounts: list[int]) -> dict[int, object]:
    machine = build(replace(spec, mode="play"), Terminal())
    found: dict[int, object] = {}
    for icount in sorted(icounts):
        while (result := machine.run(icount)).end is not RunEnd.LIMIT:
            if result.end is RunEnd.RESET:
                machine.reset()
            elif result.end is RunEnd.POWERED_OFF:
                break
        found[icount] = (machine.digest(), machine.now_ns())
    machine.close()
    return found


def test_resets_are_gone_through_both_ways(tmp_path: Path) -> None:
    spec, end = record_with_resets(tmp_path / "resets.rr", 4)
    generator = random.Random(1)
    places = [*(generator.randrange(end) for _ in range(30)), end]
    expected = forward(spec, places)
    travel = replay(spec, pace=ShortPace(3_000))
    for place in generator.sample(places, len(places)):
        assert travel.timeline.seek(place, Waiter()) == RunResult(RunEnd.LIMIT, place)
        assert (travel.machine.digest(), travel.machine.now_ns()) == expected[place]
        travel.timeline.reverse_step(generator.randint(1, 2_000), Waiter())
    entry = travel.machine
    travel.timeline.seek(0, Waiter())
    first = Stops(frozenset({entry.read_register("pc")}))
    travel.timeline.seek(end, Waiter())
    met = []
    while (result := travel.timeline.reverse_continue(first, Waiter())).end is RunEnd.DEBUG:
        met.append(result.icount)
    assert len(met) == 5 and met[-1] == 0, "the guest's first instruction, once for each time that it began"
    travel.machine.close()


def test_a_recording_that_breaks_off_lets_one_go_back(tmp_path: Path) -> None:
    spec, outcome = record_typing(tmp_path / "whole.rr", keys=60)
    data = (tmp_path / "whole.rr").read_bytes()
    (tmp_path / "cut.rr").write_bytes(data[: len(data) * 2 // 3])
    travel = replay(replace(spec, rrfile=tmp_path / "cut.rr"))
    result = travel.timeline.run(1 << 60)
    assert result.end is RunEnd.RECORDING_ENDED and result.detail
    end = result.icount
    assert 0 < end < outcome.icount
    assert travel.timeline.reverse_step(1, Waiter()) == RunResult(RunEnd.LIMIT, end - 1)
    with pytest.raises(UserError, match="cannot seek to the specified instruction count"):
        travel.timeline.seek(outcome.icount, Waiter())
    assert travel.track.place == Position(end - 1)
    assert travel.timeline.run(1 << 60).end is RunEnd.RECORDING_ENDED
    travel.machine.close()


def test_at_the_end_of_a_recording_one_stays_and_can_go_back(tmp_path: Path) -> None:
    spec, outcome = record_typing(tmp_path / "irq.rr")
    travel = replay(spec)
    assert travel.timeline.run(1 << 60).end is RunEnd.POWERED_OFF
    assert travel.timeline.run(1 << 60).end is RunEnd.RECORDING_ENDED
    assert travel.timeline.reverse_step(1, Waiter()) == RunResult(RunEnd.LIMIT, outcome.icount - 1)
    assert travel.timeline.seek(outcome.icount, Waiter()) == RunResult(RunEnd.LIMIT, outcome.icount)
    assert travel.machine.digest() == outcome.digest
    for icount in (-1, outcome.icount + 1):
        with pytest.raises(UserError, match="cannot seek"):
            travel.timeline.seek(icount, Waiter())
    assert travel.machine.digest() == outcome.digest
    travel.machine.close()


def at_every(travel: Replay, step: int) -> None:
    end = travel.machine.end
    assert end is not None
    for icount in range(0, end, step):
        travel.timeline.seek(icount, Waiter())


def test_the_budget_is_kept_and_the_start_stays(tmp_path: Path) -> None:
    spec, outcome = record_typing(tmp_path / "irq.rr")
    budget = 800_000
    travel = replay(spec, budget=budget, pace=ShortPace(500))
    at_every(travel, 700)
    cost = travel.checkpoints.cost()
    assert cost.bytes <= budget and 10 < cost.count < cost.taken and cost.budget == budget
    information = travel.checkpoints.information()
    assert information[0].icount == 0 and len(information) == cost.count
    gaps = [later.icount - earlier.icount for earlier, later in pairwise(information)]
    assert max(gaps[: len(gaps) // 2]) > 2 * max(gaps[-3:]), "spacing grows away from the present"
    travel.timeline.seek(outcome.icount, Waiter())
    assert travel.machine.digest() == outcome.digest
    travel.machine.close()


def test_with_next_to_no_memory_a_step_back_is_short_all_the_same(tmp_path: Path) -> None:
    spec, outcome = record_typing(tmp_path / "irq.rr")
    travel = replay(spec, budget=0, pace=ShortPace(2_000))
    travel.timeline.run(outcome.icount)
    assert 8 <= travel.checkpoints.cost().count <= 17
    ran: list[int] = []
    original = travel.machine.pass_by

    def counted(limit: int) -> object:
        before = travel.machine.icount
        try:
            return original(limit)
        finally:
            ran.append(travel.machine.icount - before)

    travel.machine.pass_by = counted  # type: ignore[method-assign,assignment]
    travel.timeline.reverse_step(1, Waiter())
    ran.clear()
    for _ in range(300):
        travel.timeline.reverse_step(1, Waiter())
    assert sum(ran) / 300 < 3_000
    travel.machine.close()


def test_checkpoints_cost_what_changed(tmp_path: Path) -> None:
    spec, outcome = record_typing(tmp_path / "irq.rr")
    travel = replay(spec, pace=ShortPace(2_000))
    travel.timeline.run(outcome.icount)
    first, *others = travel.checkpoints.information()
    assert len(others) >= 8
    table = travel.machine.ram.page_count * 4
    assert max(each.pages for each in others) < 20 and first.pages < 100
    assert max(each.bytes for each in others) < table + 20 * 4096 + 20_000
    travel.machine.close()


def test_a_host_that_gives_less_memory_keeps_fewer_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, outcome = record_typing(tmp_path / "irq.rr")
    most = 4 * (16 << 20) + (100 << 20)

    class Miserly(PageStore):
        def __init__(self, capacity: int, ahead: int) -> None:
            if capacity * 4096 > most:
                raise HostError("the host has no address space")
            super().__init__(capacity, ahead)

    monkeypatch.setattr("timevm.engine.snapshot.checkpoints.PageStore", Miserly)
    travel = replay(spec, budget=1 << 30)
    assert travel.checkpoints.budget == 1 << 26
    travel.timeline.seek(outcome.icount, Waiter())
    assert travel.timeline.reverse_step(1, Waiter()) == RunResult(RunEnd.LIMIT, outcome.icount - 1)
    travel.machine.close()
