"""The interrupt guest recorded under random typing replays identically, however it is sliced."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from tests.linux.harness import Outcome, Terminal, assert_same, bare_guest, build, finish, replay
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.replay.events import SerialInput


def random_limits(generator: random.Random, least: int, most: int) -> Iterator[int]:
    limit = 0
    while True:
        limit += generator.randint(least, most)
        yield limit


def record_typing(spec: MachineSpec, generator: random.Random, count: int) -> Outcome:
    """Random bytes at random instructions, then ``q``."""
    terminal = Terminal()
    left = count

    def type_something(machine: Machine) -> None:
        nonlocal left
        left -= 1
        if left > 0:
            data = bytes(generator.choice(b"abcdefghijklmnop\r\n \x00\xff") for _ in range(generator.randint(1, 20)))
            machine.inject(SerialInput(0, data))
        elif left == 0:
            machine.inject(SerialInput(0, b"q"))

    return finish(build(spec, terminal), terminal, random_limits(generator, 100, 200_000), type_something)


@pytest.mark.parametrize("seed", range(6))
def test_random_typing(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    spec = bare_guest("irq", tmp_path / "irq.rr", shift=generator.choice([0, 3, 7]))
    recorded = record_typing(spec, generator, 40)
    assert b"bye ticks=" in recorded.console and recorded.console.count(b"rx ") >= 40
    assert_same(recorded, replay(spec))
    assert_same(recorded, replay(spec, random_limits(generator, 1, 5_000)))
    assert_same(recorded, replay(spec, chain(range(1, 20_000), random_limits(generator, 1, 50_000))))


def test_typing_from_another_thread_in_real_time(tmp_path: Path) -> None:
    generator = random.Random(1)
    spec = bare_guest("irq", tmp_path / "irq.rr", sleep=True)
    terminal = Terminal()
    machine = build(spec, terminal)
    pause = threading.Event()

    def typist() -> None:
        for _ in range(20):
            pause.wait(generator.random() * 0.02)  # never set: the rhythm of typing
            machine.inject(SerialInput(0, bytes([generator.randrange(97, 112)])))
        machine.inject(SerialInput(0, b"q"))

    thread = threading.Thread(target=typist)
    thread.start()
    recorded = finish(machine, terminal, random_limits(generator, 1_000_000, 2_000_000), lambda machine: None)
    thread.join(10)
    assert not thread.is_alive()
    assert recorded.console.count(b"rx ") == 21
    for _ in range(2):
        assert_same(recorded, replay(spec))
