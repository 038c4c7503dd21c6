"""The gdb server on streams: one client is served, others are told that somebody is there already."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from timevm.engine.control.port import VmPort
from timevm.errors import TimevmError
from timevm.gdb import patience
from timevm.gdb.client import BAD_REQUEST, console, error_code
from timevm.gdb.framing import NOTIFICATION, Interrupted, Malformed, Oversized, Packet, pack
from timevm.gdb.link import Link
from timevm.gdb.parse import BadRequest, parse
from timevm.gdb.requests import Ask, Request, lets_go
from timevm.gdb.session import GdbSession, MonitorLine
from timevm.gdb.stop_reply import EXITED
from timevm.gdb.unread import unread

_log = logging.getLogger(__name__)

_READ_SIZE = 1 << 14
#: a notification that tells gdb nothing but that we are there
_NOTHING = b"Timevm:busy"
#: packets that wait for their turn before the connection is read no further
_QUEUE = 64
#: seconds in which the client before may go away; gdb itself waits for two
_SEAT_SECONDS = 1.0
#: answers that a refused client gets, and seconds that it has for asking
_REFUSED_ANSWERS, _REFUSED_SECONDS = 8, 10.0


class _Connection:
    """Two tasks: one reads (and hears Ctrl-C at once), one answers in order."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, vm: VmPort, monitor: MonitorLine | None
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._session = GdbSession(vm, monitor, self)
        self._link = Link()
        self._queue: asyncio.Queue[Packet | Oversized | Malformed | None] = asyncio.Queue(_QUEUE)
        self._unanswered = 0
        #: nothing more comes
        self._ended = False
        #: a request that lets the machine go is under way: the client waits to hear that it stands, or is gone
        self._moves = False
        self._next_nudge: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Until the client is gone, or wants the machine gone."""
        await self._session.open()
        answering = asyncio.create_task(self._answer(), name="gdb answer")
        reading = asyncio.create_task(self._read(), name="gdb read")
        try:
            await asyncio.wait({answering, reading}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and reading.exception() is None and not self._moves:
                await answering  # what was asked before half-closing is answered
        except asyncio.CancelledError:
            if self._moves:
                self._writer.write(self._link.send(EXITED))  # that ends the waiting in order
            raise
        finally:
            self._nudge_no_more()
            for task in (answering, reading):
                task.cancel()
            results = await asyncio.gather(answering, reading, return_exceptions=True)
            await self._session.close()
        for failure in results:
            if isinstance(failure, Exception) and not isinstance(failure, OSError):
                raise failure

    async def _read(self) -> None:
        while data := await self._reader.read(_READ_SIZE):
            arrived = self._link.feed(data)
            if arrived.answer:
                self._writer.write(arrived.answer)
                await self._writer.drain()
            for item in arrived.packets:
                if not isinstance(item, Interrupted):
                    self._unanswered += 1
                    await self._queue.put(item)
                    self._may_give_up()
                elif self._unanswered:
                    self._session.interrupt()
        self._ended = True
        self._may_give_up()
        await self._queue.put(None)

    def _may_give_up(self) -> None:
        """Others may ask ahead; gdb asks when it has the answer, or does not want it any more."""
        if self._session.is_gdb:
            self._session.give_up()

    async def _answer(self) -> None:
        while not self._session.over and (item := await self._queue.get()) is not None:
            request = self._request(item)
            self._moves = request is not None and lets_go(request)
            if self._moves and self._ended:
                return  # nobody would hear of the stop, nor could end it
            if not self._moves:
                self._nudge_in(patience.EVERY / 2)
            answers = [error_code(BAD_REQUEST)] if request is None else await self._session.handle(request)
            self._nudge_no_more()
            self._moves = False
            for answer in answers:
                self._send(answer)
            if request is Ask.NO_ACKNOWLEDGEMENTS:
                self._link.stop_acknowledging()
            self._unanswered -= 1
            if not self._unanswered:
                self._session.forget_interrupt()
            await self._writer.drain()

    def _send(self, payload: bytes) -> None:
        self._writer.write(self._link.send(payload))

    # -- while a request takes its time (patience.Listener)

    def _nudge_in(self, seconds: float) -> None:
        """And again and again: gdb waits two seconds for most answers, unless something comes."""
        self._next_nudge = asyncio.get_running_loop().call_later(seconds, self._nudge_again)

    def _nudge_again(self) -> None:
        self.nudge()
        self._nudge_in(patience.EVERY)

    def _nudge_no_more(self) -> None:
        if self._next_nudge is not None:
            self._next_nudge.cancel()

    def tell(self, text: str) -> None:
        for payload in console(text):
            self._send(payload)

    def nudge(self) -> None:
        if self._session.is_gdb:
            self._writer.write(pack(_NOTHING, NOTIFICATION))

    def reads(self) -> bool:
        connection = self._writer.get_extra_info("socket")
        return not self._session.is_gdb or connection is None or not unread(connection)

    @staticmethod
    def _request(item: Packet | Oversized | Malformed) -> Request | None:
        """None: it makes no sense."""
        if not isinstance(item, Packet):
            return None
        try:
            return parse(item.data)
        except BadRequest as wrong:
            _log.debug("gdb: %s", wrong)
            return None


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """gdb shows the sentence when its ``target remote`` fails."""
    link = Link()
    left = _REFUSED_ANSWERS
    with suppress(OSError):  # a TimeoutError is one, too
        async with asyncio.timeout(_REFUSED_SECONDS):
            while left > 0 and (data := await reader.read(_READ_SIZE)):
                arrived = link.feed(data)
                writer.write(arrived.answer)
                for _ in arrived.packets:
                    writer.write(link.send(b"E.another debugger is connected to this machine"))
                    left -= 1
                await writer.drain()


class GdbServer:
    """``serve`` is a handler for connected streams (``-gdb``, ``-s``, ``gdbserver``); any number may share one server.

    ``monitor`` carries out gdb's ``monitor`` commands; the application plugs the human monitor in.
    """

    def __init__(self, vm: VmPort, monitor: MonitorLine | None = None) -> None:
        self._vm = vm
        self._monitor = monitor
        self._seat = asyncio.Lock()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the client ends it.  The caller closes the stream."""
        try:
            async with asyncio.timeout(_SEAT_SECONDS):
                await self._seat.acquire()
        except TimeoutError:
            _log.info("a second gdb client was refused")
            await _refuse(reader, writer)
            return
        try:
            await _Connection(reader, writer, self._vm, self._monitor).run()
        except TimevmError as failure:
            _log.info("gdb: %s", failure)
        finally:
            self._seat.release()
