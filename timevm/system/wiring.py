"""Character devices of the command line → open backends and endpoints, and who uses which."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass

from timevm.chardev.address import SocketAddress
from timevm.chardev.base import Backend
from timevm.chardev.endpoint import EndpointServer, SocketEndpoint
from timevm.chardev.logged import LoggedBackend
from timevm.chardev.mux import FrontEnd, Mux
from timevm.chardev.plain import FileBackend, NullBackend, PipeBackend, RingbufBackend, StdioBackend
from timevm.chardev.pty import PtyBackend
from timevm.chardev.socket import SocketBackend
from timevm.config import Chardev, Config
from timevm.config.model import File, Null, Pipe, Pty, Ringbuf, Socket, Stdio
from timevm.errors import UserError


@dataclass(slots=True)
class Line:
    """A line of ``query-chardev`` for a device that is no endpoint (``ChardevPort``)."""

    label: str
    backend: Backend
    frontend_open: bool

    @property
    def filename(self) -> str:
        return self.backend.description


class CharacterDevices:
    """Every ``-chardev`` once.  ``open`` them, hand them out, ``close`` them last of all.

    A socket that only a monitor or debugger uses is an endpoint: any number of clients, each with a session of its own.
    Everything else is a backend: one peer at a time.  ``leave`` is called for Ctrl-A x.
    """

    def __init__(self, config: Config, leave: Callable[[], None]) -> None:
        self._config = config
        self._leave = leave
        serial = {name for name in config.serial if name is not None}
        sessions = {monitor.chardev for monitor in config.monitors}
        if config.gdb is not None:
            sessions.add(config.gdb)
        self.endpoints: dict[str, EndpointServer] = {}
        self.backends: dict[str, Backend] = {}
        self.muxes: dict[str, Mux] = {}
        self._sockets: dict[str, SocketBackend] = {}
        self._stdio: StdioBackend | None = None
        self._used = serial | sessions
        for chardev in config.chardevs:
            if isinstance(chardev.backend, Socket) and chardev.identifier in sessions - serial and not chardev.mux:
                self.endpoints[chardev.identifier] = EndpointServer(endpoint_of(chardev, chardev.backend))
            else:
                self._add_backend(chardev)
        #: users in the order of Ctrl-A c: serial ports, then monitors, then gdb
        self.serial = [None if name is None else self._front_end(name) for name in config.serial]
        # sessions begin later; what is typed until then waits for them
        names = [monitor.chardev for monitor in config.monitors] + [name for name in (config.gdb,) if name is not None]
        self._shared = [(name, self.muxes[name].front_end()) for name in names if name in self.muxes]

    def _add_backend(self, chardev: Chardev) -> None:
        backend = self._backend(chardev)
        if chardev.logfile is not None:
            backend = LoggedBackend(backend, chardev.logfile, append=chardev.log_append)
        self.backends[chardev.identifier] = backend
        if chardev.mux:
            who = "QEMU" if self._config.prompt.startswith("(qemu)") else "timevm"
            self.muxes[chardev.identifier] = Mux(
                backend, escape=self._config.escape, leave=self._leave, farewell=f"{who}: Terminated"
            )

    def _backend(self, chardev: Chardev) -> Backend:
        match chardev.backend:
            case Stdio(signal):
                self._stdio = StdioBackend(signals=signal)
                return self._stdio
            case File(path, append, input_path):
                return FileBackend(path, append=append, input_path=input_path)
            case Pipe(path):
                return PipeBackend(path)
            case Pty(path):
                return PtyBackend(path)
            case Ringbuf(size):
                return RingbufBackend(size)
            case Socket() as wanted:
                socket = self._sockets[chardev.identifier] = SocketBackend(
                    SocketAddress(_text(wanted), wanted.host, wanted.port, wanted.fd),
                    server=wanted.server,
                    telnet=wanted.telnet,
                    nodelay=wanted.nodelay,
                    reconnect=wanted.reconnect,
                )
                return socket
            case Null():
                return NullBackend()

    def _front_end(self, name: str) -> Backend:
        return self.muxes[name].front_end() if name in self.muxes else self.backends[name]

    def session_place(self, name: str) -> EndpointServer | FrontEnd | Backend:
        """Where a monitor or gdb is to speak.  Ask once for each, monitors in their order, then gdb."""
        for index, (shared, front_end) in enumerate(self._shared):
            if shared == name:
                del self._shared[index]
                return front_end
        return self.endpoints.get(name) or self.backends[name]

    def lines(self) -> list[Line | EndpointServer]:
        """For ``query-chardev``; of a shared device QEMU lists the terminal itself as ``NAME-base``."""
        lines: list[Line | EndpointServer] = []
        bases: list[Line | EndpointServer] = []
        for chardev in self._config.chardevs:
            name = chardev.identifier
            if name in self.endpoints:
                lines.append(self.endpoints[name])
            elif name in self.muxes:
                lines.append(Line(name, FrontEnd(self.muxes[name]), True))
                bases.append(Line(f"{name}-base", self.backends[name], True))
            else:
                lines.append(Line(name, self.backends[name], name in self._used))
        return lines + bases

    async def open(self) -> None:
        """All addresses and files are had, nobody is waited for.  Raises HostError; then nothing is left open."""
        try:
            for endpoint in self.endpoints.values():
                await endpoint.open()
            for name, backend in self.backends.items():
                await backend.open()
                inner = backend.inner if isinstance(backend, LoggedBackend) else backend
                if isinstance(inner, PtyBackend):
                    print(f"char device redirected to {inner.device} (label {name})", flush=True)
        except BaseException:
            await self.close()
            raise

    @property
    def waits(self) -> bool:
        """Whether a peer is waited for (``wait=on``)."""
        return any(isinstance(chardev.backend, Socket) and chardev.backend.wait for chardev in self._config.chardevs)

    async def wait_for_peers(self) -> None:
        """``wait=on``: one after the other, in the order of the command line, as QEMU does."""
        for chardev in self._config.chardevs:
            if not (isinstance(chardev.backend, Socket) and chardev.backend.wait):
                continue
            name = chardev.identifier
            place = self.endpoints.get(name) or self._sockets[name]
            shown = place.filename if isinstance(place, EndpointServer) else place.description
            print(
                f"{self._config.program}: {chardev.option}: info: QEMU waiting for connection on: {shown}",
                file=sys.stderr,
                flush=True,
            )
            if isinstance(place, EndpointServer):
                await place.connected.wait()
            else:
                await place.first_peer()

    def continued(self) -> None:
        """The process was stopped and goes on: the shell has had the terminal meanwhile."""
        if self._stdio is not None:
            self._stdio.make_raw()

    async def close(self) -> None:
        """Idempotent."""
        closing = [endpoint.close() for endpoint in self.endpoints.values()]
        closing += [backend.close() for backend in self.backends.values()]
        await asyncio.gather(*closing)


def _text(socket: Socket) -> str | None:
    return None if socket.path is None else str(socket.path)


def endpoint_of(chardev: Chardev, socket: Socket) -> SocketEndpoint:
    """Raises UserError."""
    if chardev.logfile is not None:
        raise UserError(f"{chardev.option}: a monitor's or debugger's socket keeps no logfile in this version")
    return SocketEndpoint(
        path=_text(socket),
        host=socket.host,
        port=socket.port,
        fd=socket.fd,
        server=socket.server,
        telnet=socket.telnet,
        label=chardev.identifier,
        reconnect=socket.reconnect,
    )
