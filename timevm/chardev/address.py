"""Where stream sockets listen or connect: a unix path, a TCP host and port, or a descriptor that was inherited."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass

from timevm.errors import HostError

LOOPBACK = "127.0.0.1"
#: clients that may wait to be accepted
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """One of ``path``, ``port`` (a number or a service's name; ``host`` empty: loopback) or ``fd``."""

    path: str | None = None
    host: str = ""
    port: str | int | None = None
    fd: int | None = None

    def describe(self, *, server: bool, telnet: bool = False) -> str:
        """As ``query-chardev`` shows it (QEMU: ``qemu_chr_compute_filename``)."""
        suffix = ",server=on" if server else ""
        if self.path is not None:
            return f"unix:{self.path}{suffix}"
        if self.fd is not None:
            return f"fd:{self.fd}{suffix}"
        return f"{'telnet' if telnet else 'tcp'}:{self._host}:{self.port}{suffix}"

    @property
    def _host(self) -> str:
        return self.host or LOOPBACK

    async def listen(self) -> socket.socket:
        """A listening socket, not blocking; one that another process left behind at ``path`` is replaced.

        Raises HostError.
        """
        try:
            if self.fd is not None:
                listener = socket.socket(fileno=self.fd)
            elif self.path is not None:
                listener = _listen_at(self.path)
            else:
                listener = await self._listen_tcp()
        except OSError as failure:
            raise HostError(f"Failed to listen on '{self.describe(server=True)}': {_reason(failure)}") from failure
        listener.setblocking(False)
        return listener

    async def _listen_tcp(self) -> socket.socket:
        found = await asyncio.get_running_loop().getaddrinfo(
            self._host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        refusal = OSError("there is no such address")
        for family, kind, protocol, _, address in found:
            listener = socket.socket(family, kind, protocol)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
                listener.listen(_BACKLOG)
            except OSError as failure:
                listener.close()
                refusal = failure
            else:
                return listener
        raise refusal

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises HostError."""
        try:
            if self.path is not None:
                return await asyncio.open_unix_connection(self.path)
            if self.fd is not None:
                return await asyncio.open_connection(sock=socket.socket(fileno=self.fd))
            return await asyncio.open_connection(self._host, self.port)
        except OSError as failure:
            where = self.path or (f"fd:{self.fd}" if self.fd is not None else f"{self._host}:{self.port}")
            raise HostError(f"Failed to connect to '{where}': {_reason(failure)}") from failure

    def forget(self) -> None:
        """After the listener is closed: nothing is left behind in the file system."""
        if self.path is not None:
            with suppress(OSError):
                os.unlink(self.path)


def _listen_at(path: str) -> socket.socket:
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _reason(failure: OSError) -> str:
    # the numbers of getaddrinfo are none of errno's
    if isinstance(failure, socket.gaierror) or not failure.errno:
        return str(failure.args[-1] if failure.args else failure)
    return os.strerror(failure.errno)
