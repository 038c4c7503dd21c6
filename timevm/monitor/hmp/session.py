"""One client of the human monitor: plain lines at once, the console as soon as it says that it is a terminal."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from timevm.errors import PeerError
from timevm.monitor.commands.context import QEMU_VERSION, MonitorContext
from timevm.monitor.hmp.line import run_hmp_line
from timevm.monitor.hmp.lines import MAX_LINE, Interrupt, Line, LineReader
from timevm.monitor.hmp.table import HmpState
from timevm.monitor.hmp.telnet import IAC, EchoAccepted, TelnetEvent, TelnetServer, TerminalNamed, WindowSized
from timevm.monitor.hmp.terminal import Terminal

if TYPE_CHECKING:
    from timevm.monitor.hmp.console import Console

_log = logging.getLogger(__name__)

#: bytes that may wait for a client before it is dropped
MAX_UNREAD = 1 << 20
#: characters of an answer that are sent before the client is waited for
PIECE = 1 << 16
#: lines that wait for their turn
_QUEUE = 64
_READ_SIZE = 1 << 12
#: terminals without a cursor to move
DUMB_TERMINALS = frozenset({"", "dumb", "unknown", "network", "tty"})


class _Connection:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        context: MonitorContext,
        telnet: bool,
        terminal: Terminal | None,
        state: HmpState | None,
        echo: bool,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._context = context
        self._telnet: TelnetServer | None = TelnetServer() if telnet else None
        self._terminal = terminal or Terminal()
        self._lines = LineReader()
        self._lines.echo = echo
        self._queue: asyncio.Queue[Line | None] = asyncio.Queue(_QUEUE)
        self._state = state or HmpState()
        self._greets = not self._state.greeted
        self._state.greeted = True
        self._console: Console | None = None
        self._wants_console = terminal is not None
        self._busy = False

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                if self._telnet is not None:
                    self._send_raw(self._telnet.offer())
                if self._greets:
                    self._send(self._greeting())
                reading = group.create_task(self._read(), name="hmp read")
                if self._wants_console:
                    self._start_console()
                else:
                    self._send(self._context.prompt)
                self._plain = group.create_task(self._answer(), name="hmp answer")
                self._reading = reading
        except* (ConnectionError, BrokenPipeError):
            pass  # the client is gone: nobody is left to be told
        except* PeerError as spoilt:
            _log.warning("%s", spoilt.exceptions[0])

    def _greeting(self) -> str:
        version = ".".join(map(str, QEMU_VERSION))
        who = f"QEMU {version}" if self._context.prompt.startswith("(qemu)") else "timevm"
        return f"{who} monitor - type 'help' for more information\n"

    # -- out

    def _send_raw(self, data: bytes) -> None:
        if self._writer.transport.get_write_buffer_size() > MAX_UNREAD:
            self._writer.transport.abort()
            raise PeerError("a client of the human monitor does not read: it was dropped")
        self._writer.write(data)

    def _send_bytes(self, data: bytes) -> None:
        self._send_raw(TelnetServer.encode(data) if self._telnet is not None else data)

    def _send(self, text: str) -> None:
        self._send_bytes(text.replace("\n", "\r\n").encode(errors="replace"))

    # -- in

    async def _read(self) -> None:
        while data := await self._reader.read(_READ_SIZE):
            if len(data) == _READ_SIZE or not self._queue.empty():  # it has sent more than was answered
                await self._context.turns.wait()
            if self._telnet is None and data[0] == IAC and len(data) > 1:
                self._telnet = TelnetServer()  # a telnet program that begins by itself
            if self._telnet is None:
                await self._typed(data)
                continue
            for event in self._telnet.feed(data):
                await self._take(event)
            if replies := self._telnet.take_replies():
                self._send_raw(replies)
        if self._console is not None:
            self._console.ended()
        await self._queue.put(None)

    async def _take(self, event: TelnetEvent) -> None:
        match event:
            case bytes():
                await self._typed(event)
            case EchoAccepted():
                self._lines.echo = True
            case WindowSized(columns, rows):
                self._terminal.columns, self._terminal.rows = columns or 80, rows or 24
                self._terminal.resized()
            case TerminalNamed(name):
                if name not in DUMB_TERMINALS and self._console is None and self._queue.empty() and not self._busy:
                    self._terminal.name = name
                    self._start_console()

    async def _typed(self, data: bytes) -> None:
        if self._console is not None:
            self._console.feed(data)
            return
        with self._context.turns.work():
            items = self._lines.feed(data)
        for item in items:
            if isinstance(item, Interrupt):
                if self._busy:
                    await self._context.vm.stop()  # as in the console, it cancels what is under way
                self._send(self._context.prompt)
            else:
                await self._queue.put(item)
        if echo := self._lines.take_echo():
            self._send_bytes(echo)

    # -- the two ways to be

    async def _answer(self) -> None:
        while (line := await self._queue.get()) is not None:
            if not self._queue.empty():
                await self._context.turns.wait()
            self._busy = True
            if line.too_long:
                answer = f"the line is too long: at most {MAX_LINE} bytes\n"
            else:
                if line.text.strip():
                    self._state.history.append(line.text.strip())
                answer = await self._context.turns.command(run_hmp_line(line.text, self._context, self._state))
            self._busy = False
            for start in range(0, len(answer), PIECE):  # megabytes, perhaps: ``info tlb``, ``x/100000x``
                self._send(answer[start : start + PIECE])
                await self._writer.drain()
            self._send(self._context.prompt)
            await self._writer.drain()

    def _start_console(self) -> None:
        from timevm.monitor.hmp.console import Console  # a quarter of a second, for those who have a terminal

        # over the prompt that a plain client would have wanted
        self._send_bytes(b"\r\x1b[K")
        self._console = Console(self._context, self._terminal, self._send_bytes, self._writer.drain, self._state)
        self._group.create_task(self._run_console(self._console), name="hmp console")

    async def _run_console(self, console: Console) -> None:
        await console.run()
        # the user has left (Ctrl-D)
        self._reading.cancel()
        await self._queue.put(None)


async def hmp_session(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    context: MonitorContext,
    *,
    telnet: bool = False,
    terminal: Terminal | None = None,
    state: HmpState | None = None,
    echo: bool = False,
) -> None:
    """Serve the human monitor on a connected stream until the client ends it.  The caller closes the stream.

    ``telnet``: negotiate at once.  ``terminal``: the other end is known to be one (stdio), in raw mode.  ``state``:
    of earlier sessions with the same user (history, formats): then there is no greeting.  ``echo``: the client sees
    only what it is sent, as on a pseudo-terminal.
    """
    await _Connection(reader, writer, context, telnet, terminal, state, echo).run()
