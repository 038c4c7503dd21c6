"""What a network card needs of the cable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

#: of a frame without its checksum: destination, source, type; and what a card handles at most (QEMU's limit)
HEADER_BYTES: Final = 14
MOST_BYTES: Final = 65_550
BROADCAST: Final = b"\xff" * 6


class NetworkPort(Protocol):
    """Ethernet frames without checksum, both ways; ``accepts`` and ``received`` are set by the card.

    A frame that arrives is offered by ``accepts`` first (it changes nothing): False lets it wait, outside of the
    machine, and it is offered again.  ``received`` then happens between two instructions.
    """

    accepts: Callable[[bytes], bool]
    received: Callable[[bytes], None]

    def send(self, frame: bytes) -> None:
        """Gone at once: the cable has room for everything, and what comes of it nobody tells the card."""
