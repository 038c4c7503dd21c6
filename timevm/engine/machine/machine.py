"""The machine: CPU, RAM, devices, clock and gate, run forward to an exact icount.

``run`` only goes forward (rule 3), and everything due at N happens in one order that no slicing can change:

1. "at N" means that N instructions are done and nothing stamped N has happened yet: the limit is looked at first;
2. device timers that are due, one by one, and events of the gate, one by one, until neither has any;
3. the CPU's own timers, then interrupts, then the next instruction (native code).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from timevm.blkreplay.drive import UnknownRequest
from timevm.engine.cpu.base import Stop, StopKind
from timevm.engine.machine.device_writes import DeviceWrites
from timevm.engine.machine.memory_access import MemoryAccess
from timevm.engine.machine.outcome import DebugStop, MemoryRegion, ReplayInfo, ReplayMode, RunEnd, RunResult, Stops
from timevm.engine.machine.parts import Parts
from timevm.engine.replay.events import (
    BlockCompletion,
    Digest,
    Event,
    Idle,
    Input,
    NetworkInput,
    Request,
    RequestKind,
    SerialInput,
)
from timevm.engine.replay.gate import NEVER, Gate
from timevm.errors import InternalError, RecordingError, ReplayDivergence

if TYPE_CHECKING:
    from timevm.engine.machine.memory_image import MemoryImage


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
        #: what a saved state means: in a snapshot, to be compared
        self.layout = parts.layout
        self.dirty = parts.dirty
        self.registers = board.cpu.registers
        self.watches_physical = board.cpu.watches_physical
        self.translate, self.pass_breakpoint = board.cpu.translate, board.cpu.pass_breakpoint
        self.read_register, self.write_register = board.cpu.read_register, board.cpu.write_register
        self.pci_functions = board.pci_functions
        self.interrupt_controllers = board.interrupt_controllers
        self.takes_nmi = board.takes_nmi
        self._board = board
        memory = MemoryAccess(board.cpu, board.ram, board.roms)
        self.read_memory, self.write_memory = memory.read, memory.write
        self.mappings = partial(board.cpu.mappings, partial(memory.read, physical=True))
        #: break- and watchpoints in force
        self.stops = Stops()
        self.device_writes = DeviceWrites(board.cpu)
        #: a reset or quit that was asked for and not carried out yet
        self._request: RequestKind | None = None
        #: the icount whose events have been seen to, as far as they have come
        self._attended = -1
        self._kicked = False
        self._finished = False
        #: how often ``restore`` was called: two passes over one moment differ in it
        self.restorations = 0
        #: told of every event that is about to happen (``-d trace:replay``)
        self.trace: Callable[[int, Event], None] | None = None
        self.disks = parts.disks
        for number, drive in enumerate(self.disks.drives):
            drive.connect(self._expect, partial(self._announce, number))
        self.cables = parts.cables
        for number, cable in enumerate(self.cables.cables):
            cable.transmit = partial(self._send, number)
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

    def _expect(self) -> None:
        """A disk began to work on a request."""
        self.gate.expect()

    def _announce(self, drive: int, request: int, failed: bool) -> None:
        """The host is done with a disk request.  Any thread."""
        self.gate.announce(BlockCompletion(drive, request, failed))
        self.cpu.kick()

    def _send(self, card: int, frame: bytes) -> None:
        self.gate.expect_answer()
        self._parts.send_frame(card, frame)

    @property
    def settled(self) -> bool:
        """Some or all of what is stamped with this icount has happened: this is not "at N" any more."""
        return self._attended == self.cpu.icount

    def run(self, limit: int) -> RunResult:
        """Run until ``icount == limit`` at the latest.  About 20 us a round; a round ends at each event and timer."""
        self.device_writes.clear(stop_there=True)
        return self._run(limit, self.cpu.run)

    def pass_by(self, limit: int) -> tuple[RunResult, list[Stop], bool]:
        """Like ``run``, past all stops in force, those of this very instruction included.

        Also the stops as in ``Collected.passed``, and whether these are all of them; besides ``device_writes.found``.
        """
        self.device_writes.clear(stop_there=False)
        passed: list[Stop] = []
        whole = True

        def collect(bound: int) -> Stop:
            nonlocal passed, whole
            collected = self.cpu.run_collecting(bound)
            if not collected.complete:
                passed, whole = [], False
            passed += collected.passed
            return collected.stop

        return self._run(limit, collect), passed, whole

    def settle(self) -> Stop | RunResult:
        """Let happen all that is stamped with this icount, and stand before the next instruction (LIMIT).

        A RunResult if there is none: the machine is reset, or the run ends here.  Also ``device_writes.found``.
        """
        self.device_writes.clear(stop_there=False)
        icount = self.cpu.icount
        stands: Stop | None = None

        def settle(bound: int) -> Stop:
            nonlocal stands
            stop = self.cpu.settle()
            if stop.kind is StopKind.LIMIT:
                stands = stop
            return stop

        while stands is None:
            result = self._run(icount + 1, settle, lambda: stands is not None)
            if result.end not in (RunEnd.LIMIT, RunEnd.KICKED):
                return result
        return stands

    def _run(self, limit: int, run_cpu: Callable[[int], Stop], enough: Callable[[], bool] = lambda: False) -> RunResult:
        for drive in self.disks.drives:
            drive.announce_pending()
        while True:
            icount = self.cpu.icount
            if icount >= limit or enough():
                return RunResult(RunEnd.LIMIT, icount)
            if self._kicked:
                self._kicked = False
                return RunResult(RunEnd.KICKED, icount)
            self._attend(icount)
            if self.device_writes.stop:
                return self._device_wrote()
            if self._request is not None:
                return RunResult(RunEnd.RESET if self._request is RequestKind.RESET else RunEnd.QUIT, icount)
            over = self.gate.finished(icount)
            if over is not None:
                return RunResult(RunEnd.RECORDING_ENDED, icount, over)
            due = self.clock.next_icount()
            bound = min(limit, self.gate.horizon(icount), NEVER if due is None else due)
            stop = run_cpu(bound)
            if self.device_writes.stop and stop.kind in (StopKind.LIMIT, StopKind.KICK):
                return self._device_wrote()
            if stop.kind is StopKind.IDLE:
                self._idle(stop.icount)
            elif stop.kind not in (StopKind.LIMIT, StopKind.KICK):
                return self._result(stop)

    def _attend(self, icount: int) -> None:
        """Let everything that is due at ``icount`` happen: timers first, then one event, and again.

        A reset or quit that was asked for comes before what is left: the rest happens to the machine after it.
        """
        self._attended = icount
        writes = self.device_writes
        with writes.between_instructions():
            while (
                self._request is None
                and not writes.stop
                and (self.clock.fire_next_due() or self.gate.deliver(icount, self))
            ):
                pass

    def _device_wrote(self) -> RunResult:
        """It stands behind that."""
        stop = replace(self.device_writes.found[0].stop, pc=self.cpu.pc)
        return RunResult(RunEnd.DEBUG, self.cpu.icount, stop=stop)

    def _idle(self, icount: int) -> None:
        if self._attended != icount:
            return  # what the guest did since may let something happen now: a port takes input again
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
                return RunResult(RunEnd.POWERED_OFF, stop.icount, exit_code=stop.exit_code)
            case StopKind.RESET:
                self._request = RequestKind.RESET
                return RunResult(RunEnd.RESET, stop.icount)
            case StopKind.BREAKPOINT:
                return RunResult(RunEnd.DEBUG, stop.icount, stop=DebugStop(stop.pc))
            case StopKind.WATCHPOINT:
                debug = DebugStop(stop.pc, self.stops.watchpoint_at(stop.address), stop.address, stop.is_write)
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
        self._request = None
        self._attended = self.cpu.icount

    def finish(self, reason: str) -> None:
        """End mark and close; further calls do nothing."""
        if not self._finished:
            self._finished = True
            self.gate.machine_ended(self.cpu.icount, reason, self)
            self.gate.close()

    def replay(self, gate: Gate) -> None:
        """The recording is finished; from now on ``gate`` replays it, from where the machine stands."""
        self.gate = gate
        self._parts.send_frame = lambda card, frame: None
        self._parts.mode = ReplayMode.PLAY

    def close(self) -> None:
        """Let the files go, first the recording, then the disks' (flushed); says nothing about how the run ended.

        Idempotent.  Raises HostError.
        """
        try:
            self.gate.close()
        finally:
            self.disks.close()

    # ---- the gate's side

    def capacity(self, event: Input) -> int:
        match event:
            case SerialInput(port):
                return self._board.serial[port].capacity()
            case NetworkInput(card, frame):
                return int(self.cables.number(card).accepts(frame))

    def apply(self, event: Event) -> None:
        """Raises InternalError for an event that is no guest's business."""
        if self.trace is not None:
            self.trace(self.cpu.icount, event)
        match event:
            case SerialInput(port, data):
                self._board.serial[port].receive(data)
            case BlockCompletion(drive, request, failed):
                self._complete(drive, request, failed)
            case NetworkInput(card, frame):
                self.cables.number(card).received(frame)
            case Request(RequestKind.POWERDOWN):
                self._board.power_button()
            case Request(RequestKind.NMI):
                self._board.nmi()
            case Request(kind):
                self._request = kind
            case Idle(ns):
                self._warp(ns)
            case _:
                raise InternalError(f"the gate delivered what is not for the machine: {event}")

    def _complete(self, drive: int, request: int, failed: bool) -> None:
        """A disk request ends; the CPU waits here for the host, if it must (in a replay).  Raises HostError."""
        drives = self.disks.drives
        if drive >= len(drives):
            raise RecordingError(f"the recording has a request of disk number {drive}, of {len(drives)} that are there")
        try:
            drives[drive].complete(request, failed)
        except UnknownRequest as error:
            verified = self.gate.state().get("verified", 0)
            raise ReplayDivergence(verified, self.cpu.icount, str(error)) from error

    def digest(self) -> Digest:
        state = self._small_state()
        state["devices"] |= {f"disk {disk.name}": disk.drive.position() for disk in self.disks.disks}
        return self._parts.digest.take(state)

    # ---- debuggers and monitors

    @property
    def mode(self) -> ReplayMode:
        return self._parts.mode

    def replay_info(self) -> ReplayInfo:
        parts = self._parts
        return ReplayInfo(parts.mode, self.cpu.icount, parts.filename, self.end)

    @property
    def end(self) -> int | None:
        """Replaying: icount of the recording's end, as far as is known now."""
        return self.gate.end_icount

    def set_stops(self, stops: Stops) -> None:
        self.stops = stops
        self.cpu.set_breakpoints(stops.breakpoints)
        self.cpu.set_watchpoints(stops.watchpoints)
        watches = self.device_writes.watch(stops.watchpoints)
        self._board.memory.written = self.device_writes.wrote if watches else None

    def memory_map(self) -> list[MemoryRegion]:
        return list(self._board.memory_map)

    def memory_image(self) -> MemoryImage:
        from timevm.engine.machine.memory_image import take_image

        return take_image(self.cpu, self.ram, self._board.roms, self.dirty)

    def device_states(self) -> dict[str, dict[str, Any]]:
        return {name: device.state() for name, device in self._board.devices.items()}

    # ---- state

    def _small_state(self) -> dict[str, Any]:
        return {"cpu": self.cpu.state(), "clock": self.clock.state(), "devices": self.device_states()}

    def state(self) -> dict[str, Any]:
        """Everything but RAM, as a plain record: also where in the recording this is."""
        request = None if self._request is None else int(self._request)
        return self._small_state() | {
            "drives": {disk.name: disk.drive.state() for disk in self.disks.disks},
            "gate": self.gate.state(),
            "settled": self.settled,
            "request": request,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """RAM has been written by the caller, who named the pages by ``cpu.code_changed``.  Calls nobody (rule 7).

        Raises RecordingError, UserError if the gate cannot go there; then nothing has changed yet.
        """
        self.gate.restore(state["gate"])
        self.clock.restore(state["clock"])
        for name, device in self._board.devices.items():
            device.restore(state["devices"][name])
        for disk in self.disks.disks:
            disk.drive.restore(state["drives"][disk.name])
        self.gate.forget()
        self.cpu.restore(state["cpu"])
        self._board.follow_devices()
        request = state["request"]
        self._request = None if request is None else RequestKind(request)
        self._attended = self.cpu.icount if state["settled"] else -1
        self.restorations += 1
