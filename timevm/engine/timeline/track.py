"""The real replay as ``Seekable``: a machine and its checkpoints."""

from __future__ import annotations

from typing import Protocol

from timevm.engine.cpu.base import Stop, StopKind, Traceable, WatchKind
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import DebugStop, RunEnd, RunResult, Stops
from timevm.engine.machine.ram import PAGE
from timevm.engine.snapshot.checkpoints import Checkpoints
from timevm.engine.snapshot.position import Position
from timevm.engine.timeline.quiet_times import QuietTimes
from timevm.engine.timeline.seekable import Passed, Run, moment
from timevm.engine.timeline.written_pages import WrittenPages
from timevm.errors import InternalError

#: instructions that a named snapshot must save, or it is not read for a way
WORTH = 50_000_000


class Archive(Protocol):
    """Named snapshots as places to start from."""

    def places(self) -> list[tuple[Position, str]]:
        """Moments of this recording, and the snapshots' ids."""

    def load(self, tag: str) -> None: ...


class MachineTrack:
    """``restarts``: a reset of the guest, or of the user, is not the end of the run (no ``-no-reboot``).

    ``traces``: what code runs is noted from now on (1 % of the speed), otherwise from ``trace`` on.
    """

    def __init__(
        self,
        machine: Machine,
        checkpoints: Checkpoints,
        *,
        restarts: bool = True,
        archive: Archive | None = None,
        traces: bool = True,
    ) -> None:
        """Where the machine stands is the start of history from now on.  Raises HostError."""
        self._machine = machine
        self.archive = archive
        self._checkpoints = checkpoints
        self._restarts = restarts
        self._written = WrittenPages(machine.dirty) if machine.dirty.sees_every_write else None
        self._quiet = QuietTimes(None, moment(self.place), self._written)
        self._restorations = machine.restorations
        if traces:
            self.trace()
        checkpoints.take(self.place)

    def trace(self) -> None:
        """What code runs is noted from now on."""
        cpu = self._machine.cpu
        if isinstance(cpu, Traceable):
            self._quiet.begin_trace(cpu.trace_code(), moment(self.place))

    def forget_ways(self) -> None:
        """Nothing is known of any way so far."""
        self._quiet = QuietTimes(self._quiet.trace, moment(self.place), self._written)
        self._quiet.moved(moment(self.place))
        self._restorations = self._machine.restorations

    @property
    def place(self) -> Position:
        return Position(self._machine.icount, self._machine.settled)

    @property
    def start(self) -> Position:
        return self._checkpoints.start.position

    @property
    def end(self) -> int | None:
        return self._machine.end

    # ---- running

    def run(self, limit: int) -> RunResult:
        return self._machine.run(limit)

    def pass_by(self, limit: int) -> Run:
        """Resets on the way are carried out, as the CPU thread does."""
        whole_from = moment(self.place)
        passed: list[Passed] = []
        while True:
            result, stops, whole = self._machine.pass_by(limit)
            found = [Passed(stop.icount, self._debug_stop(stop)) for stop in stops]
            if not whole:
                passed, whole_from = [], found[0].moment if found else whole_from
            passed += self._with_devices(found, whole_from)
            if result.end is not RunEnd.RESET or not self._restarts or result.icount >= limit:
                return Run(result, passed, whole_from)
            self._machine.reset()

    def _with_devices(self, found: list[Passed], whole_from: int) -> list[Passed]:
        """And what devices wrote meanwhile; of several stops at one moment the last counts."""
        if not self._machine.device_writes.found:
            return found
        by_moment = {passed.moment: passed for passed in found}
        for write in self._machine.device_writes.found:
            passed = Passed(write.icount, write.stop, write.early)
            if passed.moment >= whole_from:
                by_moment[passed.moment] = passed
        return [by_moment[at] for at in sorted(by_moment)]

    def deliver(self) -> list[Passed]:
        self._machine.settle()
        return self._with_devices([], moment(self.place) - 1)

    def _debug_stop(self, stop: Stop) -> DebugStop:
        if stop.kind is StopKind.BREAKPOINT:
            return DebugStop(stop.pc)
        return DebugStop(stop.pc, self._machine.stops.watchpoint_at(stop.address), stop.address, stop.is_write)

    def settle(self) -> int:
        while isinstance(stands := self._machine.settle(), RunResult):
            if stands.end is not RunEnd.RESET or not self._restarts:
                raise InternalError(f"there is no instruction to stand before: {stands}")
            self._machine.reset()
        return stands.pc

    @property
    def stops(self) -> Stops:
        return self._machine.stops

    def use_stops(self, stops: Stops) -> None:
        """Free; the CPU takes note when it runs next."""
        if stops != self._machine.stops:
            self._machine.set_stops(stops)

    # ---- remembering

    @property
    def is_calm(self) -> bool:
        return all(drive.is_calm for drive in self._machine.disks.drives)

    def remember(self) -> None:
        with self._machine.dirty.standing():
            self._note_way()
            self._checkpoints.take(self.place)

    def _note_way(self) -> None:
        """What code ran on the way to here, unless somebody else has put the machine elsewhere meanwhile."""
        if self._machine.restorations == self._restorations:
            self._quiet.reached(moment(self.place))
        else:
            self._note_jump()

    def _note_jump(self) -> None:
        self._restorations = self._machine.restorations
        self._quiet.moved(moment(self.place))

    def quiet_since(self, moment: int, stops: Stops) -> int:
        """Virtual memory may be mapped elsewhere at any time, and reads leave no traces: those have to be run for."""
        if any(not watch.physical or watch.kind is not WatchKind.WRITE for watch in stops.watchpoints):
            return moment
        base = self._machine.ram.base
        pages = {
            (address - base) // PAGE
            for watch in stops.watchpoints
            for address in range(watch.address // PAGE * PAGE, watch.address + watch.length, PAGE)
            if self._machine.ram.contains(address, PAGE)
        }
        return max(2 * self.start.icount, self._quiet.quiet_since(moment, stops.breakpoints, pages))

    def pin(self, position: Position) -> None:
        self._checkpoints.pin(position)

    def unpin(self, position: Position) -> None:
        self._checkpoints.unpin(position)

    def nearest(self, position: Position) -> Position:
        """A named snapshot counts where checkpoints are far away."""
        nearest = self._checkpoints.nearest(position).position
        if self.archive is not None and position.icount - nearest.icount > WORTH:
            archived = [place for place, _ in self.archive.places() if place <= position]
            if archived and max(archived).icount - nearest.icount > WORTH:
                return max(archived)
        return nearest

    def go_back(self, position: Position) -> None:
        with self._machine.dirty.standing():
            self._note_way()
            if self._checkpoints.go_to(position):
                self._note_jump()
                return
        if self.archive is not None:
            for place, tag in self.archive.places():
                if place == position:
                    self.archive.load(tag)
                    self._note_jump()
                    return
        raise InternalError(f"nothing is remembered of {position}")
