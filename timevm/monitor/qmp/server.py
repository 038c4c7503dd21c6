"""QMP on a stream: one task reads, one executes in order, two carry events.  Nobody waits for a client that is slow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from timevm.engine.control.port import VmEvent
from timevm.errors import TimevmError
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.commands.dispatch import execute
from timevm.monitor.endpoint import SocketEndpoint, run_endpoint
from timevm.monitor.qmp.session import Answer, Execute, QmpSession

#: requests that wait for their turn before the connection is read no further (QEMU: 8)
QUEUE = 8
#: bytes that may wait for a client before it loses events
MAX_UNREAD = 1 << 18
#: bytes parsed in one go: even the worst garbage then holds up the event loop for milliseconds only
_READ_SIZE = 1 << 12


class _Connection:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: MonitorContext, pretty: bool
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._context = context
        self._session = QmpSession(pretty=pretty)
        self._queue: asyncio.Queue[Answer | Execute | None] = asyncio.Queue(QUEUE)
        self._lost = 0

    async def run(self) -> None:
        """Until the client is gone and what it asked for is answered."""
        with self._context.vm.subscribe() as vm_events, self._context.events.subscribe() as own_events:
            await self._send(self._session.greeting())
            carriers = [
                asyncio.create_task(self._carry(vm_events), name="qmp events of the machine"),
                asyncio.create_task(self._carry(own_events), name="qmp events of jobs"),
            ]
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._read(), name="qmp read")
                    group.create_task(self._answer(), name="qmp answer")
            except* (ConnectionError, BrokenPipeError):
                pass  # the client is gone: nobody is left to be told
            finally:
                for carrier in carriers:
                    carrier.cancel()
                await asyncio.gather(*carriers, return_exceptions=True)

    async def _read(self) -> None:
        while data := await self._reader.read(_READ_SIZE):
            if len(data) == _READ_SIZE or not self._queue.empty():  # it has sent more than was answered
                await self._context.turns.wait()
            with self._context.turns.work():
                steps = self._session.feed(data)
            for step in steps:
                if isinstance(step, Execute) and step.out_of_band:
                    await self._execute(step)
                else:
                    await self._queue.put(step)
        await self._queue.put(None)

    async def _answer(self) -> None:
        while (step := await self._queue.get()) is not None:
            if not self._queue.empty():
                await self._context.turns.wait()
            await self._context.turns.command(self._take(step))

    async def _take(self, step: Answer | Execute) -> None:
        if isinstance(step, Answer):
            await self._send(step.data)
        else:
            await self._execute(step)

    async def _execute(self, step: Execute) -> None:
        try:
            result = await execute(self._context, step.name, step.arguments)
        except TimevmError as failure:
            await self._send(self._session.error(step.request, failure))
        else:
            await self._send(self._session.result(step.request, result))

    async def _send(self, data: bytes) -> None:
        self._tell_what_was_lost()
        self._writer.write(data)
        await self._writer.drain()

    async def _carry(self, events: AsyncIterator[VmEvent]) -> None:
        async for event in events:
            if not self._session.negotiated:
                continue
            if self._writer.transport.get_write_buffer_size() > MAX_UNREAD:
                self._lost += 1
                continue
            self._tell_what_was_lost()
            with suppress(ConnectionError):
                self._writer.write(self._session.event(event))

    def _tell_what_was_lost(self) -> None:
        if self._lost and self._writer.transport.get_write_buffer_size() <= MAX_UNREAD:
            event = VmEvent("TIMEVM_EVENTS_LOST", {"count": self._lost}, time.time())
            self._lost = 0
            self._writer.write(self._session.event(event))


async def qmp_session(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: MonitorContext, *, pretty: bool = False
) -> None:
    """Speak QMP on a connected stream until the client ends it.  The caller closes the stream."""
    await _Connection(reader, writer, context, pretty).run()


async def run_qmp_server(
    endpoint: SocketEndpoint,
    context: MonitorContext,
    listening: Callable[[str | tuple[str, int]], None] | None = None,
) -> None:
    """Serve QMP at ``endpoint`` until cancelled (see ``run_endpoint``)."""

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await qmp_session(reader, writer, context)

    await run_endpoint(endpoint, context, session, listening)
