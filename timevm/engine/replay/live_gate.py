"""The gate of a machine that is neither recorded nor replayed: what comes in is delivered at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from timevm.engine.replay.events import BlockCompletion, Event
from timevm.engine.replay.gate import NEVER, Sink
from timevm.engine.replay.idling import Idling
from timevm.engine.replay.inbox import Inbox


class LiveGate:
    """See ``Gate``.  ``sleep``: an idle machine waits in real time; otherwise its time jumps to the next timer."""

    def __init__(self, *, sleep: bool, host_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._inbox = Inbox()
        self._idling = Idling(self._inbox, sleep, host_ns)

    def horizon(self, icount: int) -> int:
        retry = self._inbox.retry_icount(icount)
        return NEVER if retry is None else retry

    def deliver(self, icount: int, sink: Sink) -> bool:
        event = self._inbox.take(sink.capacity)
        if event is None:
            return False
        sink.apply(event)
        return True

    def idle(self, icount: int, now_ns: int, deadline_ns: int | None) -> int | None:
        return self._idling.idle(icount, now_ns, deadline_ns)

    def inject(self, event: Event) -> None:
        self._inbox.put(event)

    def expect(self) -> None:
        self._inbox.expect()

    def expect_answer(self) -> None:
        self._inbox.expect_answer()

    def announce(self, event: BlockCompletion) -> None:
        self._inbox.put(event)

    def forget(self) -> None:
        self._inbox.forget_completions()

    def backlog(self, port: int) -> int:
        """Bytes that wait for serial port ``port``: who brings more had better wait.  Any thread."""
        return self._inbox.backlog(port)

    def frames_waiting(self, card: int) -> int:
        return self._inbox.frames_waiting(card)

    def wake(self) -> None:
        self._inbox.wake()

    def finished(self, icount: int) -> str | None:
        return None

    def machine_ended(self, icount: int, reason: str, sink: Sink) -> None:
        pass

    def close(self) -> None:
        pass

    @property
    def end_icount(self) -> int | None:
        return None

    def state(self) -> dict[str, Any]:
        """Nothing: what waits to be delivered belongs to the present, not to the machine's past."""
        return {}

    def flush(self) -> None:
        pass

    def restore(self, state: dict[str, Any]) -> None:
        pass
