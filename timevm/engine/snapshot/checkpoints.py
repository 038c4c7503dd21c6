"""Checkpoints in memory: places from which the machine can run again, at the cost of what changed in between.

A checkpoint is everything a snapshot holds: a table of RAM's pages (``page_tables``) and the machine's record with the
gate's position.  Taking one copies the pages written since the last time; going back to one writes the pages that
differ.  Checkpoints never influence the guest, so they may be taken when the host's clock says so.
"""

from __future__ import annotations

import bisect
import logging
import marshal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from timevm.engine.cpu.base import Cpu
from timevm.engine.machine.dirty_pages import DirtyPages
from timevm.engine.machine.ram import PAGE, Ram
from timevm.engine.snapshot.page_store import AHEAD, BATCH, Numbers, PageStore, runs
from timevm.engine.snapshot.page_tables import PageTables, Table
from timevm.engine.snapshot.position import Position
from timevm.engine.snapshot.thinning import weakest
from timevm.errors import HostError, InternalError

_log = logging.getLogger(__name__)

MIB, GIB = 1 << 20, 1 << 30
#: of free memory, and the most that is taken without being asked
SHARE, MOST = 4, 2 * GIB
#: of the budget may be memory that is made before it is needed, which nobody counts
AHEAD_SHARE = 16
#: checkpoints at most: what is done for each of them stays below a tenth of a millisecond
MANY = 1000
#: that stay whatever the budget says, or a step back would begin at the start of history: a ladder's worth
FEW = 16


class Rememberable(Protocol):
    """What checkpoints need of a machine.  CPU thread only."""

    ram: Ram
    dirty: DirtyPages
    cpu: Cpu

    def state(self) -> dict[str, Any]:
        """Everything but RAM, the gate's position included, as a plain record."""

    def restore(self, state: dict[str, Any]) -> None:
        """Calls nobody.  RAM has been written before, and ``Cpu.code_changed`` was told."""


@dataclass(slots=True, eq=False)
class Checkpoint:
    """``state`` is a marshalled record: nobody can change it by keeping a part of it."""

    position: Position
    state: bytes
    table: Table
    #: seconds it took, and pages that were kept for it
    seconds: float
    pages: int
    #: how many need it to stay
    pins: int = 0

    @property
    def own_bytes(self) -> int:
        """Without pages."""
        return len(self.state) + self.table.nbytes


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """For people: ``bytes`` is what would be free without it; ``pages`` were written since the one before it."""

    icount: int
    bytes: int
    pages: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CheckpointCost:
    """All of them: host memory in bytes against the budget, and seconds spent in taking them and going back."""

    count: int
    bytes: int
    budget: int
    taken: int
    taking_seconds: float
    restored: int
    restoring_seconds: float
    method: str


def default_budget() -> int:
    """A quarter of the host's free memory, at most 2 GiB."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return min(MOST, int(line.split()[1]) * 1024 // SHARE)
    except (OSError, ValueError, IndexError):
        pass
    return MOST // 8


class Checkpoints:
    """In order of position, each place once.  The first one is the start of history and stays."""

    def __init__(self, machine: Rememberable, budget: int | None = None) -> None:
        """``budget`` in bytes; None: ``default_budget``, or what of it the host gives.  Takes no checkpoint yet.

        Raises HostError when the host has not even the memory for a few.
        """
        self._machine = machine
        pages = machine.ram.page_count
        self.budget, self._store = _room(default_budget() if budget is None else budget, pages)
        self._tables = PageTables(self._store, pages)
        self._dirty = machine.dirty.log(everything=False)
        #: what was written before that; for the first checkpoint
        self._first: Numbers | None = machine.dirty.ever()
        self._kept: list[Checkpoint] = []
        #: RAM is this one's but for the pages that `_dirty` knows
        self._base = Checkpoint(Position(-1), b"", self._tables.empty(), 0.0, 0)
        self._own_bytes = 0
        self._taken = self._restored = 0
        self._taking = self._restoring = 0.0

    # ---- taking and giving up

    def take(self, position: Position) -> Checkpoint:
        """The machine stands at ``position``.  0.1 ms and about 1 us for each page written since the last time."""
        known = self._find(position)
        if known is not None:
            return known
        begin = time.perf_counter()
        numbers = self._written()
        table = self._tables.derive(self._base.table, self._machine.ram.pages, numbers)
        state = marshal.dumps(self._machine.state())
        taken = Checkpoint(position, state, table, 0.0, len(numbers))
        self._base = taken
        bisect.insort(self._kept, taken, key=_place)
        self._own_bytes += taken.own_bytes
        self._thin()
        taken.seconds = time.perf_counter() - begin
        self._taken += 1
        self._taking += taken.seconds
        return taken

    def _written(self) -> Numbers:
        """Pages that may differ from what the present's table says, ascending."""
        numbers = self._dirty.take()
        if self._first is not None:
            first, self._first = self._first, None
            numbers = np.union1d(first, numbers)
        return numbers

    def _find(self, position: Position) -> Checkpoint | None:
        at = bisect.bisect_left(self._kept, position, key=_place)
        return self._kept[at] if at < len(self._kept) and self._kept[at].position == position else None

    def _thin(self) -> None:
        while len(self._kept) > (FEW if self.used_bytes > self.budget else MANY):
            places = [kept.position.icount for kept in self._kept]
            pinned = {index for index, kept in enumerate(self._kept) if kept.pins or kept is self._base or index == 0}
            victim = weakest(places, self._base.position.icount, pinned)
            if victim is None:
                return
            self._forget(victim)

    def _forget(self, index: int) -> None:
        gone = self._kept.pop(index)
        self._own_bytes -= gone.own_bytes
        self._tables.release(gone.table)

    def pin(self, position: Position) -> None:
        """It stays until ``unpin``.  Raises InternalError if there is none."""
        self._at(position).pins += 1

    def unpin(self, position: Position) -> None:
        self._at(position).pins -= 1

    def _at(self, position: Position) -> Checkpoint:
        found = self._find(position)
        if found is None:
            raise InternalError(f"there is no checkpoint at {position}")
        return found

    def forget_all_but_start(self) -> None:
        """Pinned ones and the present's stay too."""
        for index in range(len(self._kept) - 1, 0, -1):
            if not self._kept[index].pins and self._kept[index] is not self._base:
                self._forget(index)

    # ---- going back

    def nearest(self, position: Position) -> Checkpoint:
        """The last one not behind ``position`` (the first one if that is)."""
        at = bisect.bisect_right(self._kept, position, key=_place)
        return self._kept[max(0, at - 1)]

    def go_to(self, position: Position) -> bool:
        """If there is one at exactly this place."""
        found = self._find(position)
        if found is not None:
            self.restore(found)
        return found is not None

    def restore(self, checkpoint: Checkpoint) -> None:
        """The machine is there.  0.2 ms and about 1 us for each page that was written or differs."""
        begin = time.perf_counter()
        differs = self._tables.differing(self._base.table, checkpoint.table)
        written = np.setdiff1d(self._written(), differs, assume_unique=True)
        self._write(checkpoint.table, differs)
        self._write(checkpoint.table, self._changed(checkpoint.table, written))
        self._machine.dirty.wrote()
        self._dirty.take()  # that was us
        self._base = checkpoint
        self._machine.restore(marshal.loads(checkpoint.state))
        self._restored += 1
        self._restoring += time.perf_counter() - begin

    def _changed(self, table: Table, numbers: Numbers) -> Numbers:
        """Those of RAM's pages that are not what ``table`` says."""
        pages, kept = self._machine.ram.pages, self._store.pages
        found = [np.empty(0, dtype=np.int64)]
        for first in range(0, len(numbers), BATCH):
            batch = numbers[first : first + BATCH]
            differs = kept[self._tables.slots(table, batch)].view(np.uint64) != pages[batch].view(np.uint64)
            found.append(batch[differs.any(axis=1)])
        return np.concatenate(found)

    def _write(self, table: Table, numbers: Numbers) -> None:
        """RAM's pages of these numbers become what ``table`` says; their translations are dropped."""
        ram, cpu = self._machine.ram, self._machine.cpu
        slots = self._tables.slots(table, numbers)
        for first, end in runs(numbers):
            begin, count = int(numbers[first]), end - first
            np.take(self._store.pages, slots[first:end], axis=0, out=ram.pages[begin : begin + count], mode="clip")
            cpu.code_changed(ram.base + begin * PAGE, count * PAGE)

    # ---- to be looked at

    @property
    def used_bytes(self) -> int:
        return self._store.used_bytes + self._tables.used_bytes + self._own_bytes

    @property
    def start(self) -> Checkpoint:
        return self._kept[0]

    def __len__(self) -> int:
        return len(self._kept)

    def information(self) -> list[CheckpointInfo]:
        return [
            CheckpointInfo(
                kept.position.icount,
                kept.own_bytes + PAGE * self._tables.only_here(kept.table),
                kept.pages,
                kept.seconds,
            )
            for kept in self._kept
        ]

    def cost(self) -> CheckpointCost:
        return CheckpointCost(
            len(self._kept),
            self.used_bytes,
            self.budget,
            self._taken,
            self._taking,
            self._restored,
            self._restoring,
            self._machine.dirty.method,
        )


def _room(budget: int, pages: int) -> tuple[int, PageStore]:
    """A store for the budget, or for less of it where the host refuses (strict accounting of memory).

    The start, the present, where a journey began and what is being taken have room besides.
    """
    while True:
        try:
            return budget, PageStore(budget // PAGE + 4 * pages, min(AHEAD, budget // PAGE // AHEAD_SHARE))
        except HostError as error:
            if budget == 0:
                raise
            _log.warning("%s: less is kept", error)
            budget = budget // 4 if budget > MIB else 0


def _place(checkpoint: Checkpoint) -> Position:
    return checkpoint.position
