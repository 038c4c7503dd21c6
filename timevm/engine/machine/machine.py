"""The machine: CPU, RAM, devices, clock and gate, run forward to an exact icount.

``run`` only goes forward (rule 3), and everything due at N happens in one order that no slicing can change:

1. "at N" means that N instructions are done and nothing stamped N has happened yet: the limit is looked at first;
2. device timers that are due, one by one, and events of the gate, one by one, until neither has any;
3. the CPU's own timers, then interrupts, then the next instruction (native code).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from timevm.engine.cpu.base import Stop, StopKind, Watchpoint
from timevm.engine.machine.assembly import Assembly
from timevm.engine.machine.dirty_pages import DirtyPages
from timevm.engine.machine.machine_digest import MachineDigest
from timevm.engine.machine.memory_access import MemoryAccess
from timevm.engine.machine.outcome import (
    DebugStop,
    MemoryRegion,
    ReplayInfo,
    ReplayMode,
    RunEnd,
    RunResult,
    Stops,
)
from timevm.engine.replay.events import Digest, Event, Idle, Request, RequestKind, SerialInput
from timevm.engine.replay.gate import NEVER, Gate
from timevm.engine.replay.identity import Identity
from timevm.errors import InternalError


@dataclass(slots=True)
class Parts:
    """What a machine is made of; the builder fills it in."""

    name: str
    board: Assembly
    gate: Gate
    identity: Identity
    dirty: DirtyPages
    digest: MachineDigest
    mode: ReplayMode = ReplayMode.NONE
    filename: str | None = None
    #: replaying: icount of the recording's end
    end: int | None = None


class Machine:
    """``MachinePort`` below, ``Sink`` towards the gate.  CPU thread only, but for ``kick`` and ``inject``."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        board = parts.board
        self.name = parts.name
        self.cpu = board.cpu
        self.ram = board.ram
        self.clock = board.clock
        self.gate = parts.gate
        self.identity = parts.identity
        self.dirty = parts.dirty
        self.registers = board.cpu.registers
        self._board = board
        self._memory = MemoryAccess(board.cpu, board.ram)
        self._watched: frozenset[Watchpoint] = frozenset()
        self._request: RequestKind | None = None
        self._kicked = False
        self._finished = False
        #: how often ``restore`` was called: two passes over one moment differ in it
        self.restorations = 0
        board.boot()
        board.follow_devices()

    # ---- running

    @property
    def icount(self) -> int:
        return self.cpu.icount

    def now_ns(self) -> int:
        return self.clock.now_ns()

    def kick(self) -> None:
        self._kicked = True
        self.cpu.kick()
        self.gate.wake()

    def inject(self, event: Event) -> None:
        """Raises LiveInputRefused while replaying."""
        self.gate.inject(event)
        self.cpu.kick()
        self.gate.wake()

    def run(self, limit: int) -> RunResult:
        """Run until ``icount == limit`` at the latest.  About 20 us a round; a round ends at each event and timer."""
        while True:
            icount = self.cpu.icount
            if icount >= limit:
                return RunResult(RunEnd.LIMIT, icount)
            if self._kicked:
                self._kicked = False
                return RunResult(RunEnd.KICKED, icount)
            self._attend(icount)
            if self._request is not None:
                request, self._request = self._request, None
                return RunResult(RunEnd.RESET if request is RequestKind.RESET else RunEnd.QUIT, icount)
            over = self.gate.finished(icount)
            if over is not None:
                return RunResult(RunEnd.RECORDING_ENDED, icount, over)
            due = self.clock.next_icount()
            bound = min(limit, self.gate.horizon(icount), NEVER if due is None else due)
            stop = self.cpu.run(bound)
            if stop.kind is StopKind.IDLE:
                self._idle(stop.icount)
            elif stop.kind not in (StopKind.LIMIT, StopKind.KICK):
                return self._result(stop)

    def _attend(self, icount: int) -> None:
        """Let everything that is due at ``icount`` happen: timers first, then one event, and again."""
        while self.clock.fire_next_due() or self.gate.deliver(icount, self):
            pass

    def _idle(self, icount: int) -> None:
        deadlines = [at for at in (self.clock.next_deadline_ns(), self.cpu.next_timer()) if at is not None]
        jump = self.gate.idle(icount, self.clock.now_ns(), min(deadlines, default=None))
        if jump is not None:
            self._warp(jump)

    def _warp(self, ns: int) -> None:
        self.clock.warp(ns)
        self.cpu.set_warp(self.clock.warp_ns)

    def _result(self, stop: Stop) -> RunResult:
        match stop.kind:
            case StopKind.POWER_OFF:
                return RunResult(RunEnd.POWERED_OFF, stop.icount)
            case StopKind.RESET:
                return RunResult(RunEnd.RESET, stop.icount)
            case StopKind.BREAKPOINT:
                return RunResult(RunEnd.DEBUG, stop.icount, stop=DebugStop(stop.pc))
            case StopKind.WATCHPOINT:
                debug = DebugStop(stop.pc, self._watchpoint_at(stop.address), stop.address, stop.is_write)
                return RunResult(RunEnd.DEBUG, stop.icount, stop=debug)
            case StopKind.GUEST_ERROR:
                return RunResult(RunEnd.GUEST_ERROR, stop.icount, stop.detail)
            case _:
                raise InternalError(f"the CPU stopped in a way that the machine does not know: {stop}")

    def reset(self) -> None:
        """Power-on state of everything but RAM, which keeps what nobody loads anew; icount and virtual time go on."""
        self.clock.reset()
        for device in self._board.devices.values():
            device.reset()
        self._board.boot()
        self.cpu.set_warp(self.clock.warp_ns)
        self._board.follow_devices()

    def finish(self, reason: str) -> None:
        """End mark and close; further calls do nothing."""
        if not self._finished:
            self._finished = True
            self.gate.machine_ended(self.cpu.icount, reason, self)
            self.gate.close()

    def close(self) -> None:
        """Let the recording's file go; unlike ``finish`` this says nothing about how the run ended."""
        self.gate.close()

    # ---- the gate's side

    def capacity(self, event: SerialInput) -> int:
        return self._board.serial[event.port].capacity()

    def apply(self, event: Event) -> None:
        """Raises InternalError for an event that is no guest's business."""
        match event:
            case SerialInput(port, data):
                self._board.serial[port].receive(data)
            case Request(RequestKind.POWERDOWN):
                self._board.power_button()
            case Request(kind):
                self._request = kind
            case Idle(ns):
                self._warp(ns)
            case _:
                raise InternalError(f"the gate delivered what is not for the machine: {event}")

    def digest(self) -> Digest:
        return self._parts.digest.take(self._small_state())

    # ---- debuggers and monitors

    def replay_info(self) -> ReplayInfo:
        parts = self._parts
        return ReplayInfo(parts.mode, self.cpu.icount, parts.filename, parts.end)

    def set_stops(self, stops: Stops) -> None:
        self._watched = stops.watchpoints
        self.cpu.set_breakpoints(stops.breakpoints)
        self.cpu.set_watchpoints(stops.watchpoints)

    def pass_breakpoint(self) -> None:
        self.cpu.pass_breakpoint()

    def _watchpoint_at(self, address: int | None) -> Watchpoint | None:
        if address is None:
            return None
        hit = [watch for watch in self._watched if watch.address - 16 < address < watch.address + watch.length]
        return min(hit, key=lambda watch: watch.address, default=None)

    def read_register(self, name: str) -> int:
        return self.cpu.read_register(name)

    def write_register(self, name: str, value: int) -> None:
        self.cpu.write_register(name, value)

    def translate(self, address: int) -> int | None:
        return self.cpu.translate(address)

    def read_memory(self, address: int, size: int, *, physical: bool = False) -> bytes:
        return self._memory.read(address, size, physical=physical)

    def write_memory(self, address: int, data: bytes, *, physical: bool = False) -> int:
        return self._memory.write(address, data, physical=physical)

    def memory_map(self) -> list[MemoryRegion]:
        return list(self._board.memory_map)

    def device_states(self) -> dict[str, dict[str, Any]]:
        return {name: device.state() for name, device in self._board.devices.items()}

    # ---- state

    def _small_state(self) -> dict[str, Any]:
        return {"cpu": self.cpu.state(), "clock": self.clock.state(), "devices": self.device_states()}

    def state(self) -> dict[str, Any]:
        """Everything but RAM, as a plain record: also where in the recording this is."""
        return self._small_state() | {"gate": self.gate.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """RAM has been written by the caller, who named the pages by ``cpu.code_changed``.  Calls nobody (rule 7).

        Raises RecordingError, UserError if the gate cannot go there; then nothing has changed yet.
        """
        self.gate.restore(state["gate"])
        self.clock.restore(state["clock"])
        for name, device in self._board.devices.items():
            device.restore(state["devices"][name])
        self.cpu.restore(state["cpu"])
        self._board.follow_devices()
        self._request = None
        self.restorations += 1
