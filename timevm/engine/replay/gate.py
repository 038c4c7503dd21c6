"""The one door: everything from outside reaches the guest through ``Gate.deliver``, at an icount (rule 1).

Whether a machine is live, recorded or replayed is decided once, by which of the three gates it is given.
"""

from __future__ import annotations

from typing import Any, Protocol

from timevm.engine.replay.events import BlockCompletion, Digest, Event, Input

#: an icount that is never reached (2**62 - 1: fits the native signed budget with room to add)
NEVER = (1 << 62) - 1


class Sink(Protocol):
    """The machine's side of the door."""

    def capacity(self, event: Input) -> int:
        """Bytes that the serial port takes now, >= 0; of a network card 1 if it takes the frame now, otherwise 0.

        Only asked while live or recording.
        """

    def apply(self, event: Event) -> None:
        """Let the event happen, between two instructions.  Called on the CPU thread."""

    def digest(self) -> Digest:
        """What the machine looks like now."""


class Gate(Protocol):
    """Called on the CPU thread, except ``inject``, ``announce`` and ``wake``, which any thread may call."""

    def horizon(self, icount: int) -> int:
        """The next icount at which ``deliver`` has something to do, as far as known; ``icount`` itself if now."""

    def deliver(self, icount: int, sink: Sink) -> bool:
        """Apply (and, recording, first log) at most one event due at ``icount``; True if there was one.

        The machine calls it again, with due timers fired in between, until it answers False.
        """

    def idle(self, icount: int, now_ns: int, deadline_ns: int | None) -> int | None:
        """The CPU waits for an interrupt at ``icount`` and ``deliver`` had nothing: what now?

        Returns the ns (> 0) by which virtual time jumps, or None: something may have come in, look again.
        ``deadline_ns`` is the next timer, None if there is none.  Live and recording it may block until ``inject``,
        ``wake`` or the deadline in real time (``sleep=on``), and with a disk at work (``expect``) until that is done;
        replaying it never blocks.
        """

    def inject(self, event: Event) -> None:
        """Something came from outside.  A replay refuses with ``LiveInputRefused`` (a UserError)."""

    def expect(self) -> None:
        """A disk began to work on a request; one ``announce`` will follow.  A replay ignores both: its log knows."""

    def expect_answer(self) -> None:
        """The guest sent a frame into the network: an answer may come.  A replay ignores it."""

    def announce(self, event: BlockCompletion) -> None:
        """The host is done with the request: it is to be delivered."""

    def backlog(self, port: int) -> int:
        """Any thread: bytes that wait for serial port ``port``: who brings more had better wait."""

    def frames_waiting(self, card: int) -> int:
        """Any thread: frames that wait for network card ``card`` to take them."""

    @property
    def end_icount(self) -> int | None:
        """Replaying: where the recording ends, as far as is known now; otherwise None."""

    def forget(self) -> None:
        """The machine was put elsewhere: what was announced and not delivered means requests of a run given up."""

    def wake(self) -> None:
        """Make a blocked ``idle`` return None."""

    def finished(self, icount: int) -> str | None:
        """Replaying: why the recording ends at ``icount`` (its end mark or the damage found); otherwise None."""

    def machine_ended(self, icount: int, reason: str, sink: Sink) -> None:
        """The guest switched itself off (or the user quit): a recording writes a last digest and its end mark."""

    def state(self) -> dict[str, Any]:
        """Where in the recording this is, as a plain record."""

    def flush(self) -> None:
        """Everything that was delivered so far is in the recording's file when this returns.  Raises HostError."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there.  Raises UserError, RecordingError if that is not possible; then nothing has changed."""

    def close(self) -> None:
        """Flush and close files.  Idempotent."""
