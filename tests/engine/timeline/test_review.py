"""What was executed last, on the real machine: each instruction is one that a breakpoint at it would have found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.timeline.guests import record_typing, replay
from tests.engine.timeline.test_timeline import Waiter
from timevm.engine.machine.outcome import RunEnd, RunResult, Stops

#: instructions, and how many of them are passed at a time: of too many stops the first are left out
COUNT, WINDOW = 3000, 50


@pytest.mark.parametrize("part", [0.2, 0.55, 1.0])
def test_breakpoints_would_have_stopped_at_just_these(tmp_path: Path, part: float) -> None:
    spec, outcome = record_typing(tmp_path / "irq.rr")
    travel = replay(spec)
    here = int(outcome.icount * part)
    travel.timeline.run(here)
    before = travel.look
    seen: list[tuple[int, int]] = []
    machine = travel.machine

    def look(pc: int) -> None:
        seen.append((machine.icount, pc))
        if len(seen) % 3 == 0:
            machine.kick()  # as anybody does who asks the machine something meanwhile

    result = travel.timeline.review(COUNT, look, Waiter())
    assert result == RunResult(RunEnd.LIMIT, here) and travel.look == before
    assert [icount for icount, _ in seen] == list(range(here - COUNT, here))
    other = replay(spec)
    other.machine.run(here - COUNT)
    other.machine.set_stops(Stops(frozenset(pc for _, pc in seen)))
    found = []
    for limit in range(here - COUNT + WINDOW, here + 1, WINDOW):
        run = other.track.pass_by(limit)
        assert run.result.icount == limit and len(run.passed) == WINDOW
        found += [(passed.icount, passed.stop.pc) for passed in run.passed]
    assert found == seen
