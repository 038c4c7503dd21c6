"""From the end of the demo's recording back to the write that damaged the heap: a watchpoint and reverse-continue.

Nothing here is the demo's own: it is the ``Vm`` with timeline and checkpoints that debuggers and monitors work with.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

from capstone import CS_ARCH_ARM64, CS_MODE_ARM, Cs

from timevm.engine.control.port import MachinePort, ReplayMode, RunEnd, RunResult, Stops, WatchKind, Watchpoint
from timevm.engine.control.vm import Vm, VmDescription, VmPolicy
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.replay.events import SerialInput
from timevm.engine.replay.log_reader import LogReader
from timevm.errors import RecordingError
from timevm.guests.source_places import Function
from timevm.system.history import History, history_of

#: the header of a cell of the guest's heap is a size and a guard, 32 bits each (examples/guests/demo/heap.h)
HEADER = 8
_FOUND = re.compile(
    rb"heap corrupted: cell (\d+) at 0x([0-9a-f]+): size 0x([0-9a-f]+), guard 0x([0-9a-f]+), expected 0x([0-9a-f]+)"
)


@dataclass(frozen=True, slots=True)
class Damage:
    """What the guest says at its end.  In the header of a sound cell, size and guard differ in ``pattern``."""

    cell: int
    address: int
    pattern: int

    def is_in(self, header: bytes) -> bool:
        size, guard = (int.from_bytes(part, "little") for part in (header[:4], header[4:]))
        return size ^ guard != self.pattern


def damage_on(console: bytes) -> Damage | None:
    """None: the heap stayed sound."""
    found = _FOUND.search(console)
    if found is None:
        return None
    size, expected = int(found[3], 16), int(found[5], 16)
    return Damage(int(found[1]), int(found[2], 16), size ^ expected)


@dataclass(frozen=True, slots=True)
class GuiltyWrite:
    """The instruction at ``pc`` that, being number ``icount`` (from 0), changed ``before`` into ``after``.

    ``stops``: how many times the watchpoint was met on the way back to it; ``seconds``: of the host, for that way.
    """

    icount: int
    pc: int
    instruction: str
    before: bytes
    after: bytes
    stops: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Replay:
    """One that can go back."""

    vm: Vm
    history: History


@contextlib.asynccontextmanager
async def replay_at_end(spec: MachineSpec) -> AsyncIterator[Replay]:
    """Raises what building the machine raises, and RecordingError if the replay fails."""
    machine = build_machine(replace(spec, mode="play"), lambda port, data: None)
    try:
        history = history_of(machine, spec, ReplayMode.PLAY)
        complaints: list[str] = []
        vm = Vm(
            machine,
            VmDescription(spec.architecture, spec.machine, spec.cpu, spec.ram_bytes, mode=ReplayMode.PLAY),
            VmPolicy(),
            time_travel=history.time_travel,
            messages=complaints.append,
            run=history.run,
        )
        vm.start()
        try:
            result = await run_to_stop(vm)
            if result is None or result.end not in (RunEnd.POWERED_OFF, RunEnd.RECORDING_ENDED):
                raise RecordingError("; ".join(complaints) or "the replay did not come to its end")
            yield Replay(vm, history)
        finally:
            await vm.leave("quit")
    finally:
        machine.close()


async def run_to_stop(vm: Vm) -> RunResult | None:
    with vm.subscribe() as events:
        await vm.cont()
        async for event in events:
            if event.name == "STOP":
                return event.result
    return None


async def last_call(vm: Vm, function: Function) -> int | None:
    """The icount before it was last entered; the machine stays where it is."""
    result = await vm.find_last(Stops(breakpoints=frozenset({function.start})))
    return result.icount if result.end is RunEnd.DEBUG else None


async def go_back_to(vm: Vm, damage: Damage) -> GuiltyWrite:
    """To before the write that made the header what no sound header is; the machine stands there.

    Later writes to the damaged header are passed by.  Raises RecordingError if there is no such write.
    """
    address = damage.address

    def header(machine: MachinePort) -> bytes:
        return machine.read_memory(address, HEADER)

    begin = time.monotonic()
    await vm.set_stops(Stops(watchpoints=frozenset({Watchpoint(address, HEADER, WatchKind.WRITE)})))
    stops = 0
    while True:
        result = await vm.reverse_continue()
        if result.end is not RunEnd.DEBUG:
            raise RecordingError(f"nobody wrote to the {HEADER} bytes at {address:#x} in this recording")
        stops += 1
        before = await vm.inspect(header)
        if not damage.is_in(before):
            break
    seconds = time.monotonic() - begin
    await vm.set_stops(Stops())
    await vm.step()
    after = await vm.inspect(header)
    await vm.reverse_step()
    pc, code = await vm.inspect(_instruction)
    disassembled = next(Cs(CS_ARCH_ARM64, CS_MODE_ARM).disasm(code, pc))
    text = f"{disassembled.mnemonic} {disassembled.op_str}"
    return GuiltyWrite(result.icount, pc, text, before, after, stops, seconds)


def _instruction(machine: MachinePort) -> tuple[int, bytes]:
    pc = machine.read_register("pc")
    return pc, machine.read_memory(pc, 4)


def typed_before(recording: Path, icount: int) -> str:
    """The line that the guest had been given last: what it is about then."""
    reader = LogReader(recording)
    try:
        typed = b""
        for entry in reader.entries():
            if entry.icount > icount:
                break
            if isinstance(entry.event, SerialInput):
                typed += entry.event.data
    finally:
        reader.close()
    return typed.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")
