"""``Vm``: the machine as everybody above the control floor sees it, on the event loop (``VmPort``)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from timevm.engine.control.cpu_thread import CpuThread, ResetPolicy
from timevm.engine.control.events import EventStream
from timevm.engine.control.messages import (
    Alter,
    Began,
    Ended,
    Failed,
    Halt,
    Inspect,
    Leave,
    Message,
    Motion,
    Progressed,
    Reply,
    Report,
    Run,
    SetReplayBreakpoint,
    SetStops,
    Step,
    Travel,
    WasReset,
)
from timevm.engine.control.port import (
    MachinePort,
    ReplayInfo,
    ReplayMode,
    RunEnd,
    RunResult,
    SnapshotInfo,
    Stops,
    VmEvent,
)
from timevm.engine.control.run_state import NEEDS_RESET, RunState, check_move
from timevm.engine.control.time_travel import Journey, SnapshotStore, TimeTravel
from timevm.engine.replay.events import Event, Request, RequestKind
from timevm.errors import HostError, InternalError, TimevmError, UserError

Answer = TypeVar("Answer")

#: seconds that the CPU thread gets to come to its end
LEAVING = 60.0


@dataclass(frozen=True, slots=True)
class VmDescription:
    """What the command line said about the machine, for those who ask."""

    architecture: str = "aarch64"
    machine_type: str = "virt"
    cpu_type: str = "cortex-a57"
    ram_size: int = 0
    name: str | None = None
    mode: ReplayMode = ReplayMode.NONE


@dataclass(frozen=True, slots=True)
class VmPolicy:
    """``stays``: a replay that is over pauses (somebody can talk to it) and does not end the process."""

    no_reboot: bool = False
    no_shutdown: bool = False
    stays: bool = True


class OverReason(Enum):
    """Why the process shall end."""

    QUIT = "quit"
    GUEST = "guest"
    REPLAY_ENDED = "replay ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Over:
    """The end of the run: the reason, and a sentence if something went wrong."""

    reason: OverReason
    detail: str = ""


class _LoopReply:
    """A ``Reply`` that resolves a future of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()

    def answer(self, value: Any) -> None:
        self._loop.call_soon_threadsafe(self._settle, value, None)

    def fail(self, error: BaseException) -> None:
        self._loop.call_soon_threadsafe(self._settle, None, error)

    def _settle(self, value: Any, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(error)


class Vm:
    """Made on the event loop; ``start`` makes the CPU thread, ``leave`` ends it.  Implements ``VmPort``.

    ``messages`` receives sentences for the user that no event carries on its own (a divergence, a full disk).
    ``congested``, ``run``: see ``CpuThread``.
    """

    def __init__(
        self,
        machine: MachinePort,
        description: VmDescription,
        policy: VmPolicy,
        *,
        time_travel: TimeTravel | None = None,
        snapshots: SnapshotStore | None = None,
        messages: Callable[[str], None] = lambda text: None,
        congested: Callable[[], bool] = lambda: False,
        run: Callable[[int], RunResult] | None = None,
    ) -> None:
        self.name = description.name
        self.architecture = description.architecture
        self.machine_type = description.machine_type
        self.cpu_type = description.cpu_type
        self.ram_size = description.ram_size
        self.mode = description.mode
        self._policy = policy
        self._machine = machine
        self._time_travel = time_travel
        self._snapshots = snapshots
        self._messages = messages
        self._loop = asyncio.get_running_loop()
        self._events = EventStream()
        self._state = RunState.PRELAUNCH
        self._stops = Stops()
        self._resets_asked = 0
        self._left = False
        #: done when the process shall end
        self.over: asyncio.Future[Over] = self._loop.create_future()
        replaying = self.mode is ReplayMode.PLAY
        self._thread = CpuThread(
            machine,
            lambda report: self._call_soon(self._take, report),
            ResetPolicy(
                restart=not policy.no_reboot,
                finish=not replaying and not (policy.no_shutdown and self.mode is ReplayMode.NONE),
            ),
            congested,
            run,
        )

    # -- life

    def start(self) -> None:
        """The CPU thread begins to listen; the machine stands until ``cont``."""
        self._thread.start()

    async def leave(self, reason: str) -> None:
        """End the recording (``reason`` goes into its end mark) and the CPU thread.  Idempotent.

        Raises HostError if the recording could not be written to its end.
        """
        if self._left:
            return
        self._left = True
        replaying = self.mode is ReplayMode.PLAY
        reply = self._reply()
        self._thread.post(Leave(None if replaying else reason, reply))
        try:
            await reply.future
        finally:
            if not await asyncio.to_thread(self._thread.join, LEAVING):
                raise InternalError("the CPU thread did not end: the process ends without it")

    def inject(self, event: Event) -> None:
        """Any thread: something from outside for the machine.  Raises ``LiveInputRefused`` in a replay."""
        self._machine.inject(event)

    # -- what VmPort promises

    @property
    def run_state(self) -> RunState:
        return self._state

    @property
    def stops(self) -> Stops:
        return self._stops

    async def cont(self, limit: int | None = None) -> None:
        if self._state is RunState.RUNNING:
            return
        self._check_fit_to_run()
        self._set_running()
        self._post(Run(limit))

    async def stop(self) -> None:
        if self._state is RunState.RUNNING:
            await self._ask(Halt)

    async def step(self, count: int = 1, further: Callable[[MachinePort], bool] | None = None) -> RunResult:
        if count < 1:
            raise UserError("the number of steps must be at least 1")
        self._check_fit_to_run()
        self._set_running()
        result: RunResult = await self._ask(lambda reply: Step(count, reply, further))
        return result

    async def seek(self, icount: int) -> RunResult:
        timeline = self._timeline("replay must be enabled to seek")
        if icount < 0:
            raise UserError("cannot seek to the specified instruction count")
        return await self._travel(Motion.SEEK, lambda journey: timeline.seek(icount, journey))

    async def reverse_step(self, count: int = 1) -> RunResult:
        timeline = self._timeline("replay must be enabled to step back")
        if count < 1:
            raise UserError("the number of steps must be at least 1")
        return await self._travel(Motion.REVERSE, lambda journey: timeline.reverse_step(count, journey))

    async def reverse_continue(self) -> RunResult:
        timeline = self._timeline("replay must be enabled to run backwards")
        stops = self._stops
        return await self._travel(Motion.REVERSE, lambda journey: timeline.reverse_continue(stops, journey))

    async def find_last(self, stops: Stops) -> RunResult:
        timeline = self._timeline("replay must be enabled to run backwards")
        found: list[RunResult] = []

        def look(journey: Journey) -> RunResult:
            result = timeline.find_last(stops, journey)
            if result.end is not RunEnd.KICKED:
                found.append(result)
            return RunResult(RunEnd.KICKED, self._machine.icount)

        stands = await self._travel(Motion.SEEK, look)
        return found[0] if found else stands

    async def system_reset(self) -> None:
        if self.mode is ReplayMode.NONE and self._state is not RunState.RUNNING:
            await self._ask(lambda reply: Alter(lambda machine: machine.reset(), reply))
            self._events.send("RESET", {"guest": False, "reason": "host-qmp-system-reset"})
            if self._state in NEEDS_RESET:
                self._set_state(RunState.PRELAUNCH if self._state is RunState.SHUTDOWN else RunState.PAUSED)
            return
        if self._state is RunState.SHUTDOWN:
            raise UserError("the recording ended with the power-off: start timevm again to make another one")
        self.inject(Request(RequestKind.RESET))
        self._resets_asked += 1

    async def system_powerdown(self) -> None:
        if self._state in NEEDS_RESET:
            return
        self.inject(Request(RequestKind.POWERDOWN))
        self._events.send("POWERDOWN")

    async def quit(self) -> None:
        self.end(Over(OverReason.QUIT, "host-qmp-quit"))

    def end(self, over: Over) -> None:
        """The process shall end; the first reason counts."""
        if not self.over.done():
            self.over.set_result(over)

    async def set_stops(self, stops: Stops) -> None:
        self._stops = stops
        await self._ask(lambda reply: SetStops(stops, reply))

    async def set_replay_breakpoint(self, icount: int | None) -> None:
        if self.mode is not ReplayMode.PLAY:
            if icount is None:
                raise UserError("replay breakpoints are allowed only in play mode")
            raise UserError("setting the breakpoint is allowed only in play mode")
        if icount is not None and icount < (await self.replay_info()).icount:
            raise UserError("cannot set breakpoint at the instruction in the past")
        await self._ask(lambda reply: SetReplayBreakpoint(icount, reply))

    async def replay_info(self) -> ReplayInfo:
        return await self.inspect(lambda machine: machine.replay_info())

    async def inspect(self, look: Callable[[MachinePort], Answer]) -> Answer:
        answer: Answer = await self._ask(lambda reply: Inspect(look, reply))
        return answer

    async def save_snapshot(self, tag: str | None) -> SnapshotInfo:
        store = self._store()
        info: SnapshotInfo = await self._ask(lambda reply: Alter(lambda machine: store.save(tag), reply))
        return info

    async def load_snapshot(self, tag: str) -> None:
        store = self._store()
        await self._ask(lambda reply: Alter(lambda machine: store.load(tag), reply))
        if self._state in NEEDS_RESET | {RunState.GUEST_PANICKED, RunState.IO_ERROR}:
            self._set_state(RunState.PAUSED)

    async def delete_snapshot(self, tag: str) -> None:
        store = self._store()
        await self._ask(lambda reply: Alter(lambda machine: store.delete(tag), reply))

    async def snapshots(self) -> list[SnapshotInfo]:
        store = self._store()
        found: list[SnapshotInfo] = await self._ask(lambda reply: Alter(lambda machine: store.list(), reply))
        return found

    def subscribe(self) -> AbstractContextManager[AsyncIterator[VmEvent]]:
        return self._events.subscribe()

    def announce(self, name: str, data: dict[str, Any]) -> None:
        """An event that somebody else has to tell (``SHUTDOWN`` by a signal)."""
        self._events.send(name, data)

    # -- asking the CPU thread

    def _reply(self) -> _LoopReply:
        return _LoopReply(self._loop)

    def _post(self, message: Message) -> None:
        if self._left:
            raise UserError("timevm is about to end")
        self._thread.post(message)

    async def _ask(self, message: Callable[[Reply], Message]) -> Any:
        reply = self._reply()
        self._post(message(reply))
        return await reply.future

    async def _travel(self, motion: Motion, travel: Callable[[Journey], RunResult]) -> RunResult:
        self._set_running()
        result: RunResult = await self._ask(lambda reply: Travel(motion, travel, reply))
        return result

    def _timeline(self, refusal: str) -> TimeTravel:
        if self.mode is not ReplayMode.PLAY or self._time_travel is None:
            raise UserError(refusal)
        return self._time_travel

    def _store(self) -> SnapshotStore:
        if self._snapshots is None:
            raise UserError("no block device can store vmstate for snapshot")
        return self._snapshots

    def _check_fit_to_run(self) -> None:
        if self._state in NEEDS_RESET:
            raise UserError("Resetting the Virtual Machine is required")

    # -- what the CPU thread reports

    def _call_soon(self, function: Callable[[Report], None], report: Report) -> None:
        self._loop.call_soon_threadsafe(function, report)

    def _take(self, report: Report) -> None:
        match report:
            case Began():
                self._set_running()
            case Ended(motion, result):
                self._take_end(motion, result)
            case Failed(error, icount):
                self._take_failure(error, icount)
            case WasReset():
                by_host = self._resets_asked > 0
                self._resets_asked -= by_host
                reason = "host-qmp-system-reset" if by_host else "guest-reset"
                self._events.send("RESET", {"guest": not by_host, "reason": reason})
            case Progressed(operation, done, total):
                self._events.send("TIMEVM_PROGRESS", {"operation": operation, "done": done, "total": total})

    def _take_end(self, motion: Motion, result: RunResult) -> None:
        replaying = self.mode is ReplayMode.PLAY
        match result.end:
            case RunEnd.POWERED_OFF | RunEnd.RESET | RunEnd.QUIT | RunEnd.RECORDING_ENDED if replaying:
                self._take_end_of_replay(result)
            case RunEnd.POWERED_OFF | RunEnd.RESET | RunEnd.QUIT:
                self._take_shutdown(result)
            case RunEnd.GUEST_PANICKED:
                self._events.send("GUEST_PANICKED", {"action": "pause"})
                self._stand(RunState.GUEST_PANICKED, result)
            case RunEnd.GUEST_ERROR:
                self._messages(result.detail or "the guest cannot go on")
                self._stand(RunState.INTERNAL_ERROR, result)
                self._end_if_alone(Over(OverReason.FAILED))
            case RunEnd.DEBUG:
                self._stand(RunState.DEBUG, result)
            case RunEnd.LIMIT if motion in (Motion.STEP, Motion.REVERSE):
                self._stand(RunState.DEBUG, result)
            case _:
                self._stand(RunState.PAUSED, result)

    def _take_end_of_replay(self, result: RunResult) -> None:
        if result.end is RunEnd.RECORDING_ENDED and result.detail:
            self._messages(result.detail)
        self._stand(RunState.PAUSED, result)
        self._end_if_alone(Over(OverReason.REPLAY_ENDED))

    def _take_shutdown(self, result: RunResult) -> None:
        reason = "guest-reset" if result.end is RunEnd.RESET else "guest-shutdown"
        self._events.send("SHUTDOWN", {"guest": True, "reason": reason})
        if self._policy.no_shutdown:
            self._stand(RunState.SHUTDOWN, result)
        else:
            self._set_state(RunState.SHUTDOWN)
            self.end(Over(OverReason.GUEST))

    def _take_failure(self, error: TimevmError, icount: int) -> None:
        self._messages(str(error))
        state = RunState.IO_ERROR if isinstance(error, HostError) else RunState.INTERNAL_ERROR
        self._stand(state, RunResult(RunEnd.GUEST_ERROR, icount, str(error)))
        self._end_if_alone(Over(OverReason.FAILED))

    def _end_if_alone(self, over: Over) -> None:
        if not self._policy.stays:
            self.end(over)

    # -- the run state

    def _set_state(self, state: RunState) -> None:
        if state is not self._state:
            check_move(self._state, state)
            self._state = state

    def _set_running(self) -> None:
        if self._state is not RunState.RUNNING:
            self._set_state(RunState.RUNNING)
            self._events.send("RESUME")

    def _stand(self, state: RunState, result: RunResult) -> None:
        was_running = self._state is RunState.RUNNING
        self._set_state(state)
        if was_running:
            self._events.send("STOP", result=result)
