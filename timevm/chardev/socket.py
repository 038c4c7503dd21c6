"""A socket as a character device: one peer at a time, as in QEMU; the next one waits until the first has gone."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from timevm.chardev.address import SocketAddress
from timevm.chardev.base import CHUNK
from timevm.chardev.telnet import TelnetCodec
from timevm.errors import HostError

_log = logging.getLogger(__name__)
Result = TypeVar("Result")

#: bytes that wait for a peer before the sender does
_UNSENT = 1 << 16
#: seconds to wait when a client could not be accepted
_AFTER_FAILURE = 0.5


class SocketBackend:
    """``server``: listen, otherwise connect.

    ``reconnect``: seconds between two attempts to connect, 0: one attempt.  ``telnet``: negotiate as its server does.
    """

    def __init__(
        self,
        address: SocketAddress,
        *,
        server: bool,
        telnet: bool = False,
        nodelay: bool = True,
        reconnect: float = 0,
    ) -> None:
        self._address = address
        self._server, self._telnet = server, telnet
        self._nodelay, self._reconnect = nodelay, reconnect
        self._connected = address.describe(server=server, telnet=telnet)
        self.description = f"disconnected:{self._connected}"
        self._listener: socket.socket | None = None
        self._peer: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._codec = TelnetCodec(server=False)
        self._closed = asyncio.Event()

    @property
    def port(self) -> int:
        """Of a TCP server that listens, also where port 0 was asked for."""
        assert self._listener is not None, "not a server that listens"
        port: int = self._listener.getsockname()[1]
        return port

    async def open(self) -> None:
        if self._server:
            self._listener = await self._address.listen()
            return
        try:
            self._take(*await self._address.connect())
        except HostError as failure:
            if not self._reconnect:
                raise
            _log.info("%s; trying again every %g s", failure, self._reconnect)

    async def first_peer(self) -> None:
        """Wait for somebody to connect (``wait=on``)."""
        while self._peer is None and not self._closed.is_set():
            await self._find_peer()

    async def receive(self) -> bytes:
        while not self._closed.is_set():
            if self._peer is None and not await self._find_peer():
                return b""
            if self._peer is None:
                continue
            reader, _ = self._peer
            try:
                wire = await reader.read(CHUNK)
            except OSError:
                self._drop()
                continue
            if not wire:
                self._drop(flush=True)
                continue
            data = self._codec.feed(wire) if self._telnet else wire
            await self._reply()
            if data:
                return data
        return b""

    async def send(self, data: bytes) -> None:
        await self._write(TelnetCodec.encode(data) if self._telnet else data)

    async def close(self) -> None:
        self._closed.set()
        self._drop(flush=True)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self._address.forget()

    async def _find_peer(self) -> bool:
        """Accept or connect; False if there will be no peer any more."""
        if self._listener is not None:
            await self._accept(self._listener)
            return True
        if not self._reconnect:
            return False
        await self._unless_closed(asyncio.sleep(self._reconnect))
        if not self._closed.is_set():
            with suppress(HostError):
                found = await self._unless_closed(self._address.connect())
                if found is not None:
                    self._take(*found)
        return True

    async def _accept(self, listener: socket.socket) -> None:
        try:
            accepted = await self._unless_closed(asyncio.get_running_loop().sock_accept(listener))
        except OSError as failure:  # no descriptor left, the client gone again
            _log.warning("%s: a client could not be accepted: %s", self._connected, failure.strerror)
            await self._unless_closed(asyncio.sleep(_AFTER_FAILURE))
            return
        if accepted is not None:
            connection, _ = accepted
            self._take(*await asyncio.open_connection(sock=connection, limit=CHUNK))
            await self._reply()

    async def _unless_closed(self, work: Awaitable[Result]) -> Result | None:
        """What ``work`` comes to, None if this is closed meanwhile."""
        doing = asyncio.ensure_future(work)
        closing = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((doing, closing), return_when=asyncio.FIRST_COMPLETED)
            return None if self._closed.is_set() else doing.result()
        finally:
            closing.cancel()
            doing.cancel()
            await asyncio.gather(doing, closing, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=_UNSENT)
        connection = writer.get_extra_info("socket")
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, self._nodelay)
        self._peer = reader, writer
        self._codec = TelnetCodec(server=self._server)
        self.description = self._connected

    async def _reply(self) -> None:
        """Send what telnet's negotiation has to say, at first its opening."""
        if self._telnet and (replies := self._codec.take_replies()):
            await self._write(replies)

    async def _write(self, wire: bytes) -> None:
        peer = self._peer
        if peer is None:
            return
        try:
            peer[1].write(wire)
            await peer[1].drain()
        except OSError:
            if self._peer is peer:
                self._drop()

    def _drop(self, *, flush: bool = False) -> None:
        if self._peer is None:
            return
        _, writer = self._peer
        self._peer = None
        self.description = f"disconnected:{self._connected}"
        if flush:
            writer.close()
        else:
            writer.transport.abort()
