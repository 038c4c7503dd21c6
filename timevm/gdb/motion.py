"""Requests that set the machine in motion, and the Ctrl-C that ends them: each becomes one stop reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from timevm.engine.control.port import (
    MachinePort,
    ReplayMode,
    RunEnd,
    RunResult,
    VmEvent,
    VmPort,
    Watchpoint,
)
from timevm.errors import TimevmError, UserError
from timevm.gdb import state_access
from timevm.gdb.client import Client
from timevm.gdb.stop_reply import EXITED, backward_reply, forward_reply, history_begins, stopped
from timevm.gdb.stop_table import StopTable, watch_field
from timevm.gdb.target_description import Architecture

Answer = TypeVar("Answer")

#: bytes of watched memory that a single step compares
_COMPARED = 1 << 16


class Mover:
    """``interrupt`` may come at any time, also before the request that it means has begun."""

    def __init__(self, vm: VmPort, architecture: Architecture) -> None:
        self._vm = vm
        self._architecture = architecture
        self._interrupted = asyncio.Event()
        #: a way back that ends where it began, should the client vanish meanwhile
        self.in_journey = False
        #: the last motion was a reverse one that this watchpoint stopped, at that icount
        self._stepping_over: tuple[Watchpoint, int] | None = None

    def interrupt(self) -> None:
        self._interrupted.set()

    def forget_interrupt(self) -> None:
        """Nothing is under way: what was typed meant what is over."""
        self._interrupted.clear()

    async def interruptible(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Carry out ``work``; an interrupt stops the machine, by which it comes to its end."""
        task = asyncio.ensure_future(work)
        interrupt = asyncio.ensure_future(self._interrupted.wait())
        try:
            await asyncio.wait({task, interrupt}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await self._vm.stop()
            return await task
        finally:
            self._interrupted.clear()
            interrupt.cancel()
            task.cancel()

    # -- forward

    async def go(self, client: Client, table: StopTable) -> list[bytes]:
        self._stepping_over = None
        result = await self.interruptible(self._run())
        return await self._forward(client, result, table, step=False)

    async def step(self, client: Client, table: StopTable, within: tuple[int, int] | None = None) -> list[bytes]:
        """One instruction; with ``within``, on until pc leaves that range (its end excluded)."""
        self._stepping_over = None
        further = None if within is None else self._inside(*within)
        result = await self.interruptible(self._vm.step(further=further))
        return await self._forward(client, result, table, step=True)

    async def _is_leaving(self) -> bool:
        """It was not Ctrl-C that stopped the machine, but its end."""
        try:
            await self._vm.inspect(lambda machine: None)
        except UserError:
            return True
        return False

    def _inside(self, start: int, end: int) -> Callable[[MachinePort], bool]:
        pc = state_access.read_registers((self._architecture.program_counter,))
        return lambda machine: start <= int.from_bytes(pc(machine), "little") < end

    async def _forward(self, client: Client, result: RunResult, table: StopTable, *, step: bool) -> list[bytes]:
        stop = result.stop
        if (
            stop is not None
            and stop.watch is not None
            and not stop.device
            and not self._architecture.watch_stops_before
        ):
            await self._vm.step()
        if result.end is RunEnd.KICKED and await self._is_leaving():
            return [EXITED]
        replaying = self._vm.mode is ReplayMode.PLAY
        return forward_reply(client, result, table, step=step, replaying=replaying)

    async def _run(self) -> RunResult:
        with self._vm.subscribe() as events:
            await self._vm.cont()
            return await _standstill(events)

    # -- backward

    async def _journey(self, work: Coroutine[Any, Any, RunResult]) -> RunResult:
        """Cancelled (the client is gone), it stays under way until ``stop``."""
        self.in_journey = True
        try:
            result = await self.interruptible(work)
        except TimevmError:
            self.in_journey = False
            raise
        self.in_journey = False
        return result

    async def reverse_go(self, client: Client, table: StopTable) -> bytes:
        self._stepping_over = None
        result = await self._journey(self._vm.reverse_continue())
        if result.stop is not None:
            self._expect_step_over(client, table.watch_of(result.stop), result.icount)
        return backward_reply(client, result, table)

    def _expect_step_over(self, client: Client, watch: Watchpoint | None, icount: int) -> None:
        if watch is not None and client.is_gdb and self._architecture.watch_stops_before:
            self._stepping_over = (watch, icount)

    async def reverse_step(self, client: Client, table: StopTable) -> bytes:
        """One instruction back.

        Where gdb takes watchpoints to stop before the access, it steps over the access (it removes the watchpoint and
        says ``bs``) and only then compares.  We stand before the access already, with the old value: that step must
        not lead away from there.
        """
        watched = table.written()
        before, start = await self._vm.inspect(lambda machine: (_contents(machine, watched), machine.icount))
        expected, self._stepping_over = self._stepping_over, None
        if expected is not None and expected[1] == start and expected[0] not in table.stops.watchpoints:
            return stopped(client)
        result = await self._journey(self._vm.reverse_step())
        if result.end is RunEnd.KICKED:
            return backward_reply(client, result, table)
        if result.icount == start:
            return history_begins(client)
        if watched:
            after = await self._vm.inspect(lambda machine: _contents(machine, watched))
            for watch, old, new in zip(watched, after, before, strict=True):
                if old != new:
                    self._expect_step_over(client, watch, result.icount)
                    return stopped(client, reason=watch_field(watch, None))
        return stopped(client)


def _contents(machine: MachinePort, watched: list[Watchpoint]) -> list[bytes]:
    """What the watched memory holds, as far as comparing it is worth while."""
    return [
        state_access.read_memory(watch.address, min(watch.length, _COMPARED), physical=False)(machine)
        for watch in watched
    ]


async def _standstill(events: AsyncIterator[VmEvent]) -> RunResult:
    async for event in events:
        if event.name == "STOP" and event.result is not None:
            return event.result
    raise AssertionError("the machine's events never end")
