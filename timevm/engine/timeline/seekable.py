"""What the timeline needs of a replay: run forward, remember places, be put back to one.  Small enough for a toy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from timevm.engine.machine.outcome import DebugStop, RunResult, Stops
from timevm.engine.snapshot.position import Position


@dataclass(frozen=True, slots=True)
class Passed:
    """A stop that was passed by: the instruction at ``stop.pc`` would have been the one after ``icount`` others.

    ``early``: it was a device, before that instruction, with what is stamped with ``icount``.
    """

    icount: int
    stop: DebugStop
    early: bool = False

    @property
    def moment(self) -> int:
        """Where one stands before it."""
        return moment(Position(self.icount, not self.early))


def moment(place: Position) -> int:
    """Places as numbers in their order: what is stamped N happens between 2 N and 2 N + 1, instruction N + 1 behind."""
    return 2 * place.icount + place.settled


def place_of(moment: int) -> Position:
    return Position(moment // 2, bool(moment % 2))


@dataclass(frozen=True, slots=True)
class Run:
    """A run that passed by all stops.

    ``passed`` ascends, with one for a moment at most (the last of its instruction).  It is whole from the moment
    ``whole_from`` on: of too many the first are left out.
    """

    result: RunResult
    passed: list[Passed]
    whole_from: int


class Journey(Protocol):
    """The one who waits (``control.time_travel.Journey``)."""

    def cancelled(self) -> bool: ...

    def progress(self, done: int, total: int) -> None: ...


class Seekable(Protocol):
    """A replay.  Where it stands and where it remembers to have been are ``Position``s.

    A remembered place may be forgotten at any time but for the start, where it stands since `go_back` or `remember`,
    and those that are pinned.
    """

    @property
    def place(self) -> Position: ...

    @property
    def start(self) -> Position:
        """Of history; always remembered."""

    @property
    def end(self) -> int | None:
        """The last icount of the recording, as far as known; it may turn out to be smaller (damage)."""

    def run(self, limit: int) -> RunResult:
        """Forward to ``limit``; stops in force end it.  What it stopped for is passed by when it goes on."""

    def pass_by(self, limit: int) -> Run:
        """Forward to ``limit``, past all stops in force; those of this very instruction count."""

    def settle(self) -> int:
        """Let happen all that is stamped with this icount, and stand before the next instruction.  Returns its pc."""

    def deliver(self) -> list[Passed]:
        """Let happen all that is stamped with this icount, past the stops in that."""

    @property
    def stops(self) -> Stops:
        """In force now."""

    def use_stops(self, stops: Stops) -> None: ...

    def quiet_since(self, moment: int, stops: Stops) -> int:
        """Of these stops none was between the answer and ``moment``, as far as is known without running there."""

    @property
    def is_calm(self) -> bool:
        """To remember this place would not have to wait for anybody (a disk at work)."""

    def remember(self) -> None:
        """Remember this place."""

    def pin(self, position: Position) -> None:
        """Do not forget this remembered place until ``unpin``."""

    def unpin(self, position: Position) -> None: ...

    def nearest(self, position: Position) -> Position:
        """The last remembered place not behind ``position``."""

    def go_back(self, position: Position) -> None:
        """To a remembered place, also forward."""
