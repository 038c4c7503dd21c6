"""Where monitors and debuggers listen or connect: unix and TCP sockets, with any number of clients."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from timevm.chardev.address import SocketAddress
from timevm.chardev.streams import serve_device
from timevm.chardev.telnet_stream import TelnetStream
from timevm.errors import HostError, TimevmError

_log = logging.getLogger(__name__)

#: bytes that a stream reads ahead
_READ_AHEAD = 1 << 16
#: clients of one endpoint at a time; who comes then is sent away at once
MOST_CLIENTS = 256
#: seconds in which a client takes what it still gets when the endpoint closes
_CLOSING = 1.0

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Listening = Callable[[str | tuple[str, int]], None]


@dataclass(frozen=True, slots=True)
class SocketEndpoint:
    """One ``-chardev socket``, ``-qmp`` or ``-monitor``.

    Either ``path``, or ``host`` and ``port``, or ``fd`` (a listening or connected socket that was inherited).
    ``server``: listen, otherwise connect.  ``telnet``: as ``telnet:`` on the command line (QEMU then negotiates first).
    ``label`` is the chardev's, e.g. ``compat_monitor0``.  ``reconnect``: seconds between two attempts of a client.
    """

    path: str | None = None
    host: str = ""
    port: str | int | None = None
    fd: int | None = None
    server: bool = True
    telnet: bool = False
    label: str | None = None
    reconnect: float = 0

    @property
    def address(self) -> SocketAddress:
        return SocketAddress(self.path, self.host, self.port, self.fd)

    def description(self) -> str:
        """As ``query-chardev`` shows it."""
        return self.address.describe(server=self.server, telnet=self.telnet)


class EndpointServer:
    """``open`` has the address, ``serve`` the clients.  Also its own line of ``query-chardev``."""

    frontend_open = True

    def __init__(self, endpoint: SocketEndpoint) -> None:
        self.endpoint = endpoint
        self._description = endpoint.description()
        self._listener: socket.socket | None = None
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        #: somebody is or was there
        self.connected = asyncio.Event()

    @property
    def label(self) -> str:
        return self.endpoint.label or ""

    @property
    def filename(self) -> str:
        return self._description if self._clients else f"disconnected:{self._description}"

    async def open(self) -> None:
        """Raises HostError if the address cannot be had."""
        if self.endpoint.server:
            self._listener = await self.endpoint.address.listen()
            return
        try:
            self._connection = await self.endpoint.address.connect()
        except HostError as failure:
            if not self.endpoint.reconnect:
                raise
            _log.info("%s; trying again every %g s", failure, self.endpoint.reconnect)

    def listening_at(self) -> str | tuple[str, int]:
        """Path, or host and port (also where port 0 was asked for).  Of a server that is open."""
        assert self._listener is not None, "not a server that is open"
        name = self._listener.getsockname()
        return name if isinstance(name, str) else (name[0], name[1])

    async def serve(self, handler: Handler) -> None:
        """Until cancelled; a connection that was made (not accepted) is served until its end, if it is not made again.

        ``handler`` speaks with one client; it need not close the streams.
        """
        if self._listener is not None:
            server = await asyncio.start_server(
                lambda reader, writer: self._accept(reader, writer, handler), sock=self._listener, limit=_READ_AHEAD
            )
            async with server:
                await server.serve_forever()
        while not self.endpoint.server:
            if self._connection is not None:
                (reader, writer), self._connection = self._connection, None
                self._accept(reader, writer, handler)
                await asyncio.gather(*self._clients, return_exceptions=True)
            if not self.endpoint.reconnect:
                return
            await asyncio.sleep(self.endpoint.reconnect)
            with suppress(HostError):
                self._connection = await self.endpoint.address.connect()

    async def close(self) -> None:
        """Clients get what is under way to them, if they take it within a second."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self.endpoint.address.forget()
        if self._connection is not None:
            self._connection[1].close()
        tasks = dict(self._clients)
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSING)
            for task in late:
                tasks[task].transport.abort()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
        if len(self._clients) >= MOST_CLIENTS:
            _log.warning("%s: there are %d clients already: one more was sent away", self._description, MOST_CLIENTS)
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, handler), name=self._description)
        self._clients[task] = writer
        task.add_done_callback(self._gone)
        self.connected.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
        try:
            await handler(reader, writer)
        except (OSError, TimevmError) as failure:
            _log.info("%s: %s", self._description, failure)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._clients.pop(task, None)
        if not task.cancelled() and (failure := task.exception()) is not None:
            _log.error("%s: a client's session failed", self._description, exc_info=failure)


def over_telnet(handler: Handler) -> Handler:
    """``handler`` behind a telnet server, for sessions that know nothing of telnet."""

    async def telnet_session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = TelnetStream(reader, writer)
        await stream.open()
        await serve_device(stream, handler)

    return telnet_session
