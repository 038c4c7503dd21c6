"""What an idle machine does with its time while it is live or recorded."""

from __future__ import annotations

import time
from collections.abc import Callable

from timevm.engine.replay.inbox import Inbox, Wait

SECOND = 1_000_000_000
#: seconds of the host for which time stands still at most while a disk works: then timers go on
DISK_PATIENCE = 2.0
#: ns of the host after a frame of the network, either way, in which a machine without sleep waits all the same
CONVERSATION = 2_000_000_000


class Idling:
    """``sleep`` True: virtual time goes as real time does while the CPU waits; False: it jumps to the next timer.

    Without sleep a disk's work takes no virtual time: if time jumped meanwhile, the guest's requests would time out.
    For the same reason time goes as real time does while the guest talks to the network.

    ``host_ns`` is a monotonic clock of the host (ns).
    """

    def __init__(self, inbox: Inbox, sleep: bool, host_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._inbox = inbox
        self._sleep = sleep
        self._host_ns = host_ns
        #: a wait that somebody interrupted who brought nothing (a monitor, say) goes on where it was
        self._waited_at: int | None = None
        self._waited_ns = 0
        self._frames = 0  # as far as they have been noticed
        self._silent_from = 0  # ns of the host

    def idle(self, icount: int, now_ns: int, deadline_ns: int | None) -> int | None:
        """See ``Gate.idle``."""
        jump = None if deadline_ns is None else deadline_ns - now_ns
        if self._inbox.has_news() or (jump is not None and jump <= 0):
            return None
        if self._sleep:
            return self._wait(icount, jump)
        if jump is None:
            self._inbox.wait(None)
            return None
        if self._inbox.expected and self._inbox.wait(DISK_PATIENCE) is not Wait.TIME:
            return None
        return self._wait(icount, jump, self._silent_from) if self._talks() else jump

    def _talks(self) -> bool:
        """Whether a frame came or went not long ago."""
        frames = self._inbox.frames
        if frames != self._frames:
            self._frames, self._silent_from = frames, self._host_ns() + CONVERSATION
        return self._host_ns() < self._silent_from

    def _wait(self, icount: int, jump: int | None, until: int | None = None) -> int | None:
        """``until`` (ns of the host): from then on the rest of the time is jumped over."""
        start = self._host_ns() - (self._waited_ns if self._waited_at == icount else 0)
        self._waited_at = None
        while True:
            elapsed = self._host_ns() - start
            if jump is not None and elapsed >= jump:
                return jump
            if jump is None:
                left = None
            elif until is None:
                left = jump - elapsed
            else:
                left = min(jump - elapsed, until - self._host_ns())
                if left <= 0:
                    return jump
            reason = self._inbox.wait(None if left is None else left / SECOND)
            if reason is not Wait.TIME:
                break
        elapsed = self._host_ns() - start
        if jump is not None:
            elapsed = min(elapsed, jump)
        if reason is Wait.NEWS:
            return elapsed or None
        self._waited_at, self._waited_ns = icount, elapsed
        return None
