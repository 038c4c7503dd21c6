"""What came from outside and is not delivered yet, and the idle machine's wait for more of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from timevm.engine.replay.events import BlockCompletion, Event, Input, NetworkInput, SerialInput

#: instructions after which a port that took no more bytes is asked again
RETRY_AFTER = 50_000
#: seconds that one wait lasts at most (a limit of the host's condition variables, not of ours)
LONGEST_WAIT = 3600.0


class Wait(Enum):
    """What ended a wait."""

    NEWS = auto()
    WOKEN = auto()
    TIME = auto()


class _Port:
    """Bytes for one serial port, in the pieces in which they came, each with its number of arrival."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.pieces: deque[tuple[int, bytes]] = deque()
        self.offset = 0  # bytes of the first piece that are taken already
        self.size = 0

    def put(self, number: int, data: bytes) -> None:
        self.pieces.append((number, data))
        self.size += len(data)

    def oldest(self) -> int | None:
        """Number of arrival of what is next, None: nothing waits."""
        return self.pieces[0][0] if self.pieces else None

    def next(self) -> SerialInput:
        """Something that may be asked about: a port counts its room in bytes."""
        return SerialInput(self._port, self.pieces[0][1][self.offset : self.offset + 1])

    def take(self, room: int, before: int) -> SerialInput:
        """At most ``room`` bytes (> 0) of the pieces that arrived before number ``before``."""
        out = bytearray()
        while room and self.pieces and self.pieces[0][0] < before:
            _, data = self.pieces[0]
            part = data[self.offset : self.offset + room]
            out += part
            room -= len(part)
            self.offset += len(part)
            if self.offset == len(data):
                self.pieces.popleft()
                self.offset = 0
        self.size -= len(out)
        return SerialInput(self._port, bytes(out))


class _Card:
    """Frames for one network card, each with its number of arrival."""

    def __init__(self) -> None:
        self.frames: deque[tuple[int, NetworkInput]] = deque()

    def oldest(self) -> int | None:
        return self.frames[0][0] if self.frames else None

    def next(self) -> NetworkInput:
        return self.frames[0][1]

    def take(self, room: int, before: int) -> NetworkInput:
        """One frame, whole."""
        return self.frames.popleft()[1]


class Inbox:
    """``put``, ``wake`` and ``backlog`` on any thread; everything else on the CPU thread.

    Events leave in the order in which they came, but a port or card that is full holds up its own input only.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ports: dict[int, _Port] = {}
        self._cards: dict[int, _Card] = {}
        self._others: deque[tuple[int, Event]] = deque()
        self._arrived = 0
        self._seen = 0  # what had arrived when `take` last found nothing
        self._held_up = False  # whether somebody who had no room held something up then
        self._woken = False
        self._expected = 0  # block completions that are still to come
        #: frames that came or went so far
        self.frames = 0

    def expect(self) -> None:
        """One more block completion will come."""
        with self._changed:
            self._expected += 1

    def expect_answer(self) -> None:
        """A frame went out."""
        self.frames += 1

    @property
    def expected(self) -> int:
        """Block completions that will come, as far as known."""
        return self._expected

    def forget_completions(self) -> None:
        """Of a run that is given up: they would mean other requests."""
        with self._changed:
            self._others = deque(pair for pair in self._others if not isinstance(pair[1], BlockCompletion))
            self._expected = 0

    def put(self, event: Event) -> None:
        with self._changed:
            if isinstance(event, SerialInput):
                if not event.data:
                    return
                self._ports.setdefault(event.port, _Port(event.port)).put(self._arrived, event.data)
            elif isinstance(event, NetworkInput):
                self._cards.setdefault(event.card, _Card()).frames.append((self._arrived, event))
                self.frames += 1
            else:
                self._others.append((self._arrived, event))
                if isinstance(event, BlockCompletion):
                    self._expected = max(0, self._expected - 1)
            self._arrived += 1
            self._changed.notify()

    def wake(self) -> None:
        """Sticky: the next wait ends at once if none is under way."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def backlog(self, port: int) -> int:
        """Bytes that wait for serial port ``port`` to take them: who brings more had better wait."""
        with self._changed:
            waiting = self._ports.get(port)
            return 0 if waiting is None else waiting.size

    def frames_waiting(self, card: int) -> int:
        """Frames that wait for network card ``card`` to take them."""
        with self._changed:
            waiting = self._cards.get(card)
            return 0 if waiting is None else len(waiting.frames)

    def has_news(self) -> bool:
        """Something arrived since ``take`` last found nothing."""
        return self._arrived != self._seen

    def retry_icount(self, icount: int) -> int | None:
        """When to ask again: now if there is news, later if something is only held up; None: nothing waits."""
        if self._arrived != self._seen:
            return icount
        return icount + RETRY_AFTER if self._held_up else None

    def take(self, capacity: Callable[[Input], int]) -> Event | None:
        """The oldest event that can be delivered now; of serial input as many bytes as the port takes.  3 us."""
        with self._changed:
            never = self._arrived
            before = self._others[0][0] if self._others else never
            queues: list[_Port | _Card] = [*self._ports.values(), *self._cards.values()]
            waiting = sorted(
                ((oldest, queue) for queue in queues if (oldest := queue.oldest()) is not None),
                key=lambda pair: pair[0],
            )
            for oldest, queue in waiting:
                if oldest > before:
                    break
                room = capacity(queue.next())
                if room > 0:
                    return queue.take(room, before)
            if self._others:
                return self._others.popleft()[1]
            self._seen, self._held_up = self._arrived, bool(waiting)
            return None

    def wait(self, seconds: float | None) -> Wait:
        """Until something new arrives, somebody wakes, or ``seconds`` are over (None: no limit)."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._woken or self._arrived != self._seen,
                None if seconds is None else min(seconds, LONGEST_WAIT),
            )
            woken, self._woken = self._woken, False
            if self._arrived != self._seen:
                return Wait.NEWS
            return Wait.WOKEN if woken else Wait.TIME
