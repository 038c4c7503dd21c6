"""The gate of a machine that is replayed: the log says what happens, and when; nothing else gets in."""

from __future__ import annotations

from typing import Any

from timevm.engine.replay.codec import Entry
from timevm.engine.replay.events import BlockCompletion, Digest, End, Event, Idle
from timevm.engine.replay.gate import Sink
from timevm.engine.replay.log_reader import LogReader
from timevm.errors import RecordingError, ReplayDivergence, UserError


class LiveInputRefused(UserError):
    """Something from outside came to a machine that is replayed."""

    def __init__(self, event: Event) -> None:
        what = type(event).__name__
        super().__init__(
            f"the machine is replaying: it takes no live input ({what} refused). "
            "What the guest gets is in the recording; to type to it, start it without rr=replay"
        )


class ReplayGate:
    """See ``Gate``.  Its state is the number of the next event and the icount of the last digest that was equal."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._number = 0
        self._next = reader.entry(0)
        self._verified = reader.identity.start_icount

    def horizon(self, icount: int) -> int:
        entry = self._next
        if entry is None:
            return max(icount, self._reader.end_icount)
        if isinstance(entry.event, Idle):
            # `idle` takes it when the CPU waits; one instruction later it is overdue
            return max(icount, entry.icount + 1)
        return max(icount, entry.icount)

    def deliver(self, icount: int, sink: Sink) -> bool:
        """Raises ReplayDivergence for a digest that differs or an event that was not taken at its icount."""
        entry = self._next
        if entry is None or icount < entry.icount:
            return False
        if icount > entry.icount:
            raise ReplayDivergence(
                self._verified, icount, f"{_name(entry)} of instruction {entry.icount} did not happen"
            )
        match entry.event:
            case Idle() | End():
                return False
            case Digest():
                self._verify(entry.icount, entry.event, sink.digest())
                self._advance()
            case _:
                self._advance()
                sink.apply(entry.event)
        return True

    def idle(self, icount: int, now_ns: int, deadline_ns: int | None) -> int | None:
        """Never blocks.  Raises ReplayDivergence if the recorded machine was not idle here."""
        entry = self._next
        if (deadline_ns is not None and deadline_ns <= now_ns) or entry is None:
            return None
        if entry.icount == icount:
            if isinstance(entry.event, Idle):
                self._advance()
                return entry.event.ns
            return None  # `deliver` has it, or `finished`
        raise ReplayDivergence(
            self._verified,
            icount,
            f"the CPU waits at instruction {icount}, in the recording it went on to {_name(entry)} at {entry.icount}",
        )

    def inject(self, event: Event) -> None:
        raise LiveInputRefused(event)

    def expect(self) -> None:
        pass

    def expect_answer(self) -> None:
        pass

    def announce(self, event: BlockCompletion) -> None:
        pass

    def forget(self) -> None:
        pass

    def backlog(self, port: int) -> int:
        return 0

    def frames_waiting(self, card: int) -> int:
        return 0

    def wake(self) -> None:
        pass

    def finished(self, icount: int) -> str | None:
        entry = self._next
        if entry is None:
            return self._reader.ending if icount >= self._reader.end_icount else None
        if isinstance(entry.event, End) and icount >= entry.icount:
            return self._reader.ending
        return None

    def machine_ended(self, icount: int, reason: str, sink: Sink) -> None:
        """The recording must end here, for the same reason.  May be called again after a way back.

        Raises ReplayDivergence; nothing if the recording breaks off before.
        """
        entry = self._next
        if entry is not None and isinstance(entry.event, Digest) and entry.icount == icount:
            self._verify(icount, entry.event, sink.digest())
            self._advance()
            entry = self._next
        if entry is None:
            return
        if entry.icount != icount or not isinstance(entry.event, End) or entry.event.reason != reason:
            raise ReplayDivergence(
                self._verified,
                icount,
                f"the machine ended ({reason}), in the recording it went on to {_name(entry)} at {entry.icount}",
            )

    def close(self) -> None:
        self._reader.close()

    @property
    def end_icount(self) -> int | None:
        """Where the recording ends; smaller than before when damage was found on the way."""
        return self._reader.end_icount

    def state(self) -> dict[str, Any]:
        return {"event": self._number, "verified": self._verified}

    def flush(self) -> None:
        pass

    def restore(self, state: dict[str, Any]) -> None:
        """Raises RecordingError if the position is behind the sound part of the recording, or is none."""
        number, verified = state.get("event"), state.get("verified")
        if not isinstance(number, int) or not isinstance(verified, int) or number < 0:
            raise RecordingError(f"the snapshot holds no position in a recording: {state}")
        if number > self._reader.event_count:
            raise RecordingError(
                f"the snapshot was made after event {number} of the recording, which has {self._reader.event_count}: "
                "it is of another recording, or the end of this one is lost"
            )
        self._number, self._verified = number, verified
        self._next = self._reader.entry(number)

    def _advance(self) -> None:
        self._number += 1
        self._next = self._reader.entry(self._number)

    def _verify(self, icount: int, recorded: Digest, now: Digest) -> None:
        names = [name for name in ("cpu", "ram", "devices") if getattr(recorded, name) != getattr(now, name)]
        if names:
            raise ReplayDivergence(self._verified, icount, f"{' and '.join(names)} differ")
        self._verified = icount


def _name(entry: Entry) -> str:
    return f"the {type(entry.event).__name__} event"
