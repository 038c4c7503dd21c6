"""A telnet connection as a character device: for sessions that know nothing of telnet (QMP, gdb)."""

from __future__ import annotations

import asyncio

from timevm.chardev.base import CHUNK
from timevm.chardev.telnet import TelnetCodec


class TelnetStream:
    """``reader`` and ``writer`` are of a client that was accepted; whoever accepted it closes them."""

    description = "telnet"

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._codec = TelnetCodec(server=True)

    async def open(self) -> None:
        self._writer.write(self._codec.take_replies())

    async def close(self) -> None:
        """With the connection."""

    async def receive(self) -> bytes:
        while wire := await self._reader.read(CHUNK):
            data = self._codec.feed(wire)
            if replies := self._codec.take_replies():
                self._writer.write(replies)
            if data:
                return data
        return b""

    async def send(self, data: bytes) -> None:
        self._writer.write(self._codec.encode(data))
        await self._writer.drain()
