"""The drive: order, versions, completions, state; with hosts that are slow, fast, broken or hang."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.blkreplay.memory_node import EagerWorker, LateWorker, MemoryNode, PatientWorker
from timevm.blkreplay.drive import MOST_BYTES, MOST_REQUESTS, Drive, UnknownRequest
from timevm.blkreplay.iothread import IoThread, Worker
from timevm.blkreplay.journal import Journal
from timevm.blkreplay.layer import ImageLayer, Layer
from timevm.errors import HostError, InternalError

SIZE = 1 << 18


class Ledger:
    """What a drive told: announcements, and completions with their data."""

    def __init__(self, layer: Layer, worker: Worker, **options: float) -> None:
        self.expected = 0
        self.announced: list[tuple[int, bool]] = []
        self.completed: list[tuple[int, bytes | None]] = []
        self.drive = Drive("disk0", layer, worker, expect=self._expect, announce=self._announce, **options)  # type: ignore[arg-type]  # patience
        self.drive.completed = lambda request, data: self.completed.append((request, data))

    def _expect(self) -> None:
        self.expected += 1

    def _announce(self, request: int, failed: bool) -> None:
        self.announced.append((request, failed))

    def deliver_all(self) -> None:
        while self.announced:
            self.drive.complete(*self.announced.pop(0))


def image(data: bytes | int = SIZE) -> tuple[MemoryNode, ImageLayer]:
    node = MemoryNode(data)
    return node, ImageLayer(node)


def test_requests_are_numbered_carried_out_in_order_and_announced() -> None:
    node, layer = image()
    worker = PatientWorker()
    ledger = Ledger(layer, worker)
    drive = ledger.drive
    assert [drive.write(0, b"a" * 512), drive.read(0, 512), drive.write(0, b"b" * 512), drive.flush()] == [0, 1, 2, 3]
    assert ledger.expected == 4 and node.log == [] and ledger.announced == []
    worker.finish()
    assert [kind for kind, _, _ in node.log] == ["write", "read", "write", "flush"]
    assert ledger.announced == [(0, False), (1, False), (2, False), (3, False)]
    ledger.deliver_all()
    assert ledger.completed == [(0, b""), (1, b"a" * 512), (2, b""), (3, b"")]
    statistics = drive.statistics
    assert statistics.operations == {"read": 1, "write": 2, "flush": 1}
    assert statistics.bytes == {"read": 512, "write": 1024, "flush": 0} and statistics.highest_write == 512


@pytest.mark.parametrize("make", [EagerWorker, IoThread])
def test_a_replay_gets_the_same_data_in_whatever_order_it_completes(make: Callable[[], Worker]) -> None:
    """The log says when each request is done; that the host is early or late changes nothing."""
    chance = random.Random(4)
    node, layer = image(chance.randbytes(SIZE))
    journal = Journal(MemoryNode(bytes(node.data)))
    live, replay = Ledger(layer, EagerWorker()), Ledger(journal, make())
    for _ in range(200):
        kind, offset, length = chance.randrange(4), chance.randrange(SIZE // 512) * 512, 512 * chance.randrange(1, 20)
        length = min(length, SIZE - offset)
        data = chance.randbytes(length)
        for ledger in (live, replay):
            if kind == 0:
                ledger.drive.write(offset, data)
            elif kind == 1:
                ledger.drive.write_zeroes(offset, length, unmap=True)
            else:
                ledger.drive.read(offset, length)
        if chance.random() < 0.3:
            chance.shuffle(live.announced)
            for request, failed in live.announced:
                live.drive.complete(request, failed)
                replay.drive.complete(request, failed)
            live.announced.clear()
        assert live.drive.position() == replay.drive.position()
    assert live.drive.state() == replay.drive.state()
    assert live.completed == replay.completed and len(live.completed) > 100


def test_going_back_in_a_replay_is_a_number_and_abandoned_requests_do_no_harm() -> None:
    chance = random.Random(8)
    script = [(chance.randrange(0, SIZE - 9000), chance.randbytes(chance.randrange(1, 9000))) for _ in range(60)]
    worker = PatientWorker()
    ledger = Ledger(Journal(MemoryNode(SIZE)), worker)
    drive = ledger.drive

    def go(start: int, stop: int) -> None:
        for offset, data in script[start:stop]:
            drive.write(offset, data)
            drive.read(offset // 2, 4096)

    go(0, 20)
    worker.finish()
    for request in range(37):
        drive.complete(request, False)
    state = drive.state()
    assert [one["request"] for one in state["in_flight"]] == [37, 38, 39]
    go(20, 40)
    worker.finish()
    after = drive.state()
    for back in range(5):
        drive.restore(state)
        assert drive.state() == state
        go(20, 25 + back)
        drive.restore(state)  # with requests that the worker has not begun
        go(20, 40)
        worker.finish()
        assert drive.state() == after
    ledger.completed.clear()
    for request in range(37, 80):
        drive.complete(request, False)
    model = bytearray(SIZE)
    for number, (offset, data) in enumerate(script[:40]):
        model[offset : offset + len(data)] = data
        if number >= 19:
            assert (2 * number + 1, bytes(model[offset // 2 : offset // 2 + 4096])) in ledger.completed


def test_a_failure_is_announced_told_to_the_guest_and_reproduced() -> None:
    node, layer = image()
    live = Ledger(layer, EagerWorker())
    node.refuse = lambda kind, offset, length: kind == "write"
    live.drive.write(0, b"x" * 512)
    live.drive.read(0, 512)
    assert live.announced == [(0, True), (1, False)]
    live.deliver_all()
    assert live.completed == [(0, None), (1, b"x" * 512)] and live.drive.statistics.failed == 1
    replay = Ledger(Journal(MemoryNode(SIZE)), EagerWorker())
    replay.drive.write(0, b"x" * 512)
    replay.drive.read(0, 512)
    replay.drive.complete(0, True)
    replay.drive.complete(1, False)
    assert replay.completed == live.completed


def test_the_user_hears_of_failures_but_not_of_each(caplog: pytest.LogCaptureFixture) -> None:
    node, layer = image()
    ledger = Ledger(layer, EagerWorker())
    node.refuse = lambda kind, offset, length: True
    for _ in range(120):
        ledger.drive.read(0, 512)
    ledger.deliver_all()
    assert ledger.completed == [(number, None) for number in range(120)]
    assert len(caplog.messages) == 5
    assert caplog.messages[0] == (
        "request 0 of the disk 'disk0' (read of 512 bytes at 0) failed, the guest was told: no read today"
    )
    assert "failed (100 so far), the guest" in caplog.messages[-1]


def test_a_replay_that_cannot_do_what_was_done_says_so() -> None:
    node = MemoryNode(SIZE)
    node.refuse = lambda kind, offset, length: True
    ledger = Ledger(Journal(node), EagerWorker())
    ledger.drive.read(512, 512)
    with pytest.raises(HostError, match=r"request 0 of the disk 'disk0' \(read of 512 bytes at 512\) was done when it"):
        ledger.drive.complete(0, False)


def test_a_completion_that_nobody_waits_for_is_a_divergence() -> None:
    ledger = Ledger(image()[1], EagerWorker())
    with pytest.raises(UnknownRequest, match="request 3 of the disk 'disk0' is done, but the guest has none such"):
        ledger.drive.complete(3, False)


def test_a_host_that_hangs_is_named_after_a_while() -> None:
    ledger = Ledger(image()[1], PatientWorker(), patience=0.01)
    ledger.drive.flush()
    with pytest.raises(HostError, match=r"request 0 of the disk 'disk0' \(flush\) is not done after 0.01 s"):
        ledger.drive.complete(0, False)
    ledger.drive.read(0, 512)
    with pytest.raises(HostError, match="not done"):
        ledger.drive.state()


def test_a_bug_below_is_ours() -> None:
    node, layer = image()
    worker = IoThread()
    ledger = Ledger(layer, worker)
    node.closed = True  # the node's assertion fails now
    ledger.drive.read(0, 512)
    with pytest.raises(InternalError, match="AssertionError"):
        ledger.drive.complete(0, False)
    worker.close()


def test_a_replay_waits_for_a_slow_host() -> None:
    worker = LateWorker(lambda: 0.02)
    ledger = Ledger(Journal(MemoryNode(b"z" * SIZE)), worker)
    for number in range(5):
        ledger.drive.read(512 * number, 512)
    for number in (4, 2, 0, 1, 3):
        ledger.drive.complete(number, False)
    assert ledger.completed == [(number, b"z" * 512) for number in (4, 2, 0, 1, 3)]
    worker.close()


def test_room_is_bounded() -> None:
    ledger = Ledger(image(MOST_BYTES)[1], PatientWorker())
    for _ in range(MOST_REQUESTS):
        assert ledger.drive.has_room()
        ledger.drive.flush()
    assert not ledger.drive.has_room()
    other = Ledger(image(MOST_BYTES)[1], PatientWorker())
    other.drive.read(0, MOST_BYTES)
    assert not other.drive.has_room()
    state = EagerWorker()
    done = Ledger(image(MOST_BYTES)[1], state)
    done.drive.read(0, MOST_BYTES)
    done.deliver_all()
    assert done.drive.has_room()


def test_what_a_snapshot_had_under_way_is_announced_when_the_machine_goes_on() -> None:
    node, layer = image(b"q" * SIZE)
    ledger = Ledger(layer, EagerWorker())
    ledger.drive.read(0, 512)
    node.refuse = lambda kind, offset, length: True
    ledger.drive.flush()
    state = ledger.drive.state()
    ledger.deliver_all()
    ledger.drive.restore(state)
    assert ledger.announced == []  # restore calls nobody
    expected = ledger.expected
    ledger.drive.announce_pending()
    ledger.drive.announce_pending()
    assert ledger.announced == [(0, False), (1, True)] and ledger.expected == expected + 2
    ledger.completed.clear()
    ledger.deliver_all()
    assert ledger.completed == [(0, b"q" * 512), (1, None)]


def test_closing_carries_out_what_is_under_way() -> None:
    node, layer = image()
    worker = IoThread()
    ledger = Ledger(layer, worker)
    for number in range(50):
        ledger.drive.write(512 * number, b"w" * 512)
    ledger.drive.close()
    assert node.closed and node.data[: 50 * 512] == b"w" * 50 * 512
    worker.close()
