"""The host's UDP sockets: one for each flow of the guest, one for each forwarded port."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from timevm.network.actions import Flow
from timevm.network.settings import Forward

_MOST_BYTES = 65_535
#: datagrams read at once, so that one socket does not keep the others waiting
_BATCH = 32


class Core(Protocol):
    """What the stack wants to hear."""

    def datagram(self, flow: Flow, data: bytes) -> None: ...

    def refused(self, flow: Flow) -> None: ...

    def forward_datagrams(self, rule: Forward) -> Flow | None: ...


class Datagrams:
    """On the event loop.  What the host cannot send is lost, as UDP may be."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[Flow, socket.socket] = {}
        self._listening: list[socket.socket] = []
        #: forwarded flows: where their answers go, and back
        self._peers: dict[Flow, tuple[socket.socket, tuple[str, int]]] = {}
        self._flows: dict[tuple[int, tuple[str, int]], Flow] = {}

    def listen(self, rule: Forward) -> tuple[str, int]:
        """The address had.  Raises OSError."""
        listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listening.setblocking(False)
        try:
            listening.bind((rule.host, rule.port))
        except OSError:
            listening.close()
            raise
        self._listening.append(listening)
        self._loop.add_reader(listening, self._take_forwarded, rule, listening)
        host, port = listening.getsockname()
        return host, port

    def stop_listening(self, host: str, port: int) -> bool:
        """What the guest still answers is sent nowhere.  False if nobody listens there."""
        for listening in self._listening:
            if listening.getsockname() == (host, port):
                self._listening.remove(listening)
                self._loop.remove_reader(listening)
                self._flows = {key: flow for key, flow in self._flows.items() if key[0] != listening.fileno()}
                self._peers = {flow: peer for flow, peer in self._peers.items() if peer[0] is not listening}
                listening.close()
                return True
        return False

    def send(self, flow: Flow, host: str, port: int, data: bytes) -> None:
        try:
            if flow in self._peers:
                listening, peer = self._peers[flow]
                listening.sendto(data, peer)
            else:
                self._socket(flow, host, port).send(data)
        except ConnectionRefusedError:
            self._core.refused(flow)
        except OSError:  # no room, no way, too large
            pass

    def _socket(self, flow: Flow, host: str, port: int) -> socket.socket:
        """Raises OSError."""
        known = self._sockets.get(flow)
        if known is not None:
            return known
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            made.setblocking(False)
            made.connect((host, port))
        except OSError:
            made.close()
            raise
        self._sockets[flow] = made
        self._loop.add_reader(made, self._take, flow, made)
        return made

    def _take(self, flow: Flow, made: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                data = made.recv(_MOST_BYTES)
            except BlockingIOError:
                return
            except OSError:  # the other side is not there
                self._core.refused(flow)
                return
            self._core.datagram(flow, data)
            if flow not in self._sockets:
                return

    def _take_forwarded(self, rule: Forward, listening: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                data, peer = listening.recvfrom(_MOST_BYTES)
            except OSError:
                return
            flow = self._flows.get((listening.fileno(), peer)) or self._core.forward_datagrams(rule)
            if flow is None:
                continue
            self._flows[listening.fileno(), peer] = flow
            self._peers[flow] = listening, peer
            self._core.datagram(flow, data)

    def forget(self, flow: Flow) -> None:
        made = self._sockets.pop(flow, None)
        if made is not None:
            self._loop.remove_reader(made)
            made.close()
        known = self._peers.pop(flow, None)
        if known is not None:
            self._flows.pop((known[0].fileno(), known[1]), None)

    def close(self) -> None:
        for each in (*self._sockets.values(), *self._listening):
            self._loop.remove_reader(each)
            each.close()
        self._sockets.clear()
        self._listening.clear()
