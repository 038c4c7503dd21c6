"""How far to run at a time, and when to leave a checkpoint: by the host's clock, which the guest never sees.

The clock is the CPU thread's own: how busy the host is otherwise says nothing about what a way back will cost.
A guest may turn slow at once, to a fifth of its speed: so the clock is looked at several times in a slice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

#: seconds of a slice: a first way back from anywhere takes about as long
SLICE = 0.015
#: seconds that a first way back is to take at most, where the guest writes so much that checkpoints are dear: the way
#: from one, and what going back costs, about WORTH checkpoints (pages are written again, and the ladder on arrival)
REACH, WORTH = 0.04, 5
#: looks at the clock in a slice, of 30 us each
LOOKS = 2
#: a checkpoint may take this part of the time between two
SHARE = 1 / 20
#: the same while recording, where nobody may ever want to go back
RECORDING_SLICE, RECORDING_SHARE, RECORDING_REACH = 0.03, 1 / 30, math.inf
#: slices for which a checkpoint is put off while a disk is at work
PATIENCE = 16
#: instructions of a slice at least and at most, whatever the clock says
LEAST, MOST = 100_000, 1_000_000_000


class Pace:
    """Learns the speed from slice to slice."""

    def __init__(
        self,
        clock: Callable[[], float] = time.thread_time,
        seconds: float = SLICE,
        share: float = SHARE,
        reach: float = REACH,
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._share = share
        self._reach = reach
        self._instructions = LOOKS * 5_000_000
        self._cost = 0.0
        #: None: not asked yet.  The clock is of the thread that asks, which need not be the one that made this.
        self._since: float | None = None

    @property
    def slice(self) -> int:
        """Instructions that take about the seconds of a slice."""
        return self._instructions

    def ran(self, instructions: int, seconds: float) -> None:
        """A stretch of this length took so long."""
        if instructions < LEAST or seconds <= 0:
            return
        wanted = int(instructions * self._seconds / seconds)
        # at most twice as far as before: one fast stretch says little about what follows
        self._instructions = max(LEAST, min(MOST, wanted, 2 * self._instructions))

    @property
    def next_stretch(self) -> int:
        """Instructions to run now: a part of a slice, or what there is until the next checkpoint is due."""
        stretch, rest = min(self.slice, max(LEAST, self.slice // LOOKS)), self._rest()
        return min(stretch, max(LEAST, int(self.slice * rest / self._seconds))) if rest > 0 else stretch

    def _rest(self) -> float:
        """Seconds until a checkpoint is due."""
        if self._since is None:
            self._since = self._clock() - self._seconds
        affordable = self._cost / self._share
        wanted = max(self._reach - WORTH * self._cost, WORTH * self._cost)
        return self._since + max(self._seconds * 0.9, min(affordable, wanted)) - self._clock()

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self._rest() <= 0

    def overdue(self) -> bool:
        """It has been time for a checkpoint for so long that waiting for the host's disk is the smaller evil."""
        return self._since is not None and self._clock() - self._since >= PATIENCE * self._seconds

    def took(self, seconds: float) -> None:
        """A checkpoint was taken, in so many seconds."""
        self._cost = seconds if self._cost == 0.0 else (self._cost + seconds) / 2
        self._since = self._clock()

    def now(self) -> float:
        return self._clock()
