"""A recording that becomes its own replay: every moment of it is the one that an ordinary replay has."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.engine.timeline.test_timeline import ShortPace, Waiter
from tests.linux.harness import Terminal, bare_guest, build
from timevm.engine.control.port import ReplayMode
from timevm.engine.machine import disk_past
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import RunEnd, RunResult, Stops
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.replay.events import End, Request, RequestKind, SerialInput
from timevm.engine.replay.opening import open_recording
from timevm.engine.replay.replay_gate import LiveInputRefused
from timevm.engine.snapshot.checkpoints import Checkpoints
from timevm.engine.snapshot.position import Position
from timevm.engine.timeline.look_back import LookBack
from timevm.engine.timeline.timeline import Timeline
from timevm.engine.timeline.track import MachineTrack
from timevm.errors import RecordingError, UserError


class Places:
    """Named snapshots: none."""

    def places(self) -> list[tuple[Position, str]]:
        return []

    def load(self, tag: str) -> None:
        raise AssertionError(tag)


@dataclass
class Recording:
    """A machine that is recorded, with all that it takes to look back; checkpoints every ``pace`` instructions."""

    machine: Machine
    checkpoints: Checkpoints
    track: MachineTrack
    timeline: Timeline
    turn: LookBack

    @property
    def look(self) -> tuple[Position, object, int]:
        return self.track.place, self.machine.digest(), self.machine.now_ns()


def recording(spec: MachineSpec, pace: int = 3_000) -> Recording:
    machine = build(spec, Terminal())
    checkpoints = Checkpoints(machine, 64 << 20)
    track = MachineTrack(machine, checkpoints, traces=False)
    timeline = Timeline(track, ShortPace(pace))
    disk_past.keep_past(machine.disks)
    turn = LookBack(machine, checkpoints, track, timeline, Places())
    return Recording(machine, checkpoints, track, timeline, turn)


def type_at(recorded: Recording, seed: int, keys: int = 12) -> None:
    """Random bytes at random instructions, and a reset."""
    generator = random.Random(seed)
    for key in range(keys):
        target = recorded.machine.icount + generator.randint(500, 15_000)
        while (result := recorded.timeline.run(target)).end is not RunEnd.LIMIT:
            if result.end is RunEnd.RESET:
                recorded.machine.reset()
        text = bytes(generator.choice(b"abcdef\r \x00") for _ in range(generator.randint(1, 9)))
        recorded.machine.inject(Request(RequestKind.RESET) if key == keys // 2 else SerialInput(0, text))


def moments(spec: MachineSpec, icounts: list[int]) -> dict[int, object]:
    """In one pass of an ordinary replay."""
    machine = build(replace(spec, mode="play"), Terminal())
    found: dict[int, object] = {}
    for icount in sorted(icounts):
        while (result := machine.run(icount)).end is not RunEnd.LIMIT:
            assert result.end is RunEnd.RESET, result
            machine.reset()
        found[icount] = (machine.digest(), machine.now_ns())
    machine.close()
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_past_is_the_one_of_an_ordinary_replay(tmp_path: Path, seed: int) -> None:
    spec = bare_guest("irq", tmp_path / "x.rr")
    recorded = recording(spec)
    type_at(recorded, seed)
    taken = len(recorded.checkpoints)
    assert taken > 5
    end, here = recorded.machine.icount, recorded.look
    assert recorded.turn.look_back() == end
    assert recorded.look == here, "nothing moves"
    assert len(recorded.checkpoints) == taken
    info = recorded.machine.replay_info()
    assert (info.mode, info.end) == (ReplayMode.PLAY, end)
    generator = random.Random(seed)
    places = [0, end, end - 1, *(generator.randrange(end) for _ in range(30))]
    expected = moments(spec, places)
    for place in generator.sample(places, len(places)):
        assert recorded.timeline.seek(place, Waiter()) == RunResult(RunEnd.LIMIT, place)
        assert (recorded.machine.digest(), recorded.machine.now_ns()) == expected[place]
    result = recorded.timeline.run(1 << 60)
    while result.end is RunEnd.RESET:
        recorded.machine.reset()
        result = recorded.timeline.run(1 << 60)
    assert result.end is RunEnd.RECORDING_ENDED and "looked back" in result.detail
    with pytest.raises(LiveInputRefused):
        recorded.machine.inject(SerialInput(0, b"x"))
    with pytest.raises(UserError, match="not recorded"):
        recorded.turn.look_back()
    recorded.machine.close()


def test_a_step_back_begins_at_a_checkpoint_of_the_recording(tmp_path: Path) -> None:
    recorded = recording(bare_guest("irq", tmp_path / "x.rr"), pace=2_000)
    type_at(recorded, 1)
    end = recorded.machine.icount
    recorded.turn.look_back()
    ran: list[int] = []
    original = recorded.machine.pass_by

    def counted(limit: int) -> object:
        before = recorded.machine.icount
        try:
            return original(limit)
        finally:
            ran.append(recorded.machine.icount - before)

    recorded.machine.pass_by = counted  # type: ignore[method-assign,assignment]
    assert recorded.timeline.reverse_step(1, Waiter()) == RunResult(RunEnd.LIMIT, end - 1)
    assert sum(ran) < end / 5
    recorded.machine.close()


def test_the_recording_is_closed_in_order_and_replays(tmp_path: Path) -> None:
    spec = bare_guest("irq", tmp_path / "x.rr")
    recorded = recording(spec)
    type_at(recorded, 2)
    end = recorded.machine.icount
    recorded.turn.look_back()
    recorded.machine.finish("quit")
    recorded.machine.close()
    reader = open_recording(tmp_path / "x.rr")
    assert reader.end == End("look-back") and reader.end_icount == end
    assert reader.is_closed_in_order and reader.damage is None
    reader.close()
    moments(spec, [end])


def test_breakpoints_of_the_whole_recording_are_met_backwards(tmp_path: Path) -> None:
    spec = bare_guest("irq", tmp_path / "x.rr")
    recorded = recording(spec)
    entry = recorded.machine.read_register("pc")
    type_at(recorded, 3)
    recorded.turn.look_back()
    met = []
    while (result := recorded.timeline.reverse_continue(Stops(frozenset({entry})), Waiter())).end is RunEnd.DEBUG:
        met.append(result.icount)
    assert len(met) == 2 and met[-1] == 0, "it began twice"
    recorded.machine.close()


def test_after_the_power_is_off(tmp_path: Path) -> None:
    recorded = recording(bare_guest("irq", tmp_path / "x.rr"))
    type_at(recorded, 4)
    recorded.machine.inject(SerialInput(0, b"q"))
    while (result := recorded.timeline.run(1 << 60)).end is not RunEnd.POWERED_OFF:
        if result.end is RunEnd.RESET:
            recorded.machine.reset()
    recorded.machine.finish("shutdown")
    end, here = recorded.machine.icount, recorded.machine.digest()
    assert recorded.turn.look_back() == end
    assert recorded.timeline.run(1 << 60).end is RunEnd.RECORDING_ENDED
    assert recorded.timeline.reverse_step(1, Waiter()) == RunResult(RunEnd.LIMIT, end - 1)
    assert recorded.timeline.run(1 << 60).end is RunEnd.POWERED_OFF
    assert recorded.machine.digest() == here
    recorded.machine.close()


def lost(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    other = recording(bare_guest("irq", path.with_name("other.rr")))
    other.machine.finish("quit")
    other.machine.close()
    path.unlink()
    path.with_name("other.rr").rename(path)


@pytest.mark.parametrize("spoil", [lost, replaced])
def test_a_file_that_is_gone_ends_nothing(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    recorded = recording(bare_guest("irq", tmp_path / "x.rr"))
    type_at(recorded, 5, keys=3)
    spoil(tmp_path / "x.rr")
    with pytest.raises(RecordingError):
        recorded.turn.look_back()
    before = recorded.machine.icount
    recorded.timeline.run(before + 5_000)
    assert recorded.machine.mode is ReplayMode.RECORD and recorded.machine.icount > before
    recorded.machine.close()
