"""A machine of one counter: the smallest honest ``MachinePort``, with a replay's manners if asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from timevm.engine.control.port import (
    DebugStop,
    InterruptController,
    MemoryRegion,
    PciFunctionInfo,
    ReplayInfo,
    ReplayMode,
    RunEnd,
    RunResult,
    SnapshotInfo,
    Stops,
)
from timevm.engine.control.time_travel import Journey
from timevm.engine.cpu.base import Register
from timevm.engine.cpu.core_image import EM_AARCH64, CoreImage
from timevm.engine.cpu.mappings import Mappings
from timevm.engine.machine.memory_image import MemoryImage
from timevm.engine.replay.events import Event, Request, RequestKind
from timevm.errors import TimevmError, UserError

#: instructions of one slice, after which the toy looks at its kick
SLICE = 1000


class ToyMachine:
    """Counts; ``ends`` says what happens at which icount, an exception is raised there."""

    name = "toy"
    registers: Sequence[Register] = (Register("pc", 64, "general"),)
    watches_physical = False
    takes_nmi = True

    def __init__(
        self, mode: ReplayMode = ReplayMode.NONE, ends: dict[int, RunResult | TimevmError | Exception] | None = None
    ) -> None:
        self.mode = mode
        self.ends = dict(ends or {})
        self.count = 0
        self.stops = Stops()
        self.passed = -1
        self.kicked = threading.Event()
        self.injected: SimpleQueue[Event] = SimpleQueue()
        self.finished: list[str] = []
        self.resets = 0
        self.threads: set[int] = set()

    @property
    def icount(self) -> int:
        return self.count

    def now_ns(self) -> int:
        return self.count

    def run(self, limit: int) -> RunResult:
        self.threads.add(threading.get_ident())
        while True:
            if not self.injected.empty():
                event = self.injected.get()
                if isinstance(event, Request) and event.kind is RequestKind.RESET:
                    return RunResult(RunEnd.RESET, self.count)
            if self.kicked.is_set():
                self.kicked.clear()
                return RunResult(RunEnd.KICKED, self.count)
            if self.count in self.ends:
                end = self.ends[self.count]
                if isinstance(end, Exception):
                    raise end
                if end.end is not RunEnd.RECORDING_ENDED:
                    del self.ends[self.count]
                return end
            if self.count >= limit:
                return RunResult(RunEnd.LIMIT, self.count)
            if self.count in self.stops.breakpoints and self.count != self.passed:
                return RunResult(RunEnd.DEBUG, self.count, stop=DebugStop(self.count))
            marks = [mark for mark in (*self.ends, *self.stops.breakpoints) if mark > self.count]
            self.count = min([limit, self.count + SLICE, *marks])

    def kick(self) -> None:
        self.kicked.set()

    def inject(self, event: Event) -> None:
        if self.mode is ReplayMode.PLAY:
            raise UserError("a replay takes no live input")
        self.injected.put(event)
        self.kick()

    def reset(self) -> None:
        self.resets += 1

    def finish(self, reason: str) -> None:
        if not self.finished:
            self.finished.append(reason)

    def replay_info(self) -> ReplayInfo:
        return ReplayInfo(self.mode, self.count)

    def set_stops(self, stops: Stops) -> None:
        self.stops = stops

    def pass_breakpoint(self) -> None:
        self.passed = self.count

    def read_register(self, name: str) -> int:
        return {"pc": self.count}[name]

    def write_register(self, name: str, value: int) -> None:
        self.count = value

    def mappings(self) -> Mappings:
        return Mappings(absent="the MMU is off: addresses are physical")

    def translate(self, address: int) -> int | None:
        return address

    def read_memory(self, address: int, size: int, *, physical: bool = False) -> bytes:
        return bytes(size)

    def write_memory(self, address: int, data: bytes, *, physical: bool = False) -> int:
        return len(data)

    def memory_map(self) -> list[MemoryRegion]:
        return [MemoryRegion("ram", 0, 4096, "ram")]

    def interrupt_controllers(self) -> list[InterruptController]:
        return []

    def pci_functions(self) -> list[PciFunctionInfo]:
        return []

    def memory_image(self) -> MemoryImage:
        return MemoryImage((), CoreImage(EM_AARCH64, 64, ()))

    def device_states(self) -> dict[str, dict[str, Any]]:
        return {}


class ToyTimeline:
    """Goes back by setting the counter; forward by running."""

    def __init__(self, machine: ToyMachine, end: int) -> None:
        self.machine, self.end = machine, end

    def seek(self, icount: int, journey: Journey) -> RunResult:
        if icount > self.end:
            raise UserError("cannot seek to the specified instruction count")
        start = self.machine.count
        if icount < start:
            self.machine.count = 0
        while self.machine.count < icount:
            self.machine.run(min(icount, self.machine.count + SLICE))
            journey.progress(self.machine.count, icount)
            if journey.cancelled():
                self.machine.count = start
                return RunResult(RunEnd.KICKED, start)
        return RunResult(RunEnd.LIMIT, icount)

    def reverse_step(self, count: int, journey: Journey) -> RunResult:
        self.machine.count = max(0, self.machine.count - count)
        return RunResult(RunEnd.LIMIT, self.machine.count)

    def reverse_continue(self, stops: Stops, journey: Journey) -> RunResult:
        before = [address for address in stops.breakpoints if address < self.machine.count]
        self.machine.count = max(before, default=0)
        stop = DebugStop(self.machine.count) if before else None
        return RunResult(RunEnd.DEBUG if before else RunEnd.LIMIT, self.machine.count, stop=stop)

    def find_last(self, stops: Stops, journey: Journey) -> RunResult:
        here = self.machine.count
        found = self.reverse_continue(stops, journey)
        self.machine.count = here
        return found

    def review(self, count: int, look: Callable[[int], None], journey: Journey) -> RunResult:
        here = self.machine.count
        for self.machine.count in range(max(0, here - count), here):
            if journey.cancelled():
                self.machine.count = here
                return RunResult(RunEnd.KICKED, here)
            look(self.machine.count)
        self.machine.count = here
        return RunResult(RunEnd.LIMIT, here)


class ToySnapshots:
    """Keeps the counter under tags."""

    def __init__(self, machine: ToyMachine) -> None:
        self.machine = machine
        self.saved: dict[str, SnapshotInfo] = {}

    def save(self, tag: str | None) -> SnapshotInfo:
        name = tag or f"vm-{len(self.saved)}"
        self.saved[name] = SnapshotInfo(
            str(len(self.saved) + 1), name, 8, 0.0, self.machine.now_ns(), self.machine.icount
        )
        return self.saved[name]

    def load(self, tag: str) -> None:
        if tag not in self.saved:
            raise UserError(f"Snapshot '{tag}' does not exist in one or more devices")
        self.machine.count = self.saved[tag].icount

    def delete(self, tag: str) -> None:
        del self.saved[tag]

    def list(self) -> list[SnapshotInfo]:
        return list(self.saved.values())
