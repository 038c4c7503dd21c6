"""The three gates: what they have in common (a conformance suite), and what each does alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.replay.gate_conformance import CHECKS, MakeGate, settle
from tests.engine.replay.toys import IDENTITY, ToySink, identity
from timevm.engine.replay.codec import Entry
from timevm.engine.replay.events import (
    BlockCompletion,
    Digest,
    End,
    Event,
    Idle,
    Request,
    RequestKind,
    SerialInput,
)
from timevm.engine.replay.gate import NEVER, Gate
from timevm.engine.replay.live_gate import LiveGate
from timevm.engine.replay.opening import create_recording, open_recording
from timevm.engine.replay.record_gate import RecordGate
from timevm.engine.replay.replay_gate import LiveInputRefused, ReplayGate
from timevm.errors import RecordingError, ReplayDivergence, UserError


def live(*, sleep: bool, host_ns: Callable[[], int] = time.monotonic_ns) -> LiveGate:
    return LiveGate(sleep=sleep, host_ns=host_ns)


@pytest.fixture(params=["live", "record"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> MakeGate:
    numbers = itertools.count()

    def record(*, sleep: bool, host_ns: Callable[[], int] = time.monotonic_ns) -> RecordGate:
        writer = create_recording(tmp_path / str(next(numbers)), IDENTITY)
        return RecordGate(writer, sleep=sleep, host_ns=host_ns)

    return live if request.param == "live" else record


@pytest.mark.parametrize("check", CHECKS)
def test_a_gate_that_takes_live_input(make: MakeGate, check: Callable[[MakeGate], None]) -> None:
    check(make)


def test_all_three_are_gates(tmp_path: Path) -> None:
    writer = create_recording(tmp_path / "log", IDENTITY)
    gates: list[Gate] = [LiveGate(sleep=False), RecordGate(writer, sleep=False)]
    gates.append(ReplayGate(open_recording(tmp_path / "log")))
    for gate in gates:
        assert gate.horizon(0) >= 0
        gate.close()
        gate.close()


# -- live


def test_a_live_machine_never_ends_and_may_go_anywhere() -> None:
    gate = LiveGate(sleep=False)
    assert gate.horizon(5) == NEVER
    assert gate.finished(5) is None and gate.end_icount is None
    gate.machine_ended(5, "quit", ToySink())
    gate.inject(SerialInput(0, b"present"))
    gate.restore(gate.state())
    sink = ToySink()
    settle(gate, sink)
    assert sink.received() == b"present"


# -- recording


def entries_of(path: Path) -> list[Entry]:
    reader = open_recording(path)
    entries = list(reader.entries())
    reader.close()
    return entries


class Witness(ToySink):
    """Looks, whenever something happens, whether the log has it already."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.gate: RecordGate | None = None

    def apply(self, event: Event) -> None:
        assert self.gate is not None
        self.gate.flush()
        assert entries_of(self.path)[-1] == Entry(self.icount, event)
        super().apply(event)


def test_everything_is_logged_before_it_takes_effect(tmp_path: Path) -> None:
    sink = Witness(tmp_path / "log")
    sink.gate = gate = RecordGate(create_recording(sink.path, IDENTITY), sleep=False)
    events: list[Event] = [SerialInput(0, b"a"), Request(RequestKind.RESET), SerialInput(2, b"b" * 1000)]
    for icount, event in enumerate(events):
        gate.inject(event)
        settle(gate, sink, icount)
    assert gate.idle(3, 0, 77) == 77
    gate.flush()
    assert entries_of(sink.path)[-1] == Entry(3, Idle(77))
    gate.machine_ended(4, "shutdown", sink)
    gate.machine_ended(4, "shutdown", sink)
    gate.close()
    assert [type(entry.event) for entry in entries_of(sink.path)] == [
        *(Digest, SerialInput, Request, SerialInput, Idle, Digest, End),
    ]


def test_digests_come_at_multiples_of_the_interval(tmp_path: Path) -> None:
    path, start = tmp_path / "log", 250
    writer = create_recording(path, identity(start_icount=start, start_snapshot="booted"))
    gate, sink = RecordGate(writer, sleep=False, digest_interval=100), ToySink()
    icount = start
    while icount < 1000:
        settle(gate, sink, icount)
        icount = gate.horizon(icount)
    gate.machine_ended(950, "quit", sink)
    gate.close()
    *digests, end = entries_of(path)
    assert [entry.icount for entry in digests] == [250, 300, 400, 500, 600, 700, 800, 900]
    assert all(isinstance(entry.event, Digest) for entry in digests)
    # where the user quits, timers may be due that did not fire: no digest that a replay could not have
    assert end == Entry(950, End("quit"))


def test_a_digest_is_of_the_moment_before_its_events(tmp_path: Path) -> None:
    gate, sink = RecordGate(create_recording(tmp_path / "log", IDENTITY), sleep=False, digest_interval=100), ToySink()
    settle(gate, sink)
    gate.inject(SerialInput(0, b"x"))
    settle(gate, sink, 100)
    gate.close()
    assert [type(entry.event) for entry in entries_of(tmp_path / "log")] == [Digest, Digest, SerialInput]


def test_a_recording_only_goes_forward(tmp_path: Path) -> None:
    gate, sink = RecordGate(create_recording(tmp_path / "log", IDENTITY), sleep=False), ToySink()
    settle(gate, sink)
    state = gate.state()
    gate.restore(state)
    gate.inject(SerialInput(0, b"x"))
    settle(gate, sink, 10)
    with pytest.raises(UserError, match="cannot go back while recording"):
        gate.restore(state)
    gate.close()


def test_a_position_taken_while_recording_is_one_for_the_replay(tmp_path: Path) -> None:
    """That is how a snapshot saved while recording is a start of the replay."""
    gate, sink = RecordGate(create_recording(tmp_path / "log", IDENTITY), sleep=False), ToySink()
    states = []
    for icount in range(0, 50, 10):
        gate.inject(SerialInput(0, bytes([icount])))
        settle(gate, sink, icount)
        states.append(gate.state())
    gate.close()
    for taken, state in enumerate(states):
        replay, again = ReplayGate(open_recording(tmp_path / "log")), ToySink()
        replay.restore(state)
        again.icount = taken * 10
        while replay.finished(again.icount) is None:
            again.icount = replay.horizon(again.icount)
            settle(replay, again, again.icount)
        assert again.received() == sink.received()[taken + 1 :]
        replay.close()


# -- replaying


def replay_of(path: Path, entries: list[Entry], close: bool = True) -> ReplayGate:
    writer = create_recording(path, IDENTITY)
    for entry in entries:
        writer.append(entry.icount, entry.event)
    if close:
        writer.close()
    else:
        writer.flush()
        writer.abandon()
    return ReplayGate(open_recording(path))


def test_events_happen_exactly_at_their_icount(tmp_path: Path) -> None:
    gate = replay_of(
        tmp_path / "log",
        [Entry(10, SerialInput(0, b"a")), Entry(10, Request(RequestKind.RESET)), Entry(25, SerialInput(0, b"b"))],
    )
    sink = ToySink(room=0)  # a replay never asks
    assert gate.horizon(0) == 10 and not gate.deliver(9, sink)
    settle(gate, sink, 10)
    assert len(sink.history) == 2 and gate.horizon(10) == 25
    settle(gate, sink, 25)
    assert sink.history[-1] == (25, 0, SerialInput(0, b"b"))
    assert gate.finished(24) is None
    assert gate.finished(25) == "the recording ends at instruction 25: recording stopped there"
    assert gate.end_icount == 25
    gate.close()


def test_idle_time_comes_from_the_log_and_never_blocks(tmp_path: Path) -> None:
    gate, sink = (
        replay_of(tmp_path / "log", [Entry(10, Idle(5)), Entry(10, Idle(6)), Entry(10, Digest(0, 0, 0))]),
        ToySink(),
    )
    # the machine must be let reach instruction 10, where its CPU waits; past it the event is overdue
    assert gate.horizon(0) == gate.horizon(10) == 11
    assert not gate.deliver(10, sink)
    assert gate.idle(10, 100, 100) is None  # a timer is due: it fires first, as it did while recording
    assert gate.idle(10, 100, None) == 5
    assert gate.idle(10, 105, 10**15) == 6
    assert gate.idle(10, 111, 10**15) is None  # deliver has something
    gate.close()


def test_live_input_is_refused_with_a_hint(tmp_path: Path) -> None:
    gate = replay_of(tmp_path / "log", [])
    with pytest.raises(LiveInputRefused, match=r"takes no live input .*without rr=replay"):
        gate.inject(SerialInput(0, b"x"))
    gate.wake()
    assert gate.backlog(0) == 0
    gate.close()


DIVERGENT = [
    Entry(0, Digest(0, 0, 0)),
    Entry(100, Idle(7)),
    Entry(200, SerialInput(0, b"x")),
    Entry(300, Digest(1, 2, 3)),
    Entry(400, End("shutdown")),
]


class Machine(ToySink):
    """Its digest is what it is told to be."""

    parts = Digest(0, 0, 0)

    def digest(self) -> Digest:
        return self.parts


def divergence(gate: ReplayGate, *, skip: int) -> Machine:
    """Everything right up to event ``skip``."""
    sink = Machine()
    for entry in DIVERGENT[:skip]:
        if isinstance(entry.event, Digest):
            sink.parts = entry.event
        if isinstance(entry.event, Idle):
            assert gate.idle(entry.icount, 0, None) == 7
        else:
            settle(gate, sink, entry.icount)
    return sink


def test_a_digest_that_differs_is_named(tmp_path: Path) -> None:
    for parts, what in [
        (Digest(1, 2, 4), "devices"),
        (Digest(0, 2, 3), "cpu"),
        (Digest(1, 0, 0), "ram and devices"),
    ]:
        gate = replay_of(tmp_path / "log", DIVERGENT)
        sink = divergence(gate, skip=3)
        sink.parts = parts
        with pytest.raises(ReplayDivergence, match=f"between instructions 0 and 300: {what} differ") as caught:
            gate.deliver(300, sink)
        assert (caught.value.first, caught.value.last) == (0, 300)
        gate.close()


def test_what_did_not_happen_is_a_divergence(tmp_path: Path) -> None:
    gate = replay_of(tmp_path / "log", DIVERGENT)
    with pytest.raises(ReplayDivergence, match="the Idle event of instruction 100 did not happen"):
        gate.deliver(101, divergence(gate, skip=1))
    with pytest.raises(ReplayDivergence, match="the CPU waits at instruction 50"):
        gate.idle(50, 0, None)
    gate.close()


def test_an_end_that_was_not_recorded_is_a_divergence(tmp_path: Path) -> None:
    gate = replay_of(tmp_path / "log", DIVERGENT)
    sink = divergence(gate, skip=2)
    with pytest.raises(ReplayDivergence, match=r"the machine ended \(shutdown\), in the recording it went on"):
        gate.machine_ended(150, "shutdown", sink)
    sink = Machine()
    sink.parts = Digest(1, 2, 3)
    gate.restore({"event": 4, "verified": 300})
    with pytest.raises(ReplayDivergence, match=r"ended \(reset\)"):
        gate.machine_ended(400, "reset", sink)
    gate.machine_ended(400, "shutdown", sink)
    gate.machine_ended(400, "shutdown", sink)
    assert gate.finished(399) is None
    assert gate.finished(400) == "the recording ends at instruction 400: the guest switched itself off"
    gate.close()


def test_the_last_digest_is_verified_when_the_machine_ends(tmp_path: Path) -> None:
    gate, sink = replay_of(tmp_path / "log", [Entry(9, Digest(1, 2, 3)), Entry(9, End("shutdown"))]), Machine()
    with pytest.raises(ReplayDivergence, match="cpu and ram and devices differ"):
        gate.machine_ended(9, "shutdown", sink)
    sink.parts = Digest(1, 2, 3)
    gate.machine_ended(9, "shutdown", sink)
    assert gate.finished(9) is not None
    gate.close()


def test_a_recording_that_was_killed_ends_at_its_last_event(tmp_path: Path) -> None:
    gate, sink = replay_of(tmp_path / "log", [Entry(9, Idle(3))], close=False), ToySink()
    assert gate.finished(9) is None
    assert gate.idle(9, 0, None) == 3
    assert "no end mark" in (gate.finished(9) or "")
    assert gate.idle(9, 3, None) is None  # nobody knows: the machine looks again, and finds the end
    assert gate.horizon(9) == 9
    gate.machine_ended(9, "shutdown", sink)
    gate.close()


@pytest.mark.parametrize("state", [{}, {"event": -1, "verified": 0}, {"event": "1", "verified": 0}])
def test_what_is_no_position_is_refused(tmp_path: Path, state: dict[str, object]) -> None:
    gate = replay_of(tmp_path / "log", DIVERGENT)
    with pytest.raises(RecordingError, match="no position"):
        gate.restore(state)
    gate.close()


def test_a_position_behind_the_end_is_refused(tmp_path: Path) -> None:
    gate = replay_of(tmp_path / "log", DIVERGENT)
    gate.restore({"event": 5, "verified": 300})
    with pytest.raises(RecordingError, match="made after event 6 of the recording, which has 5"):
        gate.restore({"event": 6, "verified": 300})
    gate.close()


def test_a_replay_does_not_hear_of_the_hosts_disk(tmp_path: Path) -> None:
    """What is delivered is what the log says, however the host's I/O goes."""
    gate, sink = RecordGate(create_recording(tmp_path / "log", IDENTITY), sleep=False), ToySink()
    settle(gate, sink, 0)
    gate.expect()
    gate.announce(BlockCompletion(0, 0))
    settle(gate, sink, 5)
    gate.machine_ended(9, "quit", sink)
    gate.close()
    replay, replayed = ReplayGate(open_recording(tmp_path / "log")), ToySink()
    replay.expect()
    replay.announce(BlockCompletion(0, 1))
    settle(replay, replayed, 0)
    assert replayed.history == [] and replay.horizon(0) == 5
    settle(replay, replayed, 5)
    assert replayed.history == sink.history
    replay.close()


def test_a_live_machine_that_goes_elsewhere_forgets_what_its_disk_was_doing() -> None:
    gate, sink = LiveGate(sleep=False), ToySink()
    gate.expect()
    gate.expect()
    gate.announce(BlockCompletion(0, 3))
    gate.inject(SerialInput(0, b"x"))
    gate.restore(gate.state())
    gate.forget()
    settle(gate, sink, 5)
    assert [event for _, _, event in sink.history] == [SerialInput(0, b"x")]
    assert gate.idle(5, 0, 100) == 100
