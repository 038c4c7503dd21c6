"""A toy machine behind ``VmPort``: instruction N writes N to the byte at RAM + N % 16, and pc moves by 4.

Going back is trivial for it (everything follows from the icount), so the monitors can be tested without an engine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from timevm.engine.control.port import (
    DebugStop,
    InterruptController,
    MachinePort,
    MemoryRegion,
    PciFunctionInfo,
    ReplayInfo,
    ReplayMode,
    RunEnd,
    RunResult,
    SnapshotInfo,
    Stops,
    VmEvent,
)
from timevm.engine.control.run_state import RunState
from timevm.engine.cpu.base import Register
from timevm.engine.cpu.core_image import EM_AARCH64, CoreImage
from timevm.engine.cpu.mappings import Mappings
from timevm.engine.machine.memory_image import MemoryBlock, MemoryImage
from timevm.engine.machine.ram import PAGE
from timevm.engine.replay.events import Event
from timevm.errors import UserError

Answer = TypeVar("Answer")
RAM = 0x40000000
RAM_SIZE = 1 << 16

GENERAL = [Register(f"x{number}", 64, "general") for number in range(31)]
REGISTERS = [*GENERAL, Register("sp", 64, "general"), Register("pc", 64, "general"), Register("cpsr", 32, "general")]


class ToyMachine:
    """``MachinePort`` as far as monitors look at it."""

    name = "toy"
    registers: Sequence[Register] = REGISTERS
    watches_physical = True
    takes_nmi = False

    def __init__(self, info: ReplayInfo) -> None:
        self.info = info
        self.icount = 0
        self.memory = bytearray(RAM_SIZE)
        self.values = {register.name: 0 for register in REGISTERS} | {"cpsr": 0x400003C5}

    def go_to(self, icount: int) -> None:
        self.icount = icount
        for slot in range(16):
            latest = (icount - 1 - slot) // 16 * 16 + slot
            self.memory[slot] = latest & 0xFF if 0 <= latest < icount else 0

    def now_ns(self) -> int:
        return self.icount

    def run(self, limit: int) -> RunResult:
        self.go_to(limit)
        return RunResult(RunEnd.LIMIT, limit)

    def kick(self) -> None: ...

    def inject(self, event: Event) -> None: ...

    def reset(self) -> None:
        self.go_to(0)

    def finish(self, reason: str) -> None: ...

    def replay_info(self) -> ReplayInfo:
        return replace(self.info, icount=self.icount)

    def set_stops(self, stops: Stops) -> None: ...

    def pass_breakpoint(self) -> None: ...

    def read_register(self, name: str) -> int:
        return RAM + 4 * self.icount if name == "pc" else self.values[name]

    def write_register(self, name: str, value: int) -> None:
        self.values[name] = value

    def mappings(self) -> Mappings:
        return Mappings(absent="the MMU is off: addresses are physical")

    def translate(self, address: int) -> int | None:
        return address if RAM <= address < RAM + RAM_SIZE else None

    def read_memory(self, address: int, size: int, *, physical: bool = False) -> bytes:
        start = address - RAM
        return bytes(self.memory[start : start + size]) if 0 <= start < RAM_SIZE else b""

    def write_memory(self, address: int, data: bytes, *, physical: bool = False) -> int:
        self.memory[address - RAM : address - RAM + len(data)] = data
        return len(data)

    def memory_map(self) -> list[MemoryRegion]:
        return [
            MemoryRegion("pl011", 0x09000000, 0x1000, "io"),
            MemoryRegion("mach-virt.ram", RAM, RAM_SIZE, "ram"),
        ]

    def interrupt_controllers(self) -> list[InterruptController]:
        return []

    def pci_functions(self) -> list[PciFunctionInfo]:
        return []

    def memory_image(self) -> MemoryImage:
        block = MemoryBlock(RAM, memoryview(self.memory), np.arange(RAM_SIZE // PAGE, dtype=np.int64))
        return MemoryImage((block,), CoreImage(EM_AARCH64, 64, ()))

    def device_states(self) -> dict[str, dict[str, Any]]:
        return {"pl011": {"cr": 0x300, "fifo": b"ab", "enabled": True}}


class ToyVm:
    """``VmPort``.  ``end`` is the recording's, in replay."""

    name: str | None = "fred"
    architecture = "aarch64"
    machine_type = "virt"
    cpu_type = "cortex-a57"
    ram_size = RAM_SIZE

    def __init__(self, mode: ReplayMode = ReplayMode.NONE, end: int | None = None) -> None:
        self.machine = ToyMachine(ReplayInfo(mode, 0, None if mode is ReplayMode.NONE else "boot.rr", end))
        self.run_state = RunState.PRELAUNCH
        self.stops = Stops()
        self.calls: list[str] = []
        self.saved: list[SnapshotInfo] = []
        self.breakpoint: int | None = None
        #: a seek waits for this before it arrives
        self.may_arrive = asyncio.Event()
        self.may_arrive.set()
        self._queues: set[asyncio.Queue[VmEvent]] = set()

    @property
    def mode(self) -> ReplayMode:
        return self.machine.info.mode

    def send(self, name: str, data: dict[str, Any] | None = None) -> None:
        for queue in self._queues:
            queue.put_nowait(VmEvent(name, data or {}, time.time()))

    def _stand(self, state: RunState = RunState.PAUSED) -> None:
        self.run_state = state
        self.send("STOP")

    async def cont(self, limit: int | None = None) -> None:
        self.calls.append("cont")
        self.run_state = RunState.RUNNING
        self.send("RESUME")

    async def stop(self) -> None:
        self.calls.append("stop")
        if self.run_state is RunState.RUNNING:
            self._stand()

    async def step(self, count: int = 1, further: Callable[[MachinePort], bool] | None = None) -> RunResult:
        return self.machine.run(self.machine.icount + count)

    async def seek(self, icount: int) -> RunResult:
        self.calls.append(f"seek {icount}")
        self.run_state = RunState.RUNNING
        self.send("RESUME")
        await self.may_arrive.wait()
        self.machine.go_to(icount)
        self._stand()
        return RunResult(RunEnd.LIMIT, icount)

    async def reverse_step(self, count: int = 1) -> RunResult:
        return self.machine.run(max(0, self.machine.icount - count))

    async def reverse_continue(self) -> RunResult:
        for icount in range(self.machine.icount - 1, -1, -1):
            pc = RAM + 4 * icount
            written = RAM + icount % 16
            if pc in self.stops.breakpoints:
                self.machine.go_to(icount)
                return RunResult(RunEnd.DEBUG, icount, stop=DebugStop(pc))
            for watch in self.stops.watchpoints:
                if watch.address <= written < watch.address + watch.length:
                    self.machine.go_to(icount)
                    return RunResult(RunEnd.DEBUG, icount, stop=DebugStop(pc, watch, written, True))
        return self.machine.run(0)

    async def find_last(self, stops: Stops) -> RunResult:
        here, mine = self.machine.icount, self.stops
        self.stops = stops
        found = await self.reverse_continue()
        self.stops = mine
        self.machine.go_to(here)
        return found

    async def review(self, count: int, look: Callable[[MachinePort, int], Answer]) -> list[Answer]:
        here = self.machine.icount
        seen = []
        for icount in range(max(0, here - count), here):
            self.machine.go_to(icount)
            seen.append(look(self.machine, RAM + 4 * icount))
        self.machine.go_to(here)
        return seen

    async def look_back(self) -> RunResult:
        self.machine.info = replace(self.machine.info, mode=ReplayMode.PLAY, end=self.machine.icount)
        return RunResult(RunEnd.LIMIT, self.machine.icount)

    async def system_reset(self) -> None:
        self.calls.append("system_reset")
        self.send("RESET", {"guest": False, "reason": "host-qmp-system-reset"})

    async def system_powerdown(self) -> None:
        self.calls.append("system_powerdown")
        self.send("POWERDOWN")

    async def inject_nmi(self) -> None:
        raise UserError("this feature or command is not currently supported")

    async def quit(self) -> None:
        self.calls.append("quit")
        self.send("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})

    async def set_stops(self, stops: Stops) -> None:
        self.stops = stops

    async def set_replay_breakpoint(self, icount: int | None) -> None:
        self.breakpoint = icount

    async def replay_info(self) -> ReplayInfo:
        return self.machine.replay_info()

    async def inspect(self, look: Callable[[MachinePort], Answer], *, arrived: bool = False) -> Answer:
        return look(self.machine)

    async def save_snapshot(self, tag: str | None) -> SnapshotInfo:
        identifier = str(len(self.saved) + 1)
        tag = tag or f"vm-{identifier}"
        snapshot = SnapshotInfo(identifier, tag, 4096, 1.7e9, self.machine.now_ns(), self.machine.icount)
        self.saved.append(snapshot)
        return snapshot

    async def load_snapshot(self, tag: str) -> None:
        found = [snapshot for snapshot in self.saved if snapshot.tag == tag]
        if not found:
            raise UserError(f"Snapshot '{tag}' does not exist in one or more devices")
        self.machine.go_to(found[0].icount)

    async def delete_snapshot(self, tag: str) -> None:
        self.saved = [snapshot for snapshot in self.saved if snapshot.tag != tag]

    async def snapshots(self) -> list[SnapshotInfo]:
        return self.saved

    @contextmanager
    def subscribe(self) -> Iterator[AsyncIterator[VmEvent]]:
        queue: asyncio.Queue[VmEvent] = asyncio.Queue()
        self._queues.add(queue)

        async def events() -> AsyncIterator[VmEvent]:
            while True:
                yield await queue.get()

        try:
            yield events()
        finally:
            self._queues.discard(queue)
