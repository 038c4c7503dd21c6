"""Where monitors listen or connect: unix and TCP sockets, with any number of clients."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from timevm.errors import HostError, TimevmError
from timevm.monitor.commands.context import Chardev, MonitorContext

_log = logging.getLogger(__name__)

#: bytes that a stream reads ahead
_READ_AHEAD = 1 << 16

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class SocketEndpoint:
    """One ``-chardev socket``, ``-qmp`` or ``-monitor``.

    Either ``path``, or ``host`` and ``port``, or ``fd`` (a listening or connected socket that was inherited).
    ``server``: listen, otherwise connect.  ``telnet``: as ``telnet:`` on the command line (QEMU then negotiates first).
    ``label`` is the chardev's, e.g. ``compat_monitor0``.
    """

    path: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    fd: int | None = None
    server: bool = True
    telnet: bool = False
    label: str | None = None

    def description(self) -> str:
        """As ``query-chardev`` shows it (QEMU: ``qemu_chr_compute_filename``)."""
        server = ",server=on" if self.server else ""
        if self.path is not None:
            return f"unix:{self.path}{server}"
        if self.fd is not None:
            return f"fd:{self.fd}{server}"
        return f"{'telnet' if self.telnet else 'tcp'}:{self.host}:{self.port}{server}"


class _Clients:
    """Keeps the chardev's line in ``query-chardev`` true, and the tasks of its clients."""

    def __init__(self, endpoint: SocketEndpoint, context: MonitorContext, handler: Handler) -> None:
        self._handler = handler
        self._description = endpoint.description()
        self.tasks: set[asyncio.Task[None]] = set()
        self.chardev = Chardev(endpoint.label or "", f"disconnected:{self._description}", frontend_open=True)
        if endpoint.label is not None:
            context.chardevs.append(self.chardev)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name=self._description)
        self.tasks.add(task)
        task.add_done_callback(self._gone)
        self.chardev.filename = self._description
        return task

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._handler(reader, writer)
        except (OSError, TimevmError) as failure:
            _log.info("%s: %s", self._description, failure)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _gone(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not self.tasks:
            self.chardev.filename = f"disconnected:{self._description}"
        if not task.cancelled() and (failure := task.exception()) is not None:
            _log.error("%s: a client's session failed", self._description, exc_info=failure)

    async def close(self) -> None:
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_endpoint(
    endpoint: SocketEndpoint,
    context: MonitorContext,
    handler: Handler,
    listening: Callable[[str | tuple[str, int]], None] | None = None,
) -> None:
    """Serve until cancelled; a connection that was made (not accepted) serves until its end.

    ``listening`` is told the address as soon as clients can come: path, or host and port (port 0 means any).
    Raises HostError if the address cannot be had.
    """
    clients = _Clients(endpoint, context, handler)
    try:
        if endpoint.server:
            await _listen(endpoint, clients, listening)
        else:
            reader, writer = await _connect(endpoint)
            await clients.accept(reader, writer)
    finally:
        await clients.close()
        if clients.chardev in context.chardevs:
            context.chardevs.remove(clients.chardev)


async def _listen(
    endpoint: SocketEndpoint,
    clients: _Clients,
    listening: Callable[[str | tuple[str, int]], None] | None,
) -> None:
    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.accept(reader, writer)

    try:
        if endpoint.path is not None:
            server = await asyncio.start_unix_server(accept, endpoint.path, limit=_READ_AHEAD)
        elif endpoint.fd is not None:
            inherited = socket.socket(fileno=endpoint.fd)
            server = await asyncio.start_server(accept, sock=inherited, limit=_READ_AHEAD)
        else:
            server = await asyncio.start_server(accept, endpoint.host, endpoint.port, limit=_READ_AHEAD)
    except OSError as failure:
        reason = os.strerror(failure.errno) if failure.errno else str(failure)
        raise HostError(f"Failed to listen on '{endpoint.description()}': {reason}") from failure
    try:
        if listening is not None:
            name = server.sockets[0].getsockname()
            listening(name if isinstance(name, str) else (name[0], name[1]))
        async with server:
            await server.serve_forever()
    finally:
        if endpoint.path is not None:
            with suppress(FileNotFoundError):
                os.unlink(endpoint.path)


async def _connect(endpoint: SocketEndpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        if endpoint.path is not None:
            return await asyncio.open_unix_connection(endpoint.path, limit=_READ_AHEAD)
        if endpoint.fd is not None:
            inherited = socket.socket(fileno=endpoint.fd)
            return await asyncio.open_connection(sock=inherited, limit=_READ_AHEAD)
        return await asyncio.open_connection(endpoint.host, endpoint.port, limit=_READ_AHEAD)
    except OSError as failure:
        where = endpoint.path if endpoint.path is not None else f"{endpoint.host}:{endpoint.port}"
        reason = os.strerror(failure.errno) if failure.errno else str(failure)
        raise HostError(f"Failed to connect to '{where}': {reason}") from failure
