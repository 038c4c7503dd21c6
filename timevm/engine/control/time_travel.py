"""What the ``Vm`` needs of the timeline and of the snapshots, as Protocols.  Called on the CPU thread only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from timevm.engine.control.port import RunResult, SnapshotInfo, Stops


class Journey(Protocol):
    """The line from the CPU thread to the one who waits for a seek or a reverse run."""

    def cancelled(self) -> bool:
        """Ask between any two slices, and whenever ``MachinePort.run`` came back with KICKED.

        The machine must be fit to be looked at then: what monitors ask meanwhile is answered in here.  True: go back
        to where the journey began and return a ``RunResult`` with KICKED.
        """

    def progress(self, done: int, total: int) -> None:
        """``done`` of ``total`` instructions of the work; any number of calls, from which few events are made."""


class TimeTravel(Protocol):
    """Motion in a replay other than forward from here."""

    def seek(self, icount: int, journey: Journey) -> RunResult:
        """To exactly ``icount``.  Raises UserError ``cannot seek to the specified instruction count``."""

    def reverse_step(self, count: int, journey: Journey) -> RunResult:
        """``count`` instructions back, or to the start of history if that is nearer (LIMIT either way)."""

    def reverse_continue(self, stops: Stops, journey: Journey) -> RunResult:
        """To the last stop before now (DEBUG), or to the start of history (LIMIT)."""

    def find_last(self, stops: Stops, journey: Journey) -> RunResult:
        """What ``reverse_continue`` would answer; the machine stays where it is."""

    def review(self, count: int, look: Callable[[int], None], journey: Journey) -> RunResult:
        """``look`` at each of the last ``count`` instructions, or of all, just before it is executed.

        ``look`` gets its address.  The machine stays where it is (LIMIT).
        """


class LookBack(Protocol):
    """The turn of a recording into its own replay."""

    def look_back(self) -> int:
        """The recording ends here, in order, and the machine replays it from now on; its icount then.

        That is this one, or the start of history if what was remembered on the way is of no use.
        Raises UserError, RecordingError: the file is not there to be read; HostError.  The recording goes on then.
        """


class SnapshotStore(Protocol):
    """Named snapshots of machine and disks.  The machine stands between two instructions during a call."""

    def save(self, tag: str | None) -> SnapshotInfo:
        """Under ``tag``, replacing one of that name; None: a name is made up.  Raises UserError, HostError."""

    def load(self, tag: str) -> None:
        """By tag or id.  Raises UserError."""

    def delete(self, tag: str) -> None:
        """By tag or id.  Raises UserError."""

    def list(self) -> list[SnapshotInfo]: ...
