"""A replay in a hundred lines: a deterministic program with interrupts, its places remembered as copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import xxhash

from timevm.engine.cpu.base import WatchKind, Watchpoint
from timevm.engine.machine.outcome import DebugStop, RunEnd, RunResult, Stops
from timevm.engine.snapshot.position import Position
from timevm.engine.timeline.seekable import Passed, Run, moment

#: addresses of instructions, and of what they access
PLACES, CELLS = 12, 8
VECTOR = 100
#: stops that one run keeps
KEPT = 6


def mix(*values: int) -> int:
    return xxhash.xxh3_64_intdigest(repr(values).encode())


@dataclass(frozen=True)
class State:
    """``value`` depends on everything that has happened."""

    icount: int = 0
    pc: int = 0
    value: int = 1
    attended: bool = False

    @property
    def place(self) -> Position:
        return Position(self.icount, self.attended)


@dataclass(frozen=True)
class Program:
    """``events``: icounts at which something comes from outside; ``end``: where the recording does."""

    seed: int
    end: int
    events: frozenset[int]

    def attend(self, state: State) -> State:
        if state.attended:
            return state
        state = replace(state, attended=True)
        if state.icount in self.events:
            state = replace(state, pc=VECTOR + mix(self.seed, state.icount) % 3, value=mix(state.value, 7))
        return state

    def delivered(self, state: State) -> int | None:
        """Cell that a device writes to with what comes at this icount."""
        return mix(self.seed, state.icount, 2) % CELLS if state.icount in self.events else None

    def access(self, state: State) -> tuple[int, bool]:
        """Cell that the next instruction of a state that was attended to accesses, and whether it writes."""
        return mix(self.seed, state.value) % CELLS, bool(mix(self.seed, state.value, 1) % 2)

    def execute(self, state: State) -> State:
        value = mix(state.value, state.pc, state.icount)
        return State(state.icount + 1, value % PLACES, value, False)


def stops_of(program: Program, state: State, stops: Stops) -> list[DebugStop]:
    """Of the instruction that ``state`` (attended) stands at, in order."""
    found = [DebugStop(state.pc)] if state.pc in stops.breakpoints else []
    cell, is_write = program.access(state)
    for watch in sorted(stops.watchpoints, key=lambda watch: watch.address):
        kind_fits = watch.kind is WatchKind.ACCESS or (watch.kind is WatchKind.WRITE) == is_write
        if kind_fits and watch.address <= cell < watch.address + watch.length:
            found.append(DebugStop(state.pc, watch, cell, is_write))
    return found


def device_stop(program: Program, state: State, stops: Stops) -> DebugStop | None:
    """Of what comes at the icount of ``state``, which was not attended to."""
    cell = program.delivered(state)
    if cell is None:
        return None
    for watch in sorted(stops.watchpoints, key=lambda watch: watch.address):
        if watch.kind is not WatchKind.READ and watch.address <= cell < watch.address + watch.length:
            return DebugStop(state.pc, watch, cell, True, "toy")
    return None


class ToyTrack:
    """``kick`` says before each instruction whether somebody wants attention."""

    def __init__(self, program: Program, kick: Callable[[], bool] = lambda: False) -> None:
        self.program = program
        self.kick = kick
        self.state = State()
        self.stops = Stops()
        self.start = Position(0)
        self.end: int | None = program.end
        #: icount and pc whose stops have been seen
        self.left: tuple[int, int] | None = None
        self.kept: dict[Position, State] = {self.start: self.state}
        self.pins: list[Position] = []
        #: (from, to) of every run
        self.runs: list[tuple[int, int]] = []
        self.executed = 0
        #: the disk is not at work
        self.is_calm = True

    @property
    def place(self) -> Position:
        return self.state.place

    def use_stops(self, stops: Stops) -> None:
        self.stops = stops

    def pass_breakpoint(self) -> None:
        self.left = (self.state.icount, self.state.pc)

    def run(self, limit: int) -> RunResult:
        return self._noted(limit, None)

    def pass_by(self, limit: int) -> Run:
        begin, passed = moment(self.place), list[Passed]()
        result = self._noted(limit, passed)
        if len(passed) > KEPT:
            passed = passed[-KEPT:]
            return Run(result, passed, passed[0].moment)
        return Run(result, passed, begin)

    def deliver(self) -> list[Passed]:
        passed = list[Passed]()
        self._attend(passed)
        return passed

    def _attend(self, passed: list[Passed] | None) -> DebugStop | None:
        """Past what comes at this icount; the stop that was in that."""
        state = self.state
        self.state = self.program.attend(state)
        found = None if state.attended else device_stop(self.program, state, self.stops)
        if found is not None and passed is not None:
            passed.append(Passed(state.icount, found, early=True))
        return found

    def _noted(self, limit: int, passed: list[Passed] | None) -> RunResult:
        begin = self.state.icount
        result = self._run(limit, passed)
        self.runs.append((begin, result.icount))
        return result

    def _run(self, limit: int, passed: list[Passed] | None) -> RunResult:
        left, self.left = self.left, None
        while True:
            state = self.state
            if state.icount >= limit:
                return RunResult(RunEnd.LIMIT, state.icount)
            if self.kick():
                self.left = left if left is not None and left[0] == state.icount else None
                return RunResult(RunEnd.KICKED, state.icount)
            written = self._attend(passed)
            if written is not None and passed is None:
                return RunResult(RunEnd.DEBUG, state.icount, stop=written)
            if state.icount >= self.program.end:
                return RunResult(RunEnd.RECORDING_ENDED, state.icount, "it ends here")
            stops = stops_of(self.program, self.state, self.stops)
            if stops and passed is not None:
                passed.append(Passed(state.icount, stops[-1]))
            elif stops and left != (state.icount, self.state.pc):
                self.left = (state.icount, self.state.pc)
                return RunResult(RunEnd.DEBUG, state.icount, stop=stops[0])
            self.state = self.program.execute(self.state)
            self.executed += 1

    def settle(self) -> int:
        self.state = self.program.attend(self.state)
        return self.state.pc

    def quiet_since(self, moment: int, stops: Stops) -> int:
        """Knows every third hundred of instructions for quiet, if it is."""
        begin, end = (moment // 2 - 1) // 100 * 100, moment // 2
        if begin % 300 or not 0 <= begin < end or moment % 2:
            return moment
        state, found = State(), False
        while state.icount < end:
            inside = state.icount >= begin
            found = found or (inside and device_stop(self.program, state, stops) is not None)
            state = self.program.attend(state)
            found = found or (inside and bool(stops_of(self.program, state, stops)))
            state = self.program.execute(state)
        return moment if found else 2 * begin

    def remember(self) -> None:
        self.kept[self.place] = self.state

    def pin(self, position: Position) -> None:
        self.pins.append(position)

    def unpin(self, position: Position) -> None:
        self.pins.remove(position)

    def nearest(self, position: Position) -> Position:
        return max((kept for kept in self.kept if kept <= position), default=self.start)

    def go_back(self, position: Position) -> None:
        self.state, self.left = self.kept[position], None

    def forget(self, keep: Callable[[Position], bool]) -> None:
        """Thinning: it may happen at any time between two motions."""
        for position in list(self.kept):
            if position != self.start and position not in self.pins and position != self.place and not keep(position):
                del self.kept[position]


def watch(address: int, length: int = 1, kind: WatchKind = WatchKind.WRITE) -> Watchpoint:
    return Watchpoint(address, length, kind)
