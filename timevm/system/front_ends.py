"""Monitors and debuggers of a running machine, at the places that the command line gave them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from timevm.chardev.base import Backend
from timevm.chardev.endpoint import EndpointServer, Handler, over_telnet
from timevm.chardev.mux import FrontEnd
from timevm.chardev.streams import serve_device
from timevm.config import Config, Monitor, MonitorMode
from timevm.config.chardevs import gdb_chardev
from timevm.config.model import Backend as AnyBackend
from timevm.config.model import Chardev, Pty, Socket, Stdio
from timevm.engine.control.vm import Vm
from timevm.engine.snapshot.checkpoints import Checkpoints
from timevm.errors import TimevmError
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.hmp.errors import HmpError
from timevm.monitor.hmp.line import run_hmp_line
from timevm.monitor.hmp.session import DUMB_TERMINALS, hmp_session
from timevm.monitor.hmp.table import HmpState
from timevm.monitor.hmp.terminal import Terminal
from timevm.monitor.qmp.server import qmp_session
from timevm.qmp_schema.extension import TimevmCheckpoint, TimevmCheckpoints
from timevm.system.block_monitor import BlockMonitor
from timevm.system.machine_list import machine_list
from timevm.system.network_links import NetworkLinks
from timevm.system.network_list import network_list
from timevm.system.wiring import CharacterDevices, endpoint_of

_log = logging.getLogger(__name__)
#: seconds between two sessions on a device whose peer spoilt the first one
_AGAIN = 0.2

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]


class FrontEnds:
    """``spawn`` begins a task that lasts until the end."""

    def __init__(
        self,
        config: Config,
        vm: Vm,
        devices: CharacterDevices,
        links: NetworkLinks | None,
        spawn: Spawn,
        checkpoints: Checkpoints | None,
    ) -> None:
        self._config = config
        self._vm = vm
        self._devices = devices
        self._spawn = spawn
        self._gdb_at_run_time: tuple[EndpointServer, asyncio.Task[None]] | None = None
        self._gdb_handler: Handler | None = None
        #: of QMP's human-monitor-command and gdb's monitor: a format holds for what comes after it
        self._lines = HmpState()
        self.context = MonitorContext(
            vm,
            machines=machine_list(config.machine.architecture),
            chardevs=list(devices.lines()),
            block=BlockMonitor(vm),
            networks=network_list(config),
            forwarding=links,
            human_monitor=self._human_monitor_line,
            checkpoints=None if checkpoints is None else lambda: checkpoints_of(vm, checkpoints),
            gdb_server=self._command_gdb_server,
            prompt=config.prompt,
            uuid=config.uuid,
        )

    async def _human_monitor_line(self, line: str, context: MonitorContext) -> str:
        return await run_hmp_line(line, context, self._lines)

    def start(self) -> None:
        for monitor in self._config.monitors:
            self._start_monitor(monitor)
        if self._config.gdb is not None:
            self._start(self._config.gdb, self._gdb(), "gdb")

    async def close(self) -> None:
        if self._gdb_at_run_time is not None:
            await self._gdb_at_run_time[0].close()
        await self.context.close()

    def _start_monitor(self, monitor: Monitor) -> None:
        name = monitor.chardev
        if monitor.mode is MonitorMode.CONTROL:

            async def qmp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await qmp_session(reader, writer, self.context, pretty=monitor.pretty)

            self._start(name, qmp, "QMP")
            return
        place = self._devices.session_place(name)
        if isinstance(place, EndpointServer):
            telnet = place.endpoint.telnet

            async def hmp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await hmp_session(reader, writer, self.context, telnet=telnet)

            self._spawn(place.serve(hmp), f"monitor {name}")
        else:
            backend = self._config.chardev(name).backend
            terminal = own_terminal() if isinstance(backend, Stdio) else None
            self._spawn(self._human_monitor(place, terminal, _needs_echo(backend)), f"monitor {name}")

    def _start(self, name: str, handler: Handler, what: str) -> None:
        place = self._devices.session_place(name)
        if isinstance(place, EndpointServer):
            wrapped = over_telnet(handler) if place.endpoint.telnet else handler
            self._spawn(place.serve(wrapped), f"{what} {name}")
        else:
            self._spawn(_serve_for_ever(place, handler), f"{what} {name}")

    async def _human_monitor(self, place: Backend, terminal: Terminal | None, echo: bool) -> None:
        """On a device that is no endpoint; of a shared one, a session for each time that it has the focus."""
        state = HmpState()

        async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hmp_session(reader, writer, self.context, terminal=terminal, state=state, echo=echo)

        if terminal is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, _take_size, terminal)
        if not isinstance(place, FrontEnd):
            await _serve_for_ever(place, session)
            return
        if terminal is not None:
            terminal.draws = place.let_draw
        while (visit := await place.next_visit()) is not None:
            while not visit.over:  # Ctrl-D ends a session: here is the next one
                await _serve_once(visit, session)

    # -- gdb

    def _gdb(self) -> Handler:
        """One server, however many places it has: it serves one debugger at a time."""
        if self._gdb_handler is None:
            from timevm.gdb.server import GdbServer

            server = GdbServer(self._vm, lambda line: run_hmp_line(line, self.context, self._lines))
            self._gdb_handler = server.serve
        return self._gdb_handler

    async def _command_gdb_server(self, device: str) -> str:
        """HMP's ``gdbserver DEVICE``: what it prints (QEMU: ``hmp_gdbserver``)."""
        if device == "none":
            await self._end_gdb()
            return "Disabled gdbserver\n"
        try:
            chardev = gdb_chardev("gdbserver", device, "gdb")
            if not isinstance(chardev, Chardev) or not isinstance(chardev.backend, Socket):
                raise HmpError(f"gdbserver {device}: at run time gdb can be had at tcp:…, telnet:… and unix:… only")
            server = EndpointServer(endpoint_of(chardev, chardev.backend))
            await self._end_gdb()
            await server.open()
        except TimevmError as failure:
            raise HmpError(f"Could not open gdbserver on device '{device}': {failure}") from failure
        self.context.chardevs.append(server)
        handler = over_telnet(self._gdb()) if server.endpoint.telnet else self._gdb()
        self._gdb_at_run_time = server, self._spawn(server.serve(handler), "gdb")
        return f"Waiting for gdb connection on device '{device}'\n"

    async def _end_gdb(self) -> None:
        if self._gdb_at_run_time is not None:
            server, task = self._gdb_at_run_time
            self._gdb_at_run_time = None
            task.cancel()
            self.context.chardevs.remove(server)
            await server.close()
        elif self._config.gdb in self._devices.endpoints:
            await self._devices.endpoints[self._config.gdb].close()


async def _serve_once(device: Backend, session: Handler) -> bool:
    """As ``serve_device``; a session that its peer has spoilt is reported."""
    try:
        return await serve_device(device, session)
    except (TimevmError, OSError) as failure:
        _log.warning("%s: %s", device.description, failure)
        return False


async def _serve_for_ever(device: Backend, session: Handler) -> None:
    while True:
        if await _serve_once(device, session):
            return
        await asyncio.sleep(_AGAIN)


def _needs_echo(backend: AnyBackend) -> bool:
    """Whether somebody types there who sees only what is sent: at a terminal in raw mode, or on telnet."""
    match backend:
        case Pty():
            return True
        case Stdio():
            return os.isatty(0)
        case Socket(telnet=telnet):
            return telnet
        case _:
            return False


async def checkpoints_of(vm: Vm, checkpoints: Checkpoints) -> TimevmCheckpoints:
    found, cost = await vm.inspect(lambda machine: (checkpoints.information(), checkpoints.cost()))
    return TimevmCheckpoints(
        checkpoints=[TimevmCheckpoint(icount=each.icount, bytes=each.bytes) for each in found],
        bytes=cost.bytes,
        budget=cost.budget,
        taken=cost.taken,
        taking_seconds=cost.taking_seconds,
        restored=cost.restored,
        restoring_seconds=cost.restoring_seconds,
    )


def own_terminal() -> Terminal | None:
    """That of standard input and output, if they are one that can move its cursor."""
    name = os.environ.get("TERM", "")
    if not (os.isatty(0) and os.isatty(1)) or name in DUMB_TERMINALS:
        return None
    found = Terminal(name)
    _take_size(found)
    return found


def _take_size(terminal: Terminal) -> None:
    size = os.get_terminal_size(1)
    terminal.columns, terminal.rows = size.columns or 80, size.lines or 24
    terminal.resized()
