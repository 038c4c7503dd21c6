"""A user-mode network: the host's sockets around ``UserStack``.  Everything here happens on the event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from timevm.errors import HostError
from timevm.network.actions import (
    Abort,
    Action,
    Close,
    Connect,
    Datagram,
    Deliver,
    FinishWriting,
    Flow,
    Forget,
    Listen,
    Write,
)
from timevm.network.datagrams import Datagrams
from timevm.network.resolver import host_nameserver
from timevm.network.settings import Forward, UserSettings
from timevm.network.streams import Stream
from timevm.network.user_stack import UserStack

_log = logging.getLogger(__name__)

#: seconds that the other side has to answer a connection
_PATIENCE = 30.0
#: seconds between two looks at whether the guest takes its frames again
_LOOK_AGAIN = 0.05


class UserNetwork:
    """``open`` it, give it the guest's frames with ``take``, ``close`` it.

    ``deliver`` gets frames for the guest.  ``congested`` says that the guest has not taken all of them yet: until it
    has, nothing can be said to be lost, and no timer of TCP runs.
    """

    def __init__(
        self,
        settings: UserSettings,
        deliver: Callable[[bytes], None],
        congested: Callable[[], bool] = lambda: False,
        *,
        nameserver: tuple[str, int] | None = None,
    ) -> None:
        self._settings = settings
        self._deliver = deliver
        self._congested = congested
        self._loop = asyncio.get_running_loop()
        self._stack = UserStack(settings, nameserver or host_nameserver(), lambda: secrets.randbits(32))
        self._streams: dict[Flow, Stream] = {}
        self._connecting: dict[Flow, asyncio.Task[None]] = {}
        self._datagrams = Datagrams(self)
        self._servers: dict[tuple[str, int], asyncio.Server] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        #: where forwarded ports are heard, in the order of the rules: (host, port)
        self.listens: list[tuple[str, int]] = []

    async def open(self) -> None:
        """All forwarded ports are had.  Raises HostError; then nothing is left open."""
        for rule in self._settings.forwards:
            try:
                await self.forward(rule)
            except HostError:
                await self.close()
                raise

    async def forward(self, rule: Forward) -> None:
        """One more forwarded port.  Raises HostError."""
        try:
            place = await self._listen(rule) if rule.kind == "tcp" else self._datagrams.listen(rule)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise HostError(f"Could not set up host forwarding rule '{rule.text}': {why}") from error
        self.listens.append(place)

    def stop_forwarding(self, kind: str, host: str, port: int) -> bool:
        """Connections that there are go on.  False if nobody listens there."""
        if (host, port) in self.listens:
            self.listens.remove((host, port))
        if kind == "tcp":
            server = self._servers.pop((host, port), None)
            if server is not None:
                server.close()
            return server is not None
        return self._datagrams.stop_listening(host, port)

    async def _listen(self, rule: Forward) -> tuple[str, int]:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            begun = None if self._closed else self._stack.forward_connection(rule, self.now())
            if begun is None:
                writer.transport.abort()
                return
            flow, actions = begun
            self._streams[flow] = Stream(flow, self, reader, writer, self._keep)
            self.perform(actions)

        server = await asyncio.start_server(accepted, rule.host, rule.port)
        host, port = server.sockets[0].getsockname()[:2]
        self._servers[host, port] = server
        return host, port

    async def close(self) -> None:
        """Idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for server in self._servers.values():
            server.close()
        for stream in self._streams.values():
            stream.abort()
        self._streams.clear()
        self._datagrams.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def take(self, frames: Iterable[bytes]) -> None:
        """What the guest sent."""
        self.perform(self._stack.frames(frames, self.now()))

    # ---- what streams and datagrams say

    def now(self) -> float:
        return self._loop.time()

    def room(self, flow: Flow) -> int:
        return self._stack.room(flow)

    def bring(self, flow: Flow, data: bytes) -> None:
        self.perform(self._stack.bring(flow, data, self.now()))

    def ended(self, flow: Flow) -> None:
        self.perform(self._stack.ended(flow, self.now()))

    def written(self, flow: Flow, count: int) -> None:
        self.perform(self._stack.written(flow, count))

    def lost(self, flow: Flow) -> None:
        self._drop(flow)
        self.perform(self._stack.lost(flow))

    def datagram(self, flow: Flow, data: bytes) -> None:
        self.perform(self._stack.datagram(flow, data, self.now()))

    def refused(self, flow: Flow) -> None:
        self.perform(self._stack.refused(flow))

    def forward_datagrams(self, rule: Forward) -> Flow | None:
        return self._stack.forward_datagrams(rule, self.now())

    # ---- what the stack wants

    def perform(self, actions: Sequence[Action]) -> None:
        if self._closed:
            return
        for action in actions:
            self._perform(action)
        for flow, stream in self._streams.items():
            if self._stack.room(flow):
                stream.room_changed()
        self._set_timer()

    def _perform(self, action: Action) -> None:
        match action:
            case Deliver(frame):
                self._deliver(frame)
            case Connect(flow, host, port):
                task = asyncio.create_task(self._connect(flow, host, port), name=f"network to {host}:{port}")
                self._connecting[flow] = task
                self._keep(task)
            case Datagram(flow, host, port, data):
                self._datagrams.send(flow, host, port, data)
            case Forget(flow):
                self._datagrams.forget(flow)
            case Abort(flow):
                self._drop(flow)
            case Write(flow, data):
                if (stream := self._streams.get(flow)) is not None:
                    stream.write(data)
            case FinishWriting(flow):
                if (stream := self._streams.get(flow)) is not None:
                    stream.finish_writing()
            case Listen(flow):
                if (stream := self._streams.get(flow)) is not None:
                    stream.listen()
            case Close(flow):
                if (stream := self._streams.pop(flow, None)) is not None:
                    stream.close()

    async def _connect(self, flow: Flow, host: str, port: int) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                reader, writer = await asyncio.open_connection(host, port)
        except OSError as error:  # TimeoutError is one
            _log.debug("the guest's connection to %s:%d: %s", host, port, error)
            self.lost(flow)
            return
        finally:
            if self._connecting.get(flow) is asyncio.current_task():
                del self._connecting[flow]
        if not self._stack.knows(flow):
            writer.transport.abort()
            return
        self._streams[flow] = Stream(flow, self, reader, writer, self._keep)
        self.perform(self._stack.connected(flow, self.now()))

    def _drop(self, flow: Flow) -> None:
        task = self._connecting.pop(flow, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        stream = self._streams.pop(flow, None)
        if stream is not None:
            stream.abort()

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Until it is done; its failure is ours, and told."""
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            with suppress(asyncio.CancelledError):
                failure = task.exception()
                if failure is not None:
                    _log.error("%s ended by a bug in timevm, please report it", task.get_name(), exc_info=failure)

        task.add_done_callback(done)

    # ---- time

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._stack.deadline
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        if self._congested():
            self._timer = self._loop.call_later(_LOOK_AGAIN, self._tick)
        else:
            self.perform(self._stack.tick(self.now()))
