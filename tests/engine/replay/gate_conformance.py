"""What every gate that takes live input must do, as functions of a factory."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from tests.engine.replay.toys import ToySink
from timevm.engine.replay.events import BlockCompletion, Event, Input, NetworkInput, Request, RequestKind, SerialInput
from timevm.engine.replay.gate import NEVER, Gate

TIMEOUT = 10  # seconds


class LiveLikeGate(Gate, Protocol):
    def backlog(self, port: int) -> int: ...

    def state(self) -> dict[str, Any]: ...


class MakeGate(Protocol):
    def __call__(self, *, sleep: bool, host_ns: Callable[[], int] = ...) -> LiveLikeGate: ...


def settle(gate: Gate, sink: ToySink, icount: int = 0) -> None:
    """Deliver until nothing is left to do at ``icount``."""
    sink.icount = icount
    while gate.deliver(icount, sink):
        pass


class Elsewhere:
    """Calls ``gate.idle`` on a thread; ``answer`` waits for what it returns."""

    def __init__(self, gate: Gate, icount: int, now_ns: int, deadline_ns: int | None) -> None:
        self._answers: list[int | None] = []
        self._thread = threading.Thread(
            target=lambda: self._answers.append(gate.idle(icount, now_ns, deadline_ns)), daemon=True
        )
        self._thread.start()

    def still_waits(self, seconds: float = 0.05) -> bool:
        self._thread.join(seconds)
        return self._thread.is_alive()

    def answer(self) -> int | None:
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive(), f"idle still blocks after {TIMEOUT} s"
        return self._answers[0]


def check_events_leave_in_order_and_once(make: MakeGate) -> None:
    gate, sink = make(sleep=False), ToySink()
    settle(gate, sink)
    events: list[Event] = [
        SerialInput(0, b"a"),
        SerialInput(1, b"b"),
        Request(RequestKind.POWERDOWN),
        Request(RequestKind.NMI),
        SerialInput(1, b"c"),
        Request(RequestKind.RESET),
    ]
    for event in events:
        gate.inject(event)
    assert gate.horizon(7) == 7
    settle(gate, sink, 7)
    assert sink.history == [(7, 0, event) for event in events]
    assert gate.horizon(7) > 7
    assert not gate.deliver(7, sink)
    gate.close()
    gate.close()


def check_bytes_come_as_fast_as_the_port_takes_them(make: MakeGate) -> None:
    """No byte is lost, none overtakes another; a full port holds up neither another one nor a request."""
    gate, sink = make(sleep=False), ToySink(room=0)
    settle(gate, sink)
    chance = random.Random(5)
    sent = chance.randbytes(10_000)
    start = 0
    while start < len(sent):
        size = chance.choice((1, 1, 3, 16, 700))
        gate.inject(SerialInput(0, sent[start : start + size]))
        start += size
    gate.inject(SerialInput(0, b""))
    assert gate.backlog(0) == len(sent) and gate.backlog(1) == 0
    settle(gate, sink, 1)
    assert sink.history == []
    # nothing can be delivered: the machine must be let run, but asked again before long
    assert 1 < gate.horizon(1) < NEVER
    gate.inject(Request(RequestKind.RESET))
    settle(gate, sink, 2)
    assert sink.history == [(2, 0, Request(RequestKind.RESET))]
    icount = 2
    while gate.backlog(0):
        icount = gate.horizon(icount)
        sink.room = chance.randrange(20)
        if gate.deliver(icount, sink):
            assert len(sink.history[-1][2].data) <= sink.room  # type: ignore[attr-defined]  # it is serial input
    assert sink.received() == sent
    assert gate.horizon(icount + 1) > icount + 1
    gate.close()


def check_a_full_port_does_not_hold_up_another(make: MakeGate) -> None:
    class OneFull(ToySink):
        def capacity(self, event: Input) -> int:
            return 0 if event == SerialInput(0, b"h") else 16

    gate, sink = make(sleep=False), OneFull()
    gate.inject(SerialInput(0, b"held up"))
    gate.inject(SerialInput(1, b"through"))
    settle(gate, sink)
    assert sink.received(1) == b"through" and sink.received(0) == b""
    assert gate.backlog(0) == 7
    gate.close()


def check_frames_wait_whole_and_in_order_until_the_card_takes_them(make: MakeGate) -> None:
    class OneFull(ToySink):
        full = True

        def capacity(self, event: Input) -> int:
            return 0 if isinstance(event, NetworkInput) and event.card == 0 and self.full else 1

    gate, sink = make(sleep=False), OneFull()
    frames = [NetworkInput(0, bytes([number]) * 60) for number in range(3)]
    for frame in frames:
        gate.inject(frame)
    gate.inject(NetworkInput(1, b"another card's"))
    gate.inject(SerialInput(0, b"a"))
    settle(gate, sink, 5)
    assert [event for _, _, event in sink.history] == [NetworkInput(1, b"another card's"), SerialInput(0, b"a")]
    assert gate.frames_waiting(0) == 3 and gate.frames_waiting(1) == 0
    assert 5 < gate.horizon(5) < NEVER
    sink.full = False
    settle(gate, sink, 6)
    assert [event for _, _, event in sink.history[2:]] == frames
    assert gate.frames_waiting(0) == 0
    gate.close()


def check_input_does_not_overtake_a_request(make: MakeGate) -> None:
    """What is typed after a reset was asked for belongs to the machine after it."""
    gate, sink = make(sleep=False), ToySink()
    settle(gate, sink)
    gate.inject(SerialInput(0, b"before"))
    gate.inject(Request(RequestKind.RESET))
    gate.inject(SerialInput(0, b"after"))
    settle(gate, sink)
    assert [event for _, _, event in sink.history] == [
        SerialInput(0, b"before"),
        Request(RequestKind.RESET),
        SerialInput(0, b"after"),
    ]
    gate.close()


def check_without_sleep_time_jumps(make: MakeGate) -> None:
    gate, sink = make(sleep=False), ToySink()
    settle(gate, sink)
    day = 86_400 * 10**9
    start = time.monotonic()
    assert gate.idle(10, 1000, 1000 + day) == day
    assert time.monotonic() - start < TIMEOUT
    assert gate.idle(10, 1000, 1000) is None  # due already
    assert gate.idle(10, 1000, 999) is None
    gate.inject(SerialInput(0, b"x"))
    assert gate.idle(10, 1000, 1000 + day) is None  # there is something to deliver first
    gate.close()


def check_with_nothing_ahead_it_blocks(make: MakeGate, sleep: bool) -> None:
    for interrupt in ("inject", "wake"):
        gate, sink = make(sleep=sleep), ToySink()
        settle(gate, sink)
        waiting = Elsewhere(gate, 10, 0, None)
        assert waiting.still_waits()
        if interrupt == "inject":
            gate.inject(SerialInput(0, b"x"))
        else:
            gate.wake()
        jump = waiting.answer()
        assert (jump is not None and jump > 0) if sleep and interrupt == "inject" else jump is None
        gate.close()


def check_a_wake_or_input_before_the_wait_is_not_lost(make: MakeGate) -> None:
    for sleep in (True, False):
        gate, sink = make(sleep=sleep), ToySink()
        settle(gate, sink)
        gate.wake()
        assert Elsewhere(gate, 10, 0, None).answer() is None
        gate.inject(SerialInput(0, b"x"))
        assert Elsewhere(gate, 10, 0, None).answer() is None
        gate.close()


def check_input_that_a_full_port_holds_up_does_not_keep_the_machine_awake(make: MakeGate) -> None:
    gate, sink = make(sleep=False), ToySink(room=0)
    gate.inject(SerialInput(0, b"x"))
    settle(gate, sink)
    waiting = Elsewhere(gate, 10, 0, None)
    assert waiting.still_waits()
    assert make(sleep=False).idle(10, 0, 50) in (50, None)
    gate.inject(SerialInput(1, b"y"))
    assert waiting.answer() is None
    gate.close()


def check_with_sleep_time_is_real(make: MakeGate) -> None:
    gate, sink = make(sleep=True), ToySink()
    settle(gate, sink)
    start = time.monotonic_ns()
    assert gate.idle(10, 500, 500 + 30_000_000) == 30_000_000
    assert time.monotonic_ns() - start >= 30_000_000
    waiting = Elsewhere(gate, 10, 0, 3600 * 10**9)
    assert waiting.still_waits()
    before = time.monotonic_ns()
    gate.inject(SerialInput(0, b"x"))
    jump = waiting.answer()
    assert jump is not None
    # as long as it waited, as far as this thread can tell
    assert 10_000_000 <= jump <= time.monotonic_ns() - start, before
    settle(gate, sink, 10)
    assert sink.received() == b"x"
    gate.close()


def check_looking_at_an_idle_machine_does_not_slow_its_clock(make: MakeGate) -> None:
    """A monitor wakes it again and again; time that passed so far is not forgotten."""
    clock = [0]
    gate, sink = make(sleep=True, host_ns=lambda: clock[0]), ToySink()
    settle(gate, sink)

    for _ in range(5):
        waiting = Elsewhere(gate, 10, 0, 10**12)
        assert waiting.still_waits(0.02)
        clock[0] += 1000
        gate.wake()
        assert waiting.answer() is None
        clock[0] += 10**9  # somebody looks at the machine, which stands meanwhile
    waiting = Elsewhere(gate, 10, 0, 10**12)
    assert waiting.still_waits(0.02)
    gate.inject(SerialInput(0, b"x"))
    assert waiting.answer() == 5000
    gate.close()


def check_a_disk_that_is_done_ends_a_wait(make: MakeGate) -> None:
    """With a timer ahead and without sleep time stands still until then: the guest's timeouts are not the host's."""
    for sleep, deadline in ((False, None), (False, 10**12), (True, None), (True, 3600 * 10**9)):
        gate, sink = make(sleep=sleep), ToySink()
        settle(gate, sink)
        gate.expect()
        waiting = Elsewhere(gate, 10, 0, deadline)
        assert waiting.still_waits()
        gate.announce(BlockCompletion(0, 7))
        jump = waiting.answer()
        assert (jump is not None and jump > 0) if sleep else jump is None
        settle(gate, sink, 10)
        assert [event for _, _, event in sink.history] == [BlockCompletion(0, 7)]
        assert gate.idle(10, 0, 50) == 50  # nothing is expected any more
        gate.close()


def check_a_disk_that_hangs_does_not_stop_the_guest(make: MakeGate) -> None:
    """Its driver is to see the timeout some time.  And a monitor that looks in does not move the clock."""
    gate, sink = make(sleep=False), ToySink()
    settle(gate, sink)
    gate.expect()
    waiting = Elsewhere(gate, 10, 0, 10**9)
    assert waiting.still_waits()
    gate.wake()
    assert waiting.answer() is None
    assert Elsewhere(gate, 10, 0, 10**9).answer() == 10**9
    gate.close()


def check_time_is_real_while_the_guest_talks_to_the_network(make: MakeGate) -> None:
    """Without sleep too: an answer that takes its time must not come after the guest's timeout."""
    gate, sink = make(sleep=False), ToySink()
    settle(gate, sink)
    assert gate.idle(1, 0, 10**12) == 10**12
    gate.expect_answer()
    waiting = Elsewhere(gate, 10, 0, 10**12)
    assert waiting.still_waits()
    gate.inject(NetworkInput(0, b"answer"))
    jump = waiting.answer()
    assert jump is not None and 0 < jump < 10**12
    settle(gate, sink, 10)
    assert gate.idle(10, 0, 5 * 10**6) == 5 * 10**6  # waited for
    gate.close()


def check_time_jumps_again_when_the_network_is_silent(make: MakeGate) -> None:
    clock = [0]

    def host_ns() -> int:
        clock[0] += 10**9
        return clock[0]

    gate, sink = make(sleep=False, host_ns=host_ns), ToySink()
    settle(gate, sink)
    gate.expect_answer()
    assert gate.idle(10, 0, 10**12) == 10**12
    assert gate.idle(11, 0, 10**12) == 10**12
    gate.close()


def check_many_threads_may_bring_something(make: MakeGate) -> None:
    """While the machine runs and takes it: nothing is lost, the bytes of each port stay in order."""
    gate, sink = make(sleep=False), ToySink(room=7)
    sent = {port: random.Random(port).randbytes(20_000) for port in range(8)}

    def bring(port: int) -> None:
        for start in range(0, len(sent[port]), 50):
            gate.inject(SerialInput(port, sent[port][start : start + 50]))
            gate.wake()

    threads = [threading.Thread(target=bring, args=(port,), daemon=True) for port in sent]
    for thread in threads:
        thread.start()
    until = time.monotonic() + TIMEOUT
    while any(thread.is_alive() for thread in threads) or any(gate.backlog(port) for port in sent):
        assert time.monotonic() < until, f"input is still there after {TIMEOUT} s"
        sink.icount = gate.horizon(sink.icount)
        if sink.icount >= NEVER:
            sink.icount = 0
        gate.deliver(sink.icount, sink)
    for port, data in sent.items():
        assert sink.received(port) == data
    gate.close()


CHECKS = [
    check_many_threads_may_bring_something,
    check_events_leave_in_order_and_once,
    check_bytes_come_as_fast_as_the_port_takes_them,
    check_a_full_port_does_not_hold_up_another,
    check_input_does_not_overtake_a_request,
    check_without_sleep_time_jumps,
    lambda make: check_with_nothing_ahead_it_blocks(make, sleep=False),
    lambda make: check_with_nothing_ahead_it_blocks(make, sleep=True),
    check_a_wake_or_input_before_the_wait_is_not_lost,
    check_input_that_a_full_port_holds_up_does_not_keep_the_machine_awake,
    check_with_sleep_time_is_real,
    check_looking_at_an_idle_machine_does_not_slow_its_clock,
    check_a_disk_that_is_done_ends_a_wait,
    check_a_disk_that_hangs_does_not_stop_the_guest,
    check_frames_wait_whole_and_in_order_until_the_card_takes_them,
    check_time_is_real_while_the_guest_talks_to_the_network,
    check_time_jumps_again_when_the_network_is_silent,
]
