"""Resets and the power button: asked for by the guest and from outside, recorded, replayed, sliced."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.linux.harness import Outcome, Terminal, assert_same, bare_guest, build
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import RunEnd
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.replay.events import Event, Request, RequestKind, SerialInput
from timevm.engine.replay.gate import NEVER
from timevm.engine.replay.record_gate import RecordGate


class Prompted(Terminal):
    """Lets the next event happen whenever the guest has printed all that it will print before it waits."""

    def __init__(self, events: Iterable[Event]) -> None:
        super().__init__()
        self._events = iter(events)

    def transmit(self, port: int, data: bytes) -> None:
        for letter in data:
            self.console.append(letter)
            if WAITS.search(self.console) and (event := next(self._events, None)) is not None:
                assert self.machine is not None
                self.machine.inject(event)


#: it has booted, or echoed a letter that it does not use itself
WAITS = re.compile(rb"(boot [0-9a-f]{4}\n|[xyz])$")


def drive(machine: Machine, terminal: Terminal, limits: Iterable[int]) -> tuple[Outcome, list[int]]:
    """From limit to limit to its end, as the CPU thread does it; also the icounts of the resets."""
    resets = []
    for limit in [*limits, NEVER]:
        while (result := machine.run(limit)).end in (RunEnd.RESET, RunEnd.KICKED):
            if result.end is RunEnd.RESET:
                resets.append(result.icount)
                machine.reset()
        if result.end is not RunEnd.LIMIT:
            break
    assert result.end in (RunEnd.POWERED_OFF, RunEnd.RECORDING_ENDED), result
    outcome = Outcome(bytes(terminal.console), machine.icount, machine.now_ns(), machine.digest())
    machine.finish("shutdown")
    return outcome, resets


def record(spec: MachineSpec, events: Iterable[Event]) -> tuple[Outcome, list[int]]:
    """``events`` come one by one, each when the guest waits."""
    terminal = Prompted(events)
    return drive(build(spec, terminal), terminal, ())


def replay(spec: MachineSpec, limits: Iterable[int] = ()) -> tuple[Outcome, list[int]]:
    terminal = Terminal()
    return drive(build(replace(spec, mode="play"), terminal), terminal, limits)


def typed(text: str) -> list[Event]:
    return [SerialInput(0, letter.encode()) for letter in text]


POWER_BUTTON = Request(RequestKind.POWERDOWN)
RESET_BUTTON = Request(RequestKind.RESET)


def check_replays(spec: MachineSpec, recorded: Outcome, resets: list[int]) -> None:
    chance = random.Random(recorded.icount)
    sliced = sorted(chance.sample(range(recorded.icount), min(recorded.icount, 300)))
    around = sorted({reset + by for reset in resets for by in range(-3, 4)})
    for limits in ([], sliced, around):
        again, resets_again = replay(spec, limits)
        assert_same(recorded, again)
        assert resets_again == resets


@pytest.mark.parametrize("count", [1, 7])
def test_a_guest_that_resets_itself(tmp_path: Path, count: int) -> None:
    spec = bare_guest("power", tmp_path / "x.rr")
    recorded, resets = record(spec, typed("xr" * count + "q"))
    boots = [f"boot {number:04x}\n" + ("xreset\n" if number <= count else "off\n") for number in range(1, count + 2)]
    assert recorded.console.decode() == "".join(boots), "memory that nobody loads anew survives a reset"
    assert len(resets) == count
    check_replays(spec, recorded, resets)


def test_resets_from_outside(tmp_path: Path) -> None:
    spec = bare_guest("power", tmp_path / "x.rr")
    recorded, resets = record(spec, [RESET_BUTTON, *typed("x"), RESET_BUTTON, *typed("ry"), RESET_BUTTON, *typed("q")])
    lines = ["boot 0001", "boot 0002", "xboot 0003", "reset", "boot 0004", "yboot 0005", "off", ""]
    assert recorded.console.decode().split("\n") == lines
    assert len(resets) == 4
    check_replays(spec, recorded, resets)


class Restless(Prompted):
    """Also does something while the guest boots, and two things at once; in the end it presses the power button."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(self._anything(chance))
        self._chance = chance

    def _anything(self, chance: random.Random) -> Iterator[Event]:
        for _ in range(60):
            yield chance.choice([*typed("rrxyz"), RESET_BUTTON])
        while True:  # pressed while the guest boots, nobody heeds it
            yield POWER_BUTTON

    def transmit(self, port: int, data: bytes) -> None:
        super().transmit(port, data)
        assert self.machine is not None
        if self._chance.random() < 0.1:
            self.machine.inject(RESET_BUTTON)
        if self._chance.random() < 0.1:
            self.machine.inject(self._chance.choice(typed("rxyz")))


@pytest.mark.parametrize("seed", range(4))
def test_anything_in_any_order(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    spec = bare_guest("power", tmp_path / "x.rr", shift=chance.choice([0, 3, 8]))
    terminal = Restless(chance)
    recorded, resets = drive(build(spec, terminal), terminal, ())
    assert len(resets) > 20 and recorded.console.endswith(b"power button\n")
    check_replays(spec, recorded, resets)


def test_the_power_button(tmp_path: Path) -> None:
    spec = bare_guest("power", tmp_path / "x.rr")
    recorded, _ = record(spec, [*typed("x"), POWER_BUTTON])
    assert recorded.console == b"boot 0001\nxpower button\n"
    check_replays(spec, recorded, [])


def test_a_power_button_that_nobody_heeds_is_let_go(tmp_path: Path) -> None:
    """The guest of interrupts knows no GPIO: the line goes up and down again, and nothing else happens."""
    spec = bare_guest("irq", tmp_path / "x.rr")
    terminal = Terminal()
    machine = build(spec, terminal)
    machine.run(50_000)
    machine.inject(POWER_BUTTON)
    machine.run(50_010)
    assert machine.device_states()["power-key"] == {"pressed": True}
    assert machine.device_states()["gpio"]["pins"] == 1 << 3
    pressed = machine.now_ns()
    while machine.device_states()["power-key"]["pressed"]:
        machine.run(machine.icount + 1000)
    late = machine.now_ns() - pressed - 100_000_000
    assert 0 <= late < 12_000_000, "seen at the next tick, when the guest runs again"
    machine.inject(SerialInput(0, b"q"))
    recorded, _ = drive(machine, terminal, [])
    check_replays(spec, recorded, [])


def test_a_button_held_over_a_reset_is_up_again(tmp_path: Path) -> None:
    spec = bare_guest("irq", tmp_path / "x.rr")
    terminal = Terminal()
    machine = build(spec, terminal)
    machine.run(50_000)
    machine.inject(POWER_BUTTON)
    machine.inject(RESET_BUTTON)
    assert machine.run(NEVER).end is RunEnd.RESET
    machine.reset()
    states = machine.device_states()
    assert not states["power-key"]["pressed"] and states["gpio"]["pins"] == 0
    assert machine.state()["clock"]["armed"] == {}
    machine.run(machine.icount + 50_000)
    machine.inject(SerialInput(0, b"q"))
    recorded, resets = drive(machine, terminal, [])
    check_replays(spec, recorded, [50_000, *resets])


def test_virtual_time_and_icount_go_on_over_a_reset(tmp_path: Path) -> None:
    machine = build(bare_guest("power", tmp_path / "x.rr", shift=0), Terminal())
    machine.run(30)
    machine.inject(RESET_BUTTON)
    before = (machine.run(NEVER).icount, machine.now_ns())
    machine.reset()
    assert (machine.icount, machine.now_ns()) == before
    assert machine.read_register("pc") == 0x4008_0000
    machine.finish("reset")


@pytest.mark.parametrize("seed", range(3))
def test_everything_at_once_with_digests_close_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Resets in the middle of interrupts, typing, the button, kicks; compared every thousand instructions and more."""
    chance = random.Random(seed)
    defaults = RecordGate.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "digest_interval", chance.choice([1000, 5000]))
    spec = bare_guest("irq", tmp_path / "x.rr", shift=chance.choice([0, 3, 7]))
    terminal = Terminal()
    machine = build(spec, terminal)
    resets, limit = [], 0
    for _ in range(60):
        limit += chance.choice([1, 3, 50, 1000, 10_000])
        while (result := machine.run(limit)).end in (RunEnd.RESET, RunEnd.KICKED):
            if result.end is RunEnd.RESET:
                resets.append(result.icount)
                machine.reset()
        for _ in range(chance.choice([0, 0, 1, 2])):
            text = bytes(chance.choice(b"abcxyz\r") for _ in range(chance.randint(1, 20)))
            events: list[Event] = [SerialInput(0, text), RESET_BUTTON, POWER_BUTTON]
            machine.inject(chance.choice(events))
        if chance.random() < 0.2:
            machine.kick()
    icount, virtual_ns = machine.icount, machine.now_ns()
    machine.finish("quit")
    assert len(resets) > 3
    for longest in (1_000_000, 3000, 40):
        again = Terminal()
        machine = build(replace(spec, mode="play"), again)
        resets_again, limit = [], 0
        while (result := machine.run(limit)).end is not RunEnd.RECORDING_ENDED:
            if result.end is RunEnd.RESET:
                resets_again.append(result.icount)
                machine.reset()
            limit = machine.icount + chance.randint(1, longest)
        assert (bytes(again.console), machine.icount, machine.now_ns()) == (bytes(terminal.console), icount, virtual_ns)
        assert resets_again == resets
        machine.finish("quit")
