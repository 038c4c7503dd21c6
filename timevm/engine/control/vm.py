"""``Vm``: the machine as everybody above the control floor sees it, on the event loop (``VmPort``)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from timevm.engine.control.cpu_thread import CpuThread, ResetPolicy
from timevm.engine.control.messages import (
    Alter,
    Halt,
    Inspect,
    Leave,
    Message,
    Motion,
    Reply,
    Report,
    Run,
    SetReplayBreakpoint,
    SetStops,
    Step,
    Travel,
)
from timevm.engine.control.policy import Over, OverReason, VmPolicy
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
from timevm.engine.control.run_state import NEEDS_RESET, RunState
from timevm.engine.control.standing import Standing
from timevm.engine.control.time_travel import Journey, LookBack, SnapshotStore, TimeTravel
from timevm.engine.replay.events import Event, Request, RequestKind
from timevm.errors import InternalError, UserError

__all__ = ["Over", "OverReason", "Vm", "VmDescription", "VmPolicy"]

Answer = TypeVar("Answer")

#: seconds after which somebody who waits for the machine's end is told so, and that the CPU thread gets to end after it
PATIENCE, LEAVING = 10.0, 60.0


@dataclass(frozen=True, slots=True)
class VmDescription:
    """What the command line said about the machine, for those who ask."""

    architecture: str = "aarch64"
    machine_type: str = "virt"
    cpu_type: str = "cortex-a57"
    ram_size: int = 0
    name: str | None = None
    mode: ReplayMode = ReplayMode.NONE


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
        look_back: LookBack | None = None,
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
        self._machine = machine
        self._time_travel = time_travel
        self._look_back = look_back
        self._snapshots = snapshots
        self._loop = asyncio.get_running_loop()
        self._messages = messages
        self._standing = Standing(description.mode, policy, messages, self.end)
        self._stops = Stops()
        self._left = False
        #: done when the process shall end
        self.over: asyncio.Future[Over] = self._loop.create_future()
        replaying = self.mode is ReplayMode.PLAY
        self._thread = CpuThread(
            machine,
            lambda report: self._call_soon(self._standing.take, report),
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
            if not (await asyncio.wait((reply.future,), timeout=PATIENCE))[0]:  # a savevm onto a slow disk, say
                self._messages("waiting for what the machine is doing to end (two more signals end timevm at once)")
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
        return self._standing.state

    @property
    def mode(self) -> ReplayMode:
        return self._standing.mode

    @property
    def stops(self) -> Stops:
        return self._stops

    async def cont(self, limit: int | None = None) -> None:
        if self.run_state is RunState.RUNNING:
            return
        self._check_fit_to_run()
        self._standing.run()
        self._post(Run(limit))

    async def stop(self) -> None:
        if self.run_state is RunState.RUNNING:
            await self._ask(Halt)

    async def step(self, count: int = 1, further: Callable[[MachinePort], bool] | None = None) -> RunResult:
        if count < 1:
            raise UserError("the number of steps must be at least 1")
        self._check_fit_to_run()
        self._standing.run()
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

    async def review(self, count: int, look: Callable[[MachinePort, int], Answer]) -> list[Answer]:
        timeline = self._timeline("replay must be enabled to look at what was executed")
        if count < 1:
            raise UserError("count must be at least 1")
        seen: list[Answer] = []

        def travel(journey: Journey) -> RunResult:
            return timeline.review(count, lambda pc: seen.append(look(self._machine, pc)), journey)

        if (await self._travel(Motion.SEEK, travel)).end is RunEnd.KICKED:
            raise UserError("interrupted: the machine is where it was")
        return seen

    async def look_back(self) -> RunResult:
        if self.mode is ReplayMode.PLAY:
            raise UserError("the machine is replaying already: it can go back as it is")
        if self.mode is ReplayMode.NONE:
            raise UserError("there is nothing to look back at: start timevm with -icount shift=…,rr=record,rrfile=…")
        if self._look_back is None:
            raise UserError("this recording cannot be looked back at: end it, and replay it")
        turn = self._look_back
        await self.stop()
        here = (await self.replay_info()).icount
        stands: int = await self._ask(lambda reply: Alter(lambda machine: turn.look_back(), reply))
        self._standing.mode = ReplayMode.PLAY
        if self.run_state is RunState.SHUTDOWN:
            self._standing.move(RunState.PAUSED)
        return RunResult(RunEnd.LIMIT, here) if stands == here else await self.seek(here)

    async def system_reset(self) -> None:
        if self.mode is ReplayMode.NONE and self.run_state is not RunState.RUNNING:
            await self._ask(lambda reply: Alter(lambda machine: machine.reset(), reply))
            self._standing.events.send("RESET", {"guest": False, "reason": "host-qmp-system-reset"})
            if self.run_state in NEEDS_RESET:
                self._standing.move(RunState.PRELAUNCH if self.run_state is RunState.SHUTDOWN else RunState.PAUSED)
            return
        if self.run_state is RunState.SHUTDOWN:
            raise UserError("the recording ended with the power-off: start timevm again to make another one")
        self.inject(Request(RequestKind.RESET))
        self._standing.resets_asked += 1

    async def system_powerdown(self) -> None:
        if self.run_state in NEEDS_RESET:
            return
        self.inject(Request(RequestKind.POWERDOWN))
        self._standing.events.send("POWERDOWN")

    async def inject_nmi(self) -> None:
        if not self._machine.takes_nmi:
            raise UserError("this feature or command is not currently supported")
        if self.run_state not in NEEDS_RESET:
            self.inject(Request(RequestKind.NMI))

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

    async def inspect(self, look: Callable[[MachinePort], Answer], *, arrived: bool = False) -> Answer:
        answer: Answer = await self._ask(lambda reply: (Alter if arrived else Inspect)(look, reply))
        return answer

    async def save_snapshot(self, tag: str | None) -> SnapshotInfo:
        store = self._store()
        info: SnapshotInfo = await self._ask(lambda reply: Alter(lambda machine: store.save(tag), reply))
        return info

    async def load_snapshot(self, tag: str) -> None:
        store = self._store()
        await self._ask(lambda reply: Alter(lambda machine: store.load(tag), reply))
        if self.run_state in NEEDS_RESET | {RunState.GUEST_PANICKED, RunState.IO_ERROR}:
            self._standing.move(RunState.PAUSED)

    async def delete_snapshot(self, tag: str) -> None:
        store = self._store()
        await self._ask(lambda reply: Alter(lambda machine: store.delete(tag), reply))

    async def snapshots(self) -> list[SnapshotInfo]:
        store = self._store()
        found: list[SnapshotInfo] = await self._ask(lambda reply: Alter(lambda machine: store.list(), reply))
        return found

    def subscribe(self) -> AbstractContextManager[AsyncIterator[VmEvent]]:
        return self._standing.events.subscribe()

    def announce(self, name: str, data: dict[str, Any]) -> None:
        """An event that somebody else has to tell (``SHUTDOWN`` by a signal)."""
        self._standing.events.send(name, data)

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
        self._standing.run()
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
        if self.run_state in NEEDS_RESET:
            raise UserError("Resetting the Virtual Machine is required")

    def _call_soon(self, function: Callable[[Report], None], report: Report) -> None:
        self._loop.call_soon_threadsafe(function, report)
