"""A moment of a recording, as precisely as the timeline needs it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import total_ordering


@total_ordering
@dataclass(frozen=True, slots=True)
class Position:
    """``icount`` instructions are done.  ``settled`` False: nothing stamped ``icount`` has happened yet, which is what
    "at N" means everywhere.  True: some or all of it has (a breakpoint stops there, an idle wait is interrupted there).
    """

    icount: int
    settled: bool = False

    def __lt__(self, other: Position) -> bool:
        return (self.icount, self.settled) < (other.icount, other.settled)
