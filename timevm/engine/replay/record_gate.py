"""The gate of a machine that is recorded: everything is in the log before it takes effect."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from timevm.engine.replay.events import End, Idle
from timevm.engine.replay.gate import Sink
from timevm.engine.replay.live_gate import LiveGate
from timevm.engine.replay.log_writer import LogWriter
from timevm.errors import UserError

DIGEST_INTERVAL = 100_000_000
#: ends that the guest itself makes, between two whole moments: the replay comes to exactly this state again.  Where
#: the user quits, timers may be due that have not fired yet: such a moment cannot be compared.
COMPARABLE_ENDS = ("shutdown", "reset")


class RecordGate(LiveGate):
    """A live one that writes first.

    Any method may raise HostError: the recording cannot be continued (``LogWriter.append``).

    ``digest_interval`` (instructions): a digest is logged at the start and whenever the icount is a multiple of it.
    """

    def __init__(
        self,
        writer: LogWriter,
        *,
        sleep: bool,
        digest_interval: int = DIGEST_INTERVAL,
        host_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__(sleep=sleep, host_ns=host_ns)
        self._writer = writer
        self._interval = digest_interval
        self._next_digest = writer.icount
        self._last_digest = writer.icount
        self._ended = False

    def horizon(self, icount: int) -> int:
        return min(super().horizon(icount), max(self._next_digest, icount))

    def deliver(self, icount: int, sink: Sink) -> bool:
        if icount >= self._next_digest:
            self._log_digest(icount, sink)
            return True
        event = self._inbox.take(sink.capacity)
        if event is None:
            return False
        self._writer.append(icount, event)
        sink.apply(event)
        return True

    def _log_digest(self, icount: int, sink: Sink) -> None:
        self._writer.append(icount, sink.digest())
        self._last_digest = icount
        self._next_digest = (icount // self._interval + 1) * self._interval

    def idle(self, icount: int, now_ns: int, deadline_ns: int | None) -> int | None:
        jump = super().idle(icount, now_ns, deadline_ns)
        if jump is not None:
            self._writer.append(icount, Idle(jump))
        return jump

    def machine_ended(self, icount: int, reason: str, sink: Sink) -> None:
        """A digest (unless the user quit) and the End event.  Further calls do nothing."""
        if self._ended:
            return
        self._ended = True
        if reason in COMPARABLE_ENDS:
            self._log_digest(icount, sink)
        self._writer.append(icount, End(reason))

    def close(self) -> None:
        self._writer.close()

    def state(self) -> dict[str, Any]:
        """The position in the log, as ``ReplayGate.restore`` takes it."""
        return {"event": self._writer.events, "verified": self._last_digest}

    def flush(self) -> None:
        self._writer.flush()

    def restore(self, state: dict[str, Any]) -> None:
        """Raises UserError unless ``state`` is of now: a recording only goes forward."""
        if state.get("event") != self._writer.events:
            raise UserError(
                "cannot go back while recording: the recording would not be of one run any more. "
                "Replay it, and go back there"
            )
