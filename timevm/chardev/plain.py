"""The simple backends: nothing, the terminal, files, named pipes, a ring of memory."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from timevm.chardev import terminal
from timevm.chardev.base import host_error
from timevm.chardev.descriptor import DescriptorReader, DescriptorWriter


class NullBackend:
    """Takes everything, gives nothing."""

    description = "null"

    def __init__(self) -> None:
        self._closed = asyncio.Event()

    async def open(self) -> None:
        return

    async def receive(self) -> bytes:
        await self._closed.wait()
        return b""

    async def send(self, data: bytes) -> None:
        return

    async def close(self) -> None:
        self._closed.set()


class RingbufBackend(NullBackend):
    """Keeps the last ``size`` bytes of the output (``contents``)."""

    description = "ringbuf"

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self.contents = bytearray()

    async def send(self, data: bytes) -> None:
        self.contents += data
        del self.contents[: -self._size]


class StdioBackend:
    """Standard input and output; a terminal there is in raw mode while open."""

    description = "stdio"

    def __init__(self, *, signals: bool, descriptors: tuple[int, int] = (0, 1)) -> None:
        self._signals = signals
        self._input, self._output = descriptors
        self._reader: DescriptorReader | None = None
        self._writer: DescriptorWriter | None = None

    async def open(self) -> None:
        for descriptor in (self._input, self._output):
            try:
                os.fstat(descriptor)
            except OSError as error:
                raise host_error("standard input or output is closed", error) from error
        self.make_raw()
        self._reader = DescriptorReader(self._input, "standard input")
        self._writer = DescriptorWriter(self._output, "standard output")

    def make_raw(self) -> None:
        """Again after the process was stopped and continued."""
        terminal.make_raw(self._input, signals=self._signals)

    async def receive(self) -> bytes:
        return b"" if self._reader is None else await self._reader.read()

    async def send(self, data: bytes) -> None:
        if self._writer is not None:
            await self._writer.write(data)

    async def close(self) -> None:
        if self._reader is not None and self._writer is not None:
            self._reader.close()
            self._writer.close()
        terminal.restore_all()


class FileBackend:
    """Output into a file; input from another, if there is one."""

    description = "file"

    def __init__(self, path: Path, *, append: bool = False, input_path: Path | None = None) -> None:
        self._path, self._append, self._input_path = path, append, input_path
        self._output = self._input = -1
        self._reader: DescriptorReader | None = None
        self._writer: DescriptorWriter | None = None
        self._closed = asyncio.Event()

    async def open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if self._append else os.O_TRUNC)
        try:
            self._output = os.open(self._path, flags, 0o666)
        except OSError as error:
            raise host_error(f"Could not open '{self._path}'", error) from error
        self._writer = DescriptorWriter(self._output, f"file {self._path}", owned=True)
        if self._input_path is not None:
            try:
                self._input = os.open(self._input_path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                await self.close()
                raise host_error(f"Could not open '{self._input_path}'", error) from error
            self._reader = DescriptorReader(self._input, f"file {self._input_path}", owned=True)

    async def receive(self) -> bytes:
        if self._reader is not None:
            return await self._reader.read()
        await self._closed.wait()
        return b""

    async def send(self, data: bytes) -> None:
        if self._writer is not None:
            await self._writer.write(data)

    async def close(self) -> None:
        self._closed.set()
        if self._reader is not None:
            self._reader.close()
        if self._writer is not None:
            self._writer.close()


class PipeBackend:
    """``pipe:PATH``: ``PATH.in`` and ``PATH.out`` if both are there, otherwise ``PATH`` for both (as QEMU)."""

    def __init__(self, path: Path) -> None:
        self.description = "pipe"
        self._path = path
        self._reader: DescriptorReader | None = None
        self._writer: DescriptorWriter | None = None

    async def open(self) -> None:
        inward, outward = (Path(f"{self._path}{way}") for way in (".in", ".out"))
        if not (inward.exists() and outward.exists()):
            inward = outward = self._path
        try:
            descriptors = [os.open(path, os.O_RDWR | os.O_CLOEXEC) for path in (inward, outward)]
        except OSError as error:
            raise host_error(f"Could not open '{inward}'", error) from error
        self._reader = DescriptorReader(descriptors[0], f"pipe {inward}", owned=True)
        self._writer = DescriptorWriter(descriptors[1], f"pipe {outward}", owned=True)

    async def receive(self) -> bytes:
        return b"" if self._reader is None else await self._reader.read()

    async def send(self, data: bytes) -> None:
        if self._writer is not None:
            await self._writer.write(data)

    async def close(self) -> None:
        if self._reader is not None and self._writer is not None:
            self._reader.close()
            self._writer.close()
