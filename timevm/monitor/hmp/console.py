"""The console for a terminal: prompt_toolkit over any byte stream, with completion, history, toolbar and progress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TextIO, cast

from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.shortcuts import print_formatted_text

from timevm.engine.control.port import VmEvent
from timevm.errors import TimevmError
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.hmp.completion import HmpCompleter, HmpLexer
from timevm.monitor.hmp.errors import HmpError
from timevm.monitor.hmp.line import execute_line
from timevm.monitor.hmp.table import HmpState
from timevm.monitor.hmp.terminal import Terminal
from timevm.monitor.hmp.toolbar import Position, bar, look, toolbar

#: seconds between two looks at the machine for the toolbar
REFRESH = 0.5
#: of the prompt and its toolbar
_ROWS = 2
#: characters of an answer that are written before the terminal is waited for
_PIECE = 1 << 16
_CTRL_C = b"\x03"
_ERASE_LINE = b"\r\x1b[K"


class _Screen:
    """What prompt_toolkit takes for stdout: text becomes bytes on the stream."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def write(self, text: str) -> int:
        self._write(text.replace("\r\n", "\n").replace("\n", "\r\n").encode(errors="replace"))
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("a connection has no terminal of this process")


class _Output(Vt100_Output):
    """Draws the toolbar without asking the terminal where its cursor is: not every client answers that."""

    def get_rows_below_cursor_position(self) -> int:
        return _ROWS


class Console:
    """``run`` until the user leaves; ``feed`` it what the client types."""

    def __init__(
        self,
        context: MonitorContext,
        terminal: Terminal,
        write: Callable[[bytes], None],
        drain: Callable[[], Awaitable[None]],
        state: HmpState,
    ) -> None:
        self._context = context
        self._terminal = terminal
        terminal.resized = self._resized
        self._write = write
        self._drain = drain
        self._input: PipeInput | None = None
        self._early = bytearray()
        self._state = state
        self._position: Position | None = None
        self._registers: list[str] = []
        self._running = False
        #: of a line of others that is not whole yet
        self._others = b""
        #: how far a command is, as it stands in the last line; empty: nothing does
        self._progress_line = b""
        self._stopping: set[asyncio.Task[None]] = set()
        self._session: PromptSession[str] | None = None

    def feed(self, data: bytes) -> None:
        """Typed bytes.  Ctrl-C while a command is under way cancels what the machine does."""
        if self._running and _CTRL_C in data:
            task = asyncio.get_running_loop().create_task(self._context.vm.stop())
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)
            data = data.replace(_CTRL_C, b"")
        if self._input is None:
            self._early += data
        elif data:
            self._input.send_bytes(data)

    def ended(self) -> None:
        """The client will type nothing more."""
        if self._input is not None:
            self._input.close()

    def _resized(self) -> None:
        if self._session is not None and self._session.app.is_running:
            self._session.app._on_resize()

    async def run(self) -> None:
        screen = _Screen(self._write)

        def size() -> Size:
            return Size(rows=self._terminal.rows, columns=self._terminal.columns)

        # _Screen has of TextIO what its parent uses
        output = _Output(cast(TextIO, screen), size, term=self._terminal.name, enable_cpr=False)
        self._registers = await self._context.vm.inspect(
            lambda machine: [register.name for register in machine.registers]
        )
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=output):
            self._input = pipe
            pipe.send_bytes(bytes(self._early))
            session = self._session = PromptSession(
                history=InMemoryHistory(self._state.history),
                completer=HmpCompleter(self._tags, lambda: self._registers),
                lexer=HmpLexer(),
                complete_while_typing=False,
                reserve_space_for_menu=5,
                bottom_toolbar=lambda: toolbar(self._position),
            )
            self._terminal.draws(self._print_above)
            refresher = asyncio.get_running_loop().create_task(self._refresh(session), name="console toolbar")
            try:
                await self._converse(session)
            finally:
                self._terminal.draws(None)
                self._write(self._others)
                self._others = b""
                refresher.cancel()
                await asyncio.gather(refresher, return_exceptions=True)
                self._input = None

    async def _print_above(self, data: bytes) -> None:
        """What others say on the same terminal, in whole lines, so that the prompt stays where it is."""
        lines, newline, self._others = (self._others + data).rpartition(b"\n")
        if newline:
            application = self._session.app if self._session is not None else None
            drawn = application is not None and application.is_running
            if application is not None and drawn:
                application.renderer.erase()
            erase = _ERASE_LINE if self._progress_line else b""
            self._write(erase + lines + newline + self._progress_line)
            if application is not None and drawn:
                application.renderer.reset()
                application._redraw()
            await self._drain()

    def _tags(self) -> tuple[str, ...]:
        return self._position.tags if self._position is not None else ()

    async def _refresh(self, session: PromptSession[str]) -> None:
        while True:
            await self._look()
            if session.app.is_running:
                session.app.invalidate()
            await asyncio.sleep(REFRESH)

    async def _look(self) -> None:
        with suppress(TimevmError):  # timevm is about to end: the last line stays
            self._position = await look(self._context)

    async def _converse(self, session: PromptSession[str]) -> None:
        while True:
            try:
                line = await session.prompt_async(self._context.prompt, handle_sigint=False)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if line.strip():
                await self._execute(line)
                await self._drain()

    async def _execute(self, line: str) -> None:
        self._state.history.append(line)
        self._state.columns = self._terminal.columns
        self._running = True
        with self._context.vm.subscribe() as events:
            progress = asyncio.get_running_loop().create_task(self._progress(events), name="console progress")
            try:
                printed = await execute_line(line, self._context, self._state)
            except HmpError as failure:
                printed = f"\x1b[31m{failure}\x1b[0m\n"
            finally:
                self._running = False
                progress.cancel()
                await asyncio.gather(progress, return_exceptions=True)
        await self._print(printed)
        await self._look()

    async def _print(self, text: str) -> None:
        """Plain text goes to the terminal as it is: prompt_toolkit takes some microseconds a character."""
        if not text.replace("\n", "").isprintable():
            print_formatted_text(ANSI(text), end="")
            return
        for start in range(0, len(text), _PIECE):
            self._write(text[start : start + _PIECE].replace("\n", "\r\n").encode(errors="replace"))
            await self._drain()

    async def _progress(self, events: AsyncIterator[VmEvent]) -> None:
        try:
            async for event in events:
                if event.name == "TIMEVM_PROGRESS":
                    done, total = event.data.get("done", 0), event.data.get("total", 0)
                    text = f"{event.data.get('operation', '')} {bar(done, total)} Ctrl-C cancels"
                    self._progress_line = text.encode()
                    self._write(_ERASE_LINE + self._progress_line)
        finally:
            self._progress_line = b""
            self._write(_ERASE_LINE)
