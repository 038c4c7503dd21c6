"""The guest's side of one TCP connection, as plainly as it can be written: what the tests talk to the network with.

Go-back-N, one timer, an acknowledgement for every segment that carries something, and a window that the test sets.
"""

from __future__ import annotations

from timevm.network.tcp_segment import Flag, Segment

WRAP = 1 << 32
RESEND_AFTER = 0.7


class GuestTcp:
    """``out`` are segments to be sent.  ``window``: what it offers; ``mss`` what it names."""

    def __init__(
        self, port: int, other_port: int, *, first: int = WRAP - 5, mss: int = 1000, window: int = 8000
    ) -> None:
        self.port, self.other_port, self.first, self.mss = port, other_port, first, mss
        self.window = window
        self.out: list[Segment] = []
        self.received = bytearray()
        self.other_ended = self.was_reset = False
        self.data = bytearray()
        self.ending = False
        self.acknowledged = self.next = 0
        self.other_first: int | None = None
        self.taken = 0  # positions of the other side, its SYN included
        self.other_window = 0
        self.resend_at: float | None = None
        self.passive = False

    # what the test does

    def connect(self, now: float) -> None:
        self.next = 1
        self._emit(0, Flag.SYN)
        self.resend_at = now + RESEND_AFTER

    def listen(self) -> None:
        self.passive = True

    def say(self, data: bytes, now: float) -> None:
        self.data += data
        self._push(now)

    def end(self, now: float) -> None:
        self.ending = True
        self._push(now)

    def set_window(self, window: int) -> None:
        if window != self.window:
            self.window = window
            if self.other_first is not None:
                self._emit(self.next, Flag.ACK)

    def reset(self) -> None:
        self._emit(self.next, Flag.RST)
        self.was_reset = True

    @property
    def is_open(self) -> bool:
        return self.other_first is not None and self.acknowledged >= 1

    @property
    def said_all(self) -> bool:
        return self.acknowledged == 1 + len(self.data) + self.ending

    # the wire

    def take(self, segment: Segment, now: float) -> None:
        if self.was_reset:
            return
        if segment.flags & Flag.RST:
            self.was_reset = True
            self.resend_at = None
            return
        if segment.flags & Flag.SYN:
            if self.other_first is None:
                if not segment.flags & Flag.ACK and not self.passive:
                    return
                self.other_first, self.taken = segment.sequence, 1
                self.next = 1
            if self.passive:
                self._emit(0, Flag.SYN | Flag.ACK)
                self.resend_at = now + RESEND_AFTER
            else:
                self.acknowledged = 1
                self.resend_at = None
                self._emit(self.next, Flag.ACK)
            self.other_window = segment.window
            self._push(now)
            return
        if self.other_first is None or not segment.flags & Flag.ACK:
            return
        step = (segment.acknowledged - self.first - self.acknowledged) % WRAP
        if step <= self.next - self.acknowledged:
            self.acknowledged += step
            if step:
                self.resend_at = now + RESEND_AFTER if self.acknowledged < self.next else None
        self.other_window = segment.window
        if segment.length:
            self._take_data(segment)
            self._emit(self.next, Flag.ACK)
        self._push(now)

    def _take_data(self, segment: Segment) -> None:
        assert self.other_first is not None
        behind = (self.other_first + self.taken - segment.sequence) % WRAP
        if behind > WRAP // 2 or behind > len(segment.payload) or self.other_ended:
            return
        payload = segment.payload[behind : behind + self.window]
        self.received += payload
        self.taken += len(payload)
        if segment.flags & Flag.FIN and behind + len(payload) == len(segment.payload):
            self.taken += 1
            self.other_ended = True

    def tick(self, now: float) -> None:
        if self.resend_at is None or now < self.resend_at or self.was_reset:
            return
        self.resend_at = now + RESEND_AFTER
        if not self.is_open:
            if self.passive and self.other_first is not None:
                self._emit(0, Flag.SYN | Flag.ACK)
            elif not self.passive:
                self._emit(0, Flag.SYN)
            return
        self.next = self.acknowledged
        self._push(now, probe=True)

    def _push(self, now: float, *, probe: bool = False) -> None:
        if not self.is_open:
            return
        end = 1 + len(self.data)
        limit = self.acknowledged + max(self.other_window, probe)
        while self.next < min(end, limit):
            size = min(self.mss, end - self.next, limit - self.next)
            self._emit(self.next, Flag.ACK, bytes(self.data[self.next - 1 : self.next - 1 + size]))
            self.next += size
        if self.ending and self.next == end:
            self._emit(self.next, Flag.FIN | Flag.ACK)
            self.next += 1
        if self.resend_at is None and self.acknowledged < 1 + len(self.data) + self.ending:
            self.resend_at = now + RESEND_AFTER

    def _emit(self, position: int, flags: Flag, payload: bytes = b"") -> None:
        acknowledged = 0
        if self.other_first is not None and not (flags & Flag.SYN and not flags & Flag.ACK):
            acknowledged = (self.other_first + self.taken) % WRAP
        mss = self.mss if flags & Flag.SYN else 0
        sequence = (self.first + position) % WRAP
        self.out.append(Segment(self.port, self.other_port, sequence, acknowledged, flags, self.window, payload, mss))
