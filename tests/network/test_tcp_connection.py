"""TCP against a guest of our own over a cable that loses, doubles and reorders; and against nonsense."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.network.guest_tcp import GuestTcp
from timevm.network.actions import Abort, Close, FinishWriting, Flow, Listen, Write
from timevm.network.tcp_connection import LINGER, SEND_ROOM, WINDOW, Connection, Output, State
from timevm.network.tcp_segment import Flag, Segment

FLOW = Flow(bytes([10, 0, 2, 15]), 40_000, bytes([10, 0, 2, 2]), 80)
STEP = 0.05
#: seconds of simulated time in which everything must be over
PATIENCE = 900.0


class Cable:
    """Two directions; each segment is lost, doubled, or late as ``chance`` says."""

    def __init__(self, chance: random.Random, loss: float) -> None:
        self._chance, self._loss = chance, loss
        self._under_way: list[tuple[float, int, bool, Segment]] = []
        self._count = 0

    def put(self, to_guest: bool, segments: list[Segment], now: float) -> None:
        for segment in segments:
            if self._chance.random() < self._loss:
                continue
            copies = 2 if self._chance.random() < self._loss / 2 else 1
            for _ in range(copies):
                late = self._chance.random() * 0.2 if self._loss and self._chance.random() < 0.1 else 0.01
                self._count += 1
                self._under_way.append((now + late, self._count, to_guest, segment))

    def take(self, now: float) -> list[tuple[bool, Segment]]:
        due = sorted(each for each in self._under_way if each[0] <= now)
        self._under_way = [each for each in self._under_way if each[0] > now]
        return [(to_guest, segment) for _, _, to_guest, segment in due]


class World:
    """A guest, the connection, and a host that reads and writes as the test says."""

    def __init__(self, *, loss: float = 0.0, seed: int = 0, forwarded: bool = False, window: int = 8000) -> None:
        self.chance = random.Random(seed)
        self.cable = Cable(self.chance, loss)
        self.guest = GuestTcp(FLOW.guest_port, FLOW.other_port, window=window)
        self.connection = Connection(FLOW, (1 << 32) - 3)
        self.now = 0.0
        self.written = bytearray()
        self.unread = 0  # bytes that the host was given and has not confirmed
        self.host_says = bytearray()
        self.host_ends = False
        self.listens = self.guest_finished = self.closed = self.aborted = False
        if forwarded:
            self.guest.listen()
            self.carry(self.connection.ask_guest(self.now))
        else:
            self.guest.connect(self.now)

    def carry(self, output: list[Output]) -> None:
        segments = []
        for each in output:
            match each:
                case Segment():
                    assert len(each.payload) <= self.guest.mss
                    segments.append(each)
                case Write(_, data):
                    assert not self.guest_finished
                    self.written += data
                    self.unread += len(data)
                    assert self.unread <= WINDOW
                case FinishWriting():
                    assert not self.guest_finished
                    self.guest_finished = True
                case Listen():
                    self.listens = True
                case Close():
                    self.closed = True
                case Abort():
                    self.aborted = True
        self.cable.put(True, segments, self.now)

    def host(self) -> None:
        """One moment of the host: it takes and says what it likes."""
        if self.unread and self.chance.random() < 0.7:
            count = self.chance.randint(1, self.unread)
            self.unread -= count
            self.carry(self.connection.written(count) + self.connection.answer())
        if self.listens and self.host_says and self.connection.room:
            count = min(self.connection.room, self.chance.choice((1, 500, 20_000)), len(self.host_says))
            data = bytes(self.host_says[:count])
            del self.host_says[:count]
            self.carry(self.connection.bring(data, self.now))
        if self.listens and self.host_ends and not self.host_says:
            self.host_ends = False
            self.carry(self.connection.host_ended(self.now))

    def step(self) -> None:
        self.now += STEP
        arrived = self.cable.take(self.now)
        for to_guest, segment in arrived:
            if to_guest:
                self.guest.take(segment, self.now)
                continue
            begins = segment.flags & (Flag.SYN | Flag.ACK) == Flag.SYN
            if begins and self.connection.state is State.ASKING:
                self.carry(self.connection.guest_asks(segment))
                self.carry(self.connection.connected(self.now))
            else:
                self.carry(self.connection.segment(segment, self.now))
        self.carry(self.connection.answer())
        self.host()
        self.carry(self.connection.tick(self.now))
        self.guest.tick(self.now)
        out, self.guest.out = self.guest.out, []
        self.cable.put(False, out, self.now)

    def run(self, until: Callable[[], bool]) -> None:
        while not until():
            assert self.now < PATIENCE, f"not over after {PATIENCE} s: {self.connection.state}"
            self.step()


def some(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("forwarded", [False, True], ids=["guest connects", "host connects"])
@pytest.mark.parametrize("guest_first", [False, True])
def test_both_say_what_they_have_and_end(forwarded: bool, guest_first: bool) -> None:
    world = World(forwarded=forwarded)
    world.run(lambda: world.guest.is_open and world.listens)
    up, down = some(200_000, 1), some(300_000, 2)
    world.guest.say(up, world.now)
    world.host_says += down
    if guest_first:
        world.guest.end(world.now)
        world.run(lambda: world.guest_finished)
        world.host_ends = True
    else:
        world.host_ends = True
        world.run(lambda: world.guest.other_ended)
        world.guest.end(world.now)
    world.run(lambda: world.closed and world.guest.said_all)
    assert world.written == up and world.guest.received == down
    begun = world.now
    world.run(lambda: world.connection.state is State.GONE)
    assert world.now - begun <= LINGER + 2 * STEP
    assert not world.aborted and not world.guest.was_reset


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    loss=st.sampled_from([0.0, 0.02, 0.1]),
    forwarded=st.booleans(),
    up=st.integers(0, 60_000),
    down=st.integers(0, 60_000),
    window=st.sampled_from([1, 300, 1000, 8000, 65_535]),
)
def test_nothing_is_lost_whatever_the_cable_does(
    seed: int, loss: float, forwarded: bool, up: int, down: int, window: int
) -> None:
    """With the guest's window closed and opened on the way."""
    if window < 300:
        down = down % 300  # a byte at a time takes its time
    world = World(loss=loss, seed=seed, forwarded=forwarded, window=window)
    world.run(lambda: world.guest.is_open and world.listens)
    said, heard = some(up, 1), some(down, 2)
    world.guest.say(said[: up // 2], world.now)
    world.host_says += heard
    world.host_ends = True
    for _ in range(6):
        for _ in range(20):
            world.step()
        world.guest.set_window(world.chance.choice((0, window)))
    world.guest.set_window(window)
    world.guest.say(said[up // 2 :], world.now)
    world.guest.end(world.now)
    world.run(lambda: (world.closed or world.aborted) and world.guest.said_all and world.guest.other_ended)
    assert world.written == said and world.guest.received == heard
    assert not world.aborted and not world.guest.was_reset


def test_the_hosts_window_is_the_guests() -> None:
    """A host that takes nothing stops the guest, and lets it go on later."""
    world = World()
    world.run(lambda: world.listens)
    world.host = lambda: None  # type: ignore[method-assign]  # it takes nothing
    world.guest.say(some(200_000, 1), world.now)
    for _ in range(100):
        world.step()
    assert len(world.written) == WINDOW
    del world.host
    world.run(lambda: world.guest.said_all)
    assert world.written == some(200_000, 1)


def test_what_the_guest_does_not_take_is_bounded() -> None:
    world = World(window=0)
    world.run(lambda: world.listens)
    while world.connection.room:
        world.carry(world.connection.bring(bytes(world.connection.room), world.now))
    assert len(world.connection._data) == SEND_ROOM
    for _ in range(2000):  # it is asked again and again, and never given up
        world.step()
    assert world.connection.state is State.OPEN
    world.guest.set_window(60_000)
    world.run(lambda: len(world.guest.received) == SEND_ROOM)


def test_a_guest_that_says_nothing_any_more_is_given_up() -> None:
    world = World()
    world.run(lambda: world.listens)
    world.carry(world.connection.bring(b"hello", world.now))
    world.guest.take = lambda segment, now: None  # type: ignore[method-assign]  # it is deaf
    world.run(lambda: world.aborted)
    assert world.connection.state is State.GONE and 60 < world.now < 200


def test_a_host_that_cannot_be_reached_is_refused() -> None:
    world = World()
    connection = Connection(FLOW, 1)
    connection.guest_asks(world.guest.out[0])
    [answer] = connection.host_lost()
    assert isinstance(answer, Segment) and answer.flags == Flag.RST | Flag.ACK
    assert answer.acknowledged == (world.guest.first + 1) % (1 << 32)
    world.guest.take(answer, 0.0)
    assert world.guest.was_reset and connection.state is State.GONE


def test_either_side_may_break_it_off() -> None:
    world = World()
    world.run(lambda: world.listens)
    world.carry(world.connection.host_lost())
    world.run(lambda: world.guest.was_reset)
    world = World()
    world.run(lambda: world.listens)
    world.guest.reset()
    world.run(lambda: world.aborted)
    assert world.connection.state is State.GONE and world.connection.deadline is None


def test_a_reset_from_elsewhere_is_not_believed() -> None:
    world = World()
    world.run(lambda: world.listens)
    world.carry(world.connection.segment(Segment(40_000, 80, 1 << 31, 0, Flag.RST, 0), world.now))
    assert world.connection.state is State.OPEN


segments = st.builds(
    Segment,
    st.just(40_000),
    st.just(80),
    st.one_of(st.integers(0, (1 << 32) - 1), st.integers((1 << 32) - 8, (1 << 32) - 1), st.integers(0, 3000)),
    st.one_of(st.integers(0, (1 << 32) - 1), st.integers((1 << 32) - 8, (1 << 32) - 1), st.integers(0, 3000)),
    st.integers(0, 31).map(Flag),
    st.integers(0, 65_535),
    st.binary(max_size=50),
    st.sampled_from([0, 1, 536, 65_535]),
)


def do(connection: Connection, what: str, now: float) -> list[Output]:
    """Something on the host's side."""
    match what:
        case "tick":
            return connection.tick(now)
        case "bring":
            return connection.bring(b"x" * min(3000, connection.room), now)
        case "end":
            return connection.host_ended(now)
        case "lost":
            return connection.host_lost()
        case "written":
            return connection.written(10)
        case _:
            return connection.connected(now)


@settings(max_examples=300, deadline=None)
@given(
    forwarded=st.booleans(),
    todo=st.lists(st.one_of(segments, st.sampled_from(["tick", "bring", "end", "lost", "written", "connected"]))),
)
def test_any_segments_do_no_harm(forwarded: bool, todo: list[Segment | str]) -> None:
    world = World(forwarded=forwarded)
    connection = world.connection
    if forwarded:
        world.run(lambda: world.listens)
    else:
        connection.guest_asks(world.guest.out[0])
    now = world.now
    for each in todo:
        now += 1.0
        out = connection.segment(each, now) if isinstance(each, Segment) else do(connection, each, now)
        out = [*out, *connection.answer()]
        assert len(out) < 300
        for segment in (one for one in out if isinstance(one, Segment)):
            assert 0 <= segment.window <= WINDOW and 0 <= segment.sequence < 1 << 32
    assert connection.room <= SEND_ROOM
