"""One TCP connection of the guest, ended here (RFC 9293): segments and the host's doings in, segments and actions out.

The guest speaks TCP with this, the host's kernel with the other side: nothing of one's windows, losses or options
reaches the other.  The cable to the guest loses a frame only when the guest has no place for it, so there is no
congestion to be found: what is sent goes by the guest's window, and slowly only after a loss.

Positions count bytes in a direction without wrapping, the SYN being byte 0; only segments have 32 bits.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from timevm.network.actions import Abort, Action, Close, FinishWriting, Flow, Listen, Write
from timevm.network.tcp_segment import DEFAULT_MSS, LEAST_MSS, Flag, Segment

WRAP: Final = 1 << 32
OUR_MSS: Final = 1460
WINDOW: Final = 65_535
#: bytes from the host that are kept for the guest
SEND_ROOM: Final = 1 << 18
#: seconds until something is sent again, and the most that this grows to by doubling
FIRST_TIMEOUT, LONGEST_TIMEOUT = 1.0, 16.0
MOST_TRIES: Final = 9
#: seconds for which an ended connection still answers a guest whose last words were lost
LINGER: Final = 8.0
DUPLICATES: Final = 3

Output = Segment | Action


class State(Enum):
    CONNECTING = auto()  # the guest's SYN is here, the host is asked
    ANSWERING = auto()  # the host is connected, SYN and ACK are on the way to the guest
    ASKING = auto()  # somebody on the host connected, a SYN is on the way to the guest
    OPEN = auto()  # either side may have said its last word
    LINGERING = auto()  # both have, and we first
    GONE = auto()


class Connection:
    """``sequence``: of our SYN."""

    def __init__(self, flow: Flow, sequence: int) -> None:
        self.flow = flow
        self.state = State.ASKING
        #: when ``tick`` has something to do, seconds; None: never
        self.deadline: float | None = None
        # what goes to the guest
        self._first = sequence
        self._data = bytearray()  # not acknowledged yet
        self._data_start = 1
        self._acknowledged = 0
        self._next = 0
        self._highest = 0  # first position never sent
        self._ending = False  # the host's side ended
        self._mss = DEFAULT_MSS
        self._window = 0
        self._speed = WINDOW  # bytes in flight at most
        self._timeout = FIRST_TIMEOUT
        self._tries = 0
        self._duplicates = 0
        # what comes from the guest
        self._guest_first = 0
        self._received = 0
        self._unwritten = 0  # bytes the host has not taken yet
        self._offered = 0  # position up to which the guest was told that there is room
        self._guest_ended = False
        self._owes_answer = False
        self._out: list[Output] = []

    # ---- beginnings

    def guest_asks(self, segment: Segment) -> list[Output]:
        """The first SYN of the guest."""
        self.state = State.CONNECTING
        self._take_syn(segment)
        return self._leave()

    def connected(self, now: float) -> list[Output]:
        """The host reached the other side."""
        if self.state is State.CONNECTING:
            self.state = State.ANSWERING
            self._send_syn(now)
        return self._leave()

    def ask_guest(self, now: float) -> list[Output]:
        """Somebody on the host connected to a forwarded port."""
        self._send_syn(now)
        return self._leave()

    def _take_syn(self, segment: Segment) -> None:
        self._guest_first = segment.sequence
        self._received = 1
        self._mss = max(LEAST_MSS, min(OUR_MSS, segment.mss or DEFAULT_MSS))
        self._window = segment.window

    def _send_syn(self, now: float) -> None:
        flags = Flag.SYN | (Flag.ACK if self.state is State.ANSWERING else Flag(0))
        self._emit(0, flags, mss=OUR_MSS)
        self._next = self._highest = 1
        self.deadline = now + self._timeout

    # ---- the host's side

    @property
    def room(self) -> int:
        """Bytes that the host may bring now."""
        return 0 if self._ending else max(0, SEND_ROOM - len(self._data))

    def bring(self, data: bytes, now: float) -> list[Output]:
        """Bytes from the host for the guest."""
        if self.state is not State.GONE and not self._ending:
            self._data += data
            self._send(now)
        return self._leave()

    def host_ended(self, now: float) -> list[Output]:
        """The host's side says no more."""
        if self.state is not State.GONE and not self._ending:
            self._ending = True
            self._send(now)
        return self._leave()

    def host_lost(self) -> list[Output]:
        """The host's side is gone, or never came."""
        if self.state is State.CONNECTING:
            self._emit(0, Flag.RST | Flag.ACK)
        elif self.state not in (State.GONE, State.LINGERING):
            self._emit(self._next, Flag.RST | Flag.ACK)
        self._vanish()
        return self._leave()

    def written(self, count: int) -> list[Output]:
        """The host took ``count`` bytes of what it was given to write."""
        self._unwritten = max(0, self._unwritten - count)
        told = self._offered - self._received
        if told < WINDOW // 2 <= self._free and not self._guest_ended:
            self._owes_answer = True  # the guest may wait for a larger window
        return []

    @property
    def _free(self) -> int:
        return max(0, WINDOW - self._unwritten)

    # ---- the guest's side

    def is_again(self, segment: Segment) -> bool:
        """Whether a SYN is the one that this connection began with."""
        return segment.sequence == self._guest_first and self.state is not State.ASKING

    def segment(self, segment: Segment, now: float) -> list[Output]:
        """Any segment of this flow."""
        if self.state is State.GONE:
            pass
        elif segment.flags & Flag.RST:
            self._take_reset(segment)
        elif segment.flags & Flag.SYN:
            self._take_second_syn(segment, now)
        elif self.state in (State.CONNECTING, State.ASKING) or not segment.flags & Flag.ACK:
            pass
        elif self._take_acknowledgement(segment, now):
            self._take_data(segment)
            self._send(now)
            self._end_if_done(now)
        return self._leave()

    def answer(self) -> list[Output]:
        """What is owed to the guest and was not said along with something else; after a batch of segments."""
        if self._owes_answer and self.state not in (State.GONE, State.CONNECTING, State.ASKING):
            self._emit(self._next, Flag.ACK)
        self._owes_answer = False
        return self._leave()

    def _take_reset(self, segment: Segment) -> None:
        if self.state is State.ASKING:
            believable = bool(segment.flags & Flag.ACK) and segment.acknowledged == (self._first + 1) % WRAP
        else:
            believable = (segment.sequence - self._guest_first - self._received) % WRAP < WINDOW
        if believable:
            self._out.append(Abort(self.flow))
            self._vanish()

    def _take_second_syn(self, segment: Segment, now: float) -> None:
        if self.state is State.ANSWERING:
            self._send_syn(now)
        elif self.state is not State.ASKING:
            self._owes_answer = self.state is not State.CONNECTING
        elif segment.flags & Flag.ACK and segment.acknowledged == (self._first + 1) % WRAP:
            self._take_syn(segment)
            self._open(now)
            self._owes_answer = True

    def _open(self, now: float) -> None:
        self.state = State.OPEN
        self._acknowledged = 1
        self._settle()
        self._out.append(Listen(self.flow))
        self._send(now)

    def _settle(self) -> None:
        """Nothing that is known of was lost."""
        self.deadline = None
        self._timeout = FIRST_TIMEOUT
        self._tries = self._duplicates = 0

    def _take_acknowledgement(self, segment: Segment, now: float) -> bool:
        """False: the segment is of no use."""
        step = (segment.acknowledged - self._first - self._acknowledged) % WRAP
        if step > self._highest - self._acknowledged:
            self._owes_answer = True
            return step > WRAP // 2  # an old one, perhaps with data
        if self.state is State.ANSWERING:
            if not step:
                return False
            self._window = segment.window
            self._open(now)
            return True
        if step:
            self._forget(step)
        elif not segment.length and segment.window == self._window and self._next > self._acknowledged:
            self._duplicates += 1
            if self._duplicates == DUPLICATES:
                self._go_back(now)
        if not segment.window:
            self._tries = 0  # it is there, and has no room
        self._window = segment.window
        return True

    def _forget(self, step: int) -> None:
        """``step`` more bytes have arrived (> 0)."""
        self._acknowledged += step
        self._next = max(self._next, self._acknowledged)
        arrived = min(self._acknowledged - self._data_start, len(self._data))
        del self._data[:arrived]
        self._data_start += arrived
        self._speed = min(WINDOW, self._speed + self._mss)
        self._settle()

    def _take_data(self, segment: Segment) -> None:
        if not segment.length:
            ahead = (segment.sequence - self._guest_first - self._received) % WRAP
            self._owes_answer |= ahead != 0  # one that asks whether we are there
            return
        self._owes_answer = True
        behind = (self._guest_first + self._received - segment.sequence) % WRAP
        if behind > WRAP // 2 or self._guest_ended or behind > len(segment.payload):
            return  # from the future, or known all along
        payload = segment.payload[behind : behind + self._free]
        if payload:
            self._received += len(payload)
            self._unwritten += len(payload)
            self._out.append(Write(self.flow, payload))
        if segment.flags & Flag.FIN and behind + len(payload) == len(segment.payload):
            self._received += 1
            self._guest_ended = True
            self._out.append(FinishWriting(self.flow))

    # ---- sending

    @property
    def _end(self) -> int:
        """Position of the FIN, or of what would be the next byte."""
        return self._data_start + len(self._data)

    def _send(self, now: float) -> None:
        """All that the guest has room for."""
        if self.state is not State.OPEN:
            return
        limit = self._acknowledged + min(self._window, self._speed)
        while self._next < min(self._end, limit):
            size = min(self._mss, self._end - self._next, limit - self._next)
            if size < min(self._mss, self._end - self._next) and self._next > self._acknowledged:
                break  # rather wait for more room than send crumbs
            start = self._next - self._data_start
            last = Flag.PSH if self._next + size == self._end else Flag(0)
            self._emit(self._next, Flag.ACK | last, bytes(self._data[start : start + size]))
            self._next += size
        if self._ending and self._next == self._end and self._next < max(limit, self._acknowledged + 1):
            self._emit(self._next, Flag.FIN | Flag.ACK)
            self._next += 1
        self._highest = max(self._highest, self._next)
        waits = self._next > self._acknowledged or self._next < self._end
        if waits and self.deadline is None:
            self.deadline = now + self._timeout

    def _go_back(self, now: float) -> None:
        """What is in flight was lost: again from there on, slowly at first."""
        self._next = self._acknowledged
        self._speed = self._mss
        self._send(now)

    def tick(self, now: float) -> list[Output]:
        """The deadline is over: send again, ask whether there is room, or give up."""
        if self.deadline is None or now < self.deadline:
            return []
        self._tries += 1
        if self.state is State.LINGERING:
            self._vanish()
        elif self._tries > MOST_TRIES:
            self._emit(self._next, Flag.RST | Flag.ACK)
            self._out.append(Abort(self.flow))
            self._vanish()
        else:
            self._timeout = min(LONGEST_TIMEOUT, 2 * self._timeout)
            self.deadline = now + self._timeout
            if self.state is not State.OPEN:
                self._send_syn(now)
            elif self._window:
                self._go_back(now)
            else:
                self._probe()
        return self._leave()

    def _probe(self) -> None:
        """One byte into a window of none: the answer says how large it is now (RFC 9293, 3.8.6.1)."""
        start = self._acknowledged - self._data_start
        if start < len(self._data):
            self._emit(self._acknowledged, Flag.ACK, bytes(self._data[start : start + 1]))
            self._next = max(self._next, self._acknowledged + 1)
            self._highest = max(self._highest, self._next)
        else:
            self._go_back(0.0)

    def _end_if_done(self, now: float) -> None:
        if self.state is State.LINGERING and self._owes_answer:
            self.deadline = now + LINGER
        said_all = self._ending and self._acknowledged > self._end
        if self.state is not State.OPEN or not said_all or not self._guest_ended:
            return
        self._out.append(Close(self.flow))
        self.state = State.LINGERING
        self.deadline = now + LINGER

    def _vanish(self) -> None:
        self.state = State.GONE
        self.deadline = None
        self._data.clear()

    def _emit(self, position: int, flags: Flag, payload: bytes = b"", *, mss: int = 0) -> None:
        window = self._free
        if flags & Flag.ACK:
            self._owes_answer = False
            self._offered = self._received + window
        self._out.append(
            Segment(
                self.flow.other_port,
                self.flow.guest_port,
                (self._first + position) % WRAP,
                (self._guest_first + self._received) % WRAP if flags & Flag.ACK else 0,
                flags,
                window,
                payload,
                mss,
            )
        )

    def _leave(self) -> list[Output]:
        out, self._out = self._out, []
        return out
