"""A replay is the recorded run again, whatever came in and however it is sliced."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.replay.toys import IDENTITY, ToyMachine
from timevm.engine.replay.events import BlockCompletion, Event, Request, RequestKind, SerialInput
from timevm.engine.replay.opening import create_recording, open_recording
from timevm.engine.replay.record_gate import RecordGate
from timevm.engine.replay.replay_gate import ReplayGate
from timevm.errors import ReplayDivergence

inputs: st.SearchStrategy[Event] = st.one_of(
    st.builds(SerialInput, st.integers(0, 2), st.binary(min_size=1, max_size=40)),
    st.builds(Request, st.sampled_from(RequestKind)),
    st.builds(BlockCompletion, st.integers(0, 2), st.integers(0, 1000), st.booleans()),
)
END = 20_000


def record(
    path: Path, timeline: list[tuple[int, Event]], *, interval: int = 3000, reason: str = "shutdown", room: int = 100
) -> ToyMachine:
    gate = RecordGate(create_recording(path, IDENTITY), sleep=False, digest_interval=interval)
    machine = ToyMachine(gate)
    machine.room = room
    for at, event in sorted(timeline, key=lambda pair: pair[0]):
        machine.run(at)
        if isinstance(event, BlockCompletion):
            gate.expect()
            gate.announce(event)
        else:
            gate.inject(event)
    machine.run(END)
    gate.machine_ended(machine.icount, reason, machine)
    gate.close()
    return machine


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, END - 1), inputs), max_size=20),
    st.lists(st.integers(0, END), max_size=10),
    st.sampled_from(["shutdown", "quit"]),
    st.integers(0, 50),
)
def test_a_replay_is_the_recorded_run(
    timeline: list[tuple[int, Event]], slices: list[int], reason: str, room: int
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "log")
        recorded = record(path, timeline, reason=reason, room=room)
        gate = ReplayGate(open_recording(path))
        machine = ToyMachine(gate)
        states = []
        for limit in sorted(slices):
            assert machine.run(limit) is None
            states.append((gate.state(), machine.icount, machine.now_ns, machine.idled_at, list(machine.history)))
        over = machine.run(2 * END)
        assert over is not None and f"instruction {END}" in over
        assert machine.history == recorded.history
        assert (machine.icount, machine.now_ns) == (recorded.icount, recorded.now_ns)
        gate.machine_ended(machine.icount, reason, machine)
        for state in reversed(states):  # back, and forward again
            position, machine.icount, machine.now_ns, machine.idled_at, machine.history = state
            gate.restore(position)
            assert gate.state() == position
            machine.run(2 * END)
            assert machine.history == recorded.history
        gate.close()


def test_a_run_that_differs_is_stopped_with_the_range(tmp_path: Path) -> None:
    record(tmp_path / "log", [(4000, SerialInput(0, b"x"))])
    machine = ToyMachine(ReplayGate(open_recording(tmp_path / "log")))
    machine.run(4500)
    machine.history.append((4500, 0, "a bug"))
    with pytest.raises(ReplayDivergence, match="cpu and ram and devices differ") as caught:
        machine.run(END)
    assert (caught.value.first, caught.value.last) == (3000, 6000)
