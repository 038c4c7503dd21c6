"""The toy machine of the monitors' tests behind the real ``Vm``: it runs, meets stops, and goes back by arithmetic."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.monitor.toy_vm import RAM, RAM_SIZE, ToyMachine
from timevm.engine.control.port import DebugStop, ReplayInfo, ReplayMode, RunEnd, RunResult, Stops, WatchKind
from timevm.engine.control.time_travel import Journey
from timevm.engine.control.vm import Vm, VmDescription, VmPolicy
from timevm.errors import UserError


def pc_at(icount: int) -> int:
    return RAM + 4 * icount


class ToyGuest(ToyMachine):
    """Instruction N is at RAM + 4 N and writes N to the byte at RAM + N % 16; with ``end``, there is no more then."""

    def __init__(self, mode: ReplayMode, end: int | None) -> None:
        super().__init__(ReplayInfo(mode, 0, None if mode is ReplayMode.NONE else "boot.rr", end))
        self.stops = Stops()
        self.kicked = threading.Event()
        self._passed_breakpoint = self._passed_watchpoint = -1

    def kick(self) -> None:
        self.kicked.set()

    def set_stops(self, stops: Stops) -> None:
        self.stops = stops

    def pass_breakpoint(self) -> None:
        self._passed_breakpoint = self.icount

    def write_memory(self, address: int, data: bytes, *, physical: bool = False) -> int:
        if not RAM <= address <= RAM + RAM_SIZE - len(data):
            return 0
        return super().write_memory(address, data, physical=physical)

    def stop_at(self, icount: int) -> DebugStop | None:
        """The first stop of instruction ``icount``."""
        if pc_at(icount) in self.stops.breakpoints and icount != self._passed_breakpoint:
            return DebugStop(pc_at(icount))
        if icount == self._passed_watchpoint:
            return None
        written = RAM + icount % 16
        for watch in sorted(self.stops.watchpoints, key=lambda watch: watch.address):
            if watch.address <= written < watch.address + watch.length and watch.kind is not WatchKind.READ:
                return DebugStop(pc_at(icount), watch, written, True)
        return None

    def run(self, limit: int) -> RunResult:
        icount = self.icount
        while True:
            if icount >= limit:
                result = RunResult(RunEnd.LIMIT, icount)
            elif self.kicked.is_set():
                self.kicked.clear()
                result = RunResult(RunEnd.KICKED, icount)
            elif icount == self.info.end:
                result = RunResult(RunEnd.RECORDING_ENDED, icount)
            elif (stop := self.stop_at(icount)) is not None:
                if stop.watch is None:
                    self._passed_breakpoint = icount
                else:
                    self._passed_watchpoint = icount
                result = RunResult(RunEnd.DEBUG, icount, stop=stop)
            else:
                icount += 1
                continue
            self.go_to(icount)
            return result

    def jump(self, icount: int) -> None:
        self.go_to(icount)
        self._passed_breakpoint = self._passed_watchpoint = -1


class ToyTimeline:
    """``TimeTravel``.  ``blocked``: a way back takes for ever, unless it is cancelled."""

    def __init__(self, guest: ToyGuest) -> None:
        self.guest = guest
        self.blocked = threading.Event()
        self.searching = threading.Event()

    def seek(self, icount: int, journey: Journey) -> RunResult:
        if self.guest.info.end is not None and icount > self.guest.info.end:
            raise UserError("cannot seek to the specified instruction count")
        self.guest.jump(icount)
        return RunResult(RunEnd.LIMIT, icount)

    def reverse_step(self, count: int, journey: Journey) -> RunResult:
        self.guest.jump(max(0, self.guest.icount - count))
        return RunResult(RunEnd.LIMIT, self.guest.icount)

    def reverse_continue(self, stops: Stops, journey: Journey) -> RunResult:
        start = self.guest.icount
        while self.blocked.is_set():
            self.searching.set()
            if journey.cancelled():
                return RunResult(RunEnd.KICKED, start)
            journey.progress(start // 4, start)
            time.sleep(0.001)
        for icount in range(start - 1, -1, -1):
            self.guest.jump(icount)
            stop = self.guest.stop_at(icount)
            if stop is not None:
                return RunResult(RunEnd.DEBUG, icount, stop=stop)
        self.guest.jump(0)
        return RunResult(RunEnd.LIMIT, 0)

    def find_last(self, stops: Stops, journey: Journey) -> RunResult:
        here = self.guest.icount
        found = self.reverse_continue(stops, journey)
        self.guest.jump(here)
        return found

    def review(self, count: int, look: Callable[[int], None], journey: Journey) -> RunResult:
        here = self.guest.icount
        for icount in range(max(0, here - count), here):
            self.guest.jump(icount)
            look(self.guest.read_register("pc"))
        self.guest.jump(here)
        return RunResult(RunEnd.LIMIT, here)


class Toy:
    """A guest and its running ``Vm``."""

    def __init__(self, mode: ReplayMode, end: int | None) -> None:
        self.guest = ToyGuest(mode, end)
        self.timeline = ToyTimeline(self.guest)
        description = VmDescription(ram_size=RAM_SIZE, mode=mode)
        self.vm = Vm(self.guest, description, VmPolicy(no_shutdown=True), time_travel=self.timeline)


@asynccontextmanager
async def toy(mode: ReplayMode = ReplayMode.PLAY, end: int | None = 1000) -> AsyncIterator[Toy]:
    made = Toy(mode, end)
    made.vm.start()
    try:
        yield made
    finally:
        await made.vm.leave("quit")
