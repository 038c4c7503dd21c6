"""A state restored in a fresh process goes on as the run that it was taken from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.machine.restoring import load, rest_of_the_run, run_to_end, save
from tests.engine.machine.test_power import Restless
from tests.linux.harness import Outcome, Terminal, assert_same, bare_guest, build
from tests.linux.test_bare_irq import record_typing
from timevm.engine.machine.outcome import RunEnd
from timevm.engine.machine.spec import MachineSpec


def record_power(spec: MachineSpec, chance: random.Random) -> Outcome:
    terminal = Restless(chance)
    return run_to_end(build(spec, terminal), terminal)


def moments(recorded: Outcome, chance: random.Random, count: int) -> Iterator[int]:
    yield 0
    yield from sorted(chance.sample(range(1, recorded.icount), count))


def check_moment(spec: MachineSpec, recorded: Outcome, moment: int, path: Path, *, fresh: bool) -> None:
    play = replace(spec, mode="play")
    terminal = Terminal()
    machine = build(play, terminal)
    while (result := machine.run(moment)).end is RunEnd.RESET:
        machine.reset()
    assert result.icount == moment
    save(machine, play, path)
    before = bytes(terminal.console)
    assert_same(recorded, run_to_end(machine, terminal))
    if fresh:
        rest = rest_of_the_run(path)
    else:
        listener = Terminal()
        rest = run_to_end(load(path, listener), listener)
    assert_same(recorded, replace(rest, console=before + rest.console))


@pytest.mark.parametrize("name", ["irq", "power"])
def test_bare_guests(tmp_path: Path, name: str) -> None:
    chance = random.Random(name)
    spec = bare_guest(name, tmp_path / "x.rr")
    recorded = record_typing(spec, chance, 8) if name == "irq" else record_power(spec, chance)
    for number, moment in enumerate(moments(recorded, chance, 2 if name == "irq" else 12)):
        check_moment(spec, recorded, moment, tmp_path / "state", fresh=number % 6 == 1)
