"""A new pseudo-terminal, for ``screen`` and its like; peers come and go."""

from __future__ import annotations

import os
import select
import tty
from contextlib import suppress
from pathlib import Path

from timevm.chardev.base import host_error
from timevm.chardev.descriptor import DescriptorReader, DescriptorWriter


class PtyBackend:
    """``link`` becomes a symbolic link to it while it is open; ``device`` is its path, e.g. ``/dev/pts/3``."""

    def __init__(self, link: Path | None = None) -> None:
        self.device = ""
        self._link = link
        self._master = -1
        self._reader: DescriptorReader | None = None
        self._writer: DescriptorWriter | None = None

    @property
    def description(self) -> str:
        return f"pty:{self.device}"

    async def open(self) -> None:
        try:
            self._master, slave = os.openpty()
        except OSError as error:
            raise host_error("Failed to create PTY", error) from error
        tty.setraw(slave)  # stays so while the master is open
        self.device = os.ttyname(slave)
        os.close(slave)
        if self._link is not None:
            try:
                self._link.symlink_to(self.device)
            except OSError as error:
                os.close(self._master)
                raise host_error(f"Failed to create PTY symlink '{self._link}'", error) from error
        self._reader = DescriptorReader(self._master, self.description, hangup_ends=False, owned=True)
        self._writer = DescriptorWriter(os.dup(self._master), self.description, hangup_ends=False, owned=True)

    async def receive(self) -> bytes:
        return b"" if self._reader is None else await self._reader.read()

    async def send(self, data: bytes) -> None:
        """Dropped while nobody has the terminal open: it would wait for ever."""
        if self._writer is not None and not self._deserted():
            await self._writer.write(data)

    def _deserted(self) -> bool:
        poll = select.poll()
        poll.register(self._master, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    async def close(self) -> None:
        if self._reader is not None and self._writer is not None:
            self._reader.close()
            self._writer.close()
            self._reader = self._writer = None
        if self._link is not None:
            with suppress(OSError):
                if self._link.is_symlink() and os.readlink(self._link) == self.device:
                    self._link.unlink()
