"""Dumps of the guest's memory: one at a time, each to its end, whether or not somebody waits for it."""

from __future__ import annotations

import asyncio

from timevm.engine.control.events import EventStream
from timevm.engine.control.looks import CoreDump, DumpRequest
from timevm.engine.control.port import VmPort
from timevm.monitor.commands.errors import CommandError
from timevm.qmp_schema.dump import DumpCompletedData, DumpQueryResult, DumpStatus


class Dumps:
    """The latest dump of a process, and how far it is."""

    def __init__(self, vm: VmPort, events: EventStream) -> None:
        self._vm = vm
        self._events = events
        self._status = DumpStatus.NONE
        self._latest: CoreDump | None = None
        self._task: asyncio.Task[None] | None = None

    def information(self) -> DumpQueryResult:
        latest = self._latest
        return DumpQueryResult(
            status=self._status,
            completed=0 if latest is None else latest.completed,
            total=0 if latest is None else latest.total,
        )

    def check_idle(self) -> None:
        """Raises CommandError while a dump is under way."""
        if self._status is DumpStatus.ACTIVE:
            raise CommandError("There is a dump in process, please wait.")

    async def take(self, request: DumpRequest, *, detach: bool) -> None:
        """Returns when it is done, or, ``detach``, when it has begun.  Raises TimevmError."""
        self.check_idle()
        loop = asyncio.get_running_loop()
        begun = asyncio.Event()

        def has_begun() -> None:
            loop.call_soon_threadsafe(begun.set)

        dump = self._latest = CoreDump(request, has_begun)
        self._status = DumpStatus.ACTIVE
        task = self._task = loop.create_task(
            self._vm.inspect(dump.take, arrived=True), name=f"dump to {request.filename}"
        )
        task.add_done_callback(lambda task: self._ended(dump, task))
        if detach:
            beginning = loop.create_task(begun.wait())
            try:
                await asyncio.wait((beginning, task), return_when=asyncio.FIRST_COMPLETED)
            finally:
                has_not_begun = beginning.cancel()
            if not has_not_begun:
                return
        # it goes on if who asked for it goes away
        await asyncio.shield(task)

    def _ended(self, dump: CoreDump, task: asyncio.Task[None]) -> None:
        """A failure is told to whoever waits; perhaps nobody does."""
        failure = CommandError("dump: cancelled") if task.cancelled() else task.exception()
        self._status = DumpStatus.COMPLETED if failure is None else DumpStatus.FAILED
        if dump.has_begun:
            error = None if failure is None else str(failure)
            self._events.send("DUMP_COMPLETED", DumpCompletedData(result=self.information(), error=error).on_wire())

    def cancel(self) -> None:
        """End a dump that is under way: no file is left of it."""
        if self._latest is not None:
            self._latest.cancel()

    async def close(self) -> None:
        self.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
