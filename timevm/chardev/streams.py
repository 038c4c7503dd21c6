"""A character device as the pair of streams that monitors and debuggers speak over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from timevm.chardev.base import CHUNK, Backend

#: bytes that wait for the device before the writer is told to wait, and at which it may go on
_HIGH, _LOW = 1 << 16, 1 << 14

#: seconds in which the device takes what is unsent when its session is ended from outside
_CLOSING = 1.0


class _DeviceTransport(asyncio.Transport):
    """What StreamReader and StreamWriter need of a transport; ``run`` carries the bytes."""

    def __init__(self, backend: Backend, protocol: asyncio.StreamReaderProtocol, reader: asyncio.StreamReader) -> None:
        super().__init__()
        self._backend = backend
        self._protocol = protocol
        self._reader = reader
        self._unsent = bytearray()
        self._something = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._paused = False
        self._closing = False
        #: the device will give nothing any more
        self.ended = False

    async def run(self) -> None:
        """Until the writer is closed and everything is sent."""
        receiving = asyncio.create_task(self._receive(), name=f"{self._backend.description} in")
        try:
            await self._send()
        finally:
            self._closing = True
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            self._protocol.connection_lost(None)

    async def _receive(self) -> None:
        while data := await self._backend.receive():
            self._reader.feed_data(data)
            await self._may_read.wait()
        self.ended = True
        self._reader.feed_eof()

    async def _send(self) -> None:
        while self._unsent or not self._closing:
            if not self._unsent:
                self._something.clear()
                await self._something.wait()
                continue
            piece = bytes(self._unsent[:CHUNK])
            await self._backend.send(piece)
            del self._unsent[: len(piece)]
            if self._paused and len(self._unsent) <= _LOW:
                self._paused = False
                self._protocol.resume_writing()

    # -- asyncio's side

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._closing:
            return
        self._unsent += data
        self._something.set()
        if not self._paused and len(self._unsent) > _HIGH:
            self._paused = True
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        self._something.set()

    def abort(self) -> None:
        self._unsent.clear()
        self.close()

    def pause_reading(self) -> None:
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


async def serve_device(backend: Backend, session: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> bool:
    """Let ``session`` speak over ``backend`` (open already, and not closed here); return when it has ended.

    A device is not a connection: its session begins at once, and may end before the device does.  True if the device
    has ended too: there is no use in another session.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=CHUNK, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport = _DeviceTransport(backend, protocol, reader)
    protocol.connection_made(transport)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    carrying = asyncio.create_task(transport.run(), name=f"{backend.description} streams")
    try:
        await session(reader, writer)
        writer.close()
        await asyncio.wait((carrying,))  # not the task itself, which would be cancelled with us
        await carrying
        return transport.ended
    except asyncio.CancelledError:
        # the process ends: what the session has said before (the answer before a `quit`) still goes out
        transport.close()
        await asyncio.wait((carrying,), timeout=_CLOSING)
        raise
    finally:
        carrying.cancel()
        await asyncio.gather(carrying, return_exceptions=True)
