"""What a character device is: bytes to and from one place outside, on the event loop."""

from __future__ import annotations

import os
from typing import Protocol

from timevm.errors import HostError

#: bytes of one read, one write
CHUNK = 1 << 12


class Backend(Protocol):
    """One end of a serial line, or the place of a monitor."""

    @property
    def description(self) -> str:
        """As ``query-chardev`` shows it (QEMU: ``qemu_chr_compute_filename``)."""

    async def open(self) -> None:
        """Get ready; nobody is waited for.  Raises HostError."""

    async def receive(self) -> bytes:
        """The next bytes from outside, as soon as there are any; b'' when there will never be one again."""

    async def send(self, data: bytes) -> None:
        """All of ``data`` outwards, waiting for room; where nobody is connected it is dropped, as in QEMU."""

    async def close(self) -> None:
        """Idempotent; whoever waits in ``receive`` or ``send`` is let go."""


def host_error(what: str, error: OSError) -> HostError:
    """``what: No such file or directory``."""
    return HostError(f"{what}: {os.strerror(error.errno) if error.errno else error}")
