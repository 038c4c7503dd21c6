"""A copy of what goes out, in a file (``logfile=``)."""

from __future__ import annotations

import os
from pathlib import Path

from timevm.chardev.base import Backend, host_error
from timevm.chardev.descriptor import DescriptorWriter


class LoggedBackend:
    """``inner`` with its output copied to ``path``; ``append``: behind what is there already."""

    def __init__(self, inner: Backend, path: Path, *, append: bool) -> None:
        self.inner = inner
        self._path, self._append = path, append
        self._log: DescriptorWriter | None = None

    @property
    def description(self) -> str:
        return self.inner.description

    async def open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if self._append else os.O_TRUNC)
        try:
            descriptor = os.open(self._path, flags, 0o666)
        except OSError as error:
            raise host_error(f"Unable to open logfile {self._path}", error) from error
        self._log = DescriptorWriter(descriptor, f"logfile {self._path}", owned=True)
        await self.inner.open()

    async def receive(self) -> bytes:
        return await self.inner.receive()

    async def send(self, data: bytes) -> None:
        if self._log is not None:
            await self._log.write(data)
        await self.inner.send(data)

    async def close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None
        await self.inner.close()
