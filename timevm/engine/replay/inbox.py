"""What came from outside and is not delivered yet, and the idle machine's wait for more of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from timevm.engine.replay.events import BlockCompletion, Event, SerialInput

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

    def __init__(self) -> None:
        self.pieces: deque[tuple[int, bytes]] = deque()
        self.offset = 0  # bytes of the first piece that are taken already
        self.size = 0

    def put(self, number: int, data: bytes) -> None:
        self.pieces.append((number, data))
        self.size += len(data)

    def take(self, room: int, before: int) -> bytes:
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
        return bytes(out)


class Inbox:
    """``put``, ``wake`` and ``backlog`` on any thread; everything else on the CPU thread.

    Events leave in the order in which they came, but a port that is full holds up its own bytes only.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ports: dict[int, _Port] = {}
        self._others: deque[tuple[int, Event]] = deque()
        self._arrived = 0
        self._seen = 0  # what had arrived when `take` last found nothing
        self._held_up = False  # whether full ports held something up then
        self._woken = False
        self._expected = 0  # block completions that are still to come

    def expect(self) -> None:
        """One more block completion will come."""
        with self._changed:
            self._expected += 1

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
                self._ports.setdefault(event.port, _Port()).put(self._arrived, event.data)
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

    def has_news(self) -> bool:
        """Something arrived since ``take`` last found nothing."""
        return self._arrived != self._seen

    def retry_icount(self, icount: int) -> int | None:
        """When to ask again: now if there is news, later if only full ports hold something up; None: nothing waits."""
        if self._arrived != self._seen:
            return icount
        return icount + RETRY_AFTER if self._held_up else None

    def take(self, capacity: Callable[[SerialInput], int]) -> Event | None:
        """The oldest event that can be delivered now; of serial input as many bytes as the port takes."""
        with self._changed:
            never = self._arrived
            before = self._others[0][0] if self._others else never
            waiting = sorted((port.pieces[0][0], number) for number, port in self._ports.items() if port.pieces)
            for oldest, number in waiting:
                if oldest > before:
                    break
                port = self._ports[number]
                room = capacity(SerialInput(number, port.pieces[0][1][port.offset : port.offset + 1]))
                if room > 0:
                    return SerialInput(number, port.take(room, before))
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
