"""Recordings of the bare guests for the tests of this folder, and replays that can go back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.linux.harness import Outcome, Terminal, bare_guest, build, finish
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.replay.events import Digest, SerialInput
from timevm.engine.snapshot.checkpoints import Checkpoints
from timevm.engine.snapshot.position import Position
from timevm.engine.timeline.pace import Pace
from timevm.engine.timeline.timeline import Timeline
from timevm.engine.timeline.track import MachineTrack


def record_typing(path: Path, *, seed: int = 1, keys: int = 12, most: int = 20_000) -> tuple[MachineSpec, Outcome]:
    """The interrupt guest with random bytes typed at random instructions."""
    generator = random.Random(seed)
    spec = bare_guest("irq", path)
    terminal = Terminal()
    left = keys

    def type_something(machine: Machine) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            text = bytes(generator.choice(b"abcdef\r \x00") for _ in range(generator.randint(1, 9)))
            machine.inject(SerialInput(0, text if left else b"q"))

    def limits() -> Iterator[int]:
        limit = 0
        while True:
            limit += generator.randint(100, most)
            yield limit

    return spec, finish(build(spec, terminal), terminal, limits(), type_something)


@dataclass
class Replay:
    """A machine that replays, with all that time travel needs."""

    machine: Machine
    checkpoints: Checkpoints
    track: MachineTrack
    timeline: Timeline

    @property
    def look(self) -> tuple[Position, Digest, int]:
        """All that must be the same at one moment."""
        return self.track.place, self.machine.digest(), self.machine.now_ns()


def replay(spec: MachineSpec, *, budget: int | None = 64 << 20, pace: Pace | None = None) -> Replay:
    machine = build(replace(spec, mode="play"), Terminal())
    checkpoints = Checkpoints(machine, budget)
    track = MachineTrack(machine, checkpoints)
    return Replay(machine, checkpoints, track, Timeline(track, pace))
