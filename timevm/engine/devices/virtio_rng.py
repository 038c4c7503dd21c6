"""virtio entropy device (Virtual I/O Device 1.2, section 5.4): its bytes are a function of the machine's seed.

The same seed gives the same bytes in the same order, in a replay too; who cannot guess the seed cannot guess them
(keyed BLAKE2b over a counter).
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from timevm.engine.devices.base import GuestMemory
from timevm.engine.devices.virtio import VirtioDevice
from timevm.engine.devices.virtqueue import scatter, total

DEVICE_ID: Final = 4
QUEUE_SIZE: Final = 8
BLOCK: Final = 64
#: bytes that one buffer gets at most; the driver asks again for more (5.4.6.1)
MOST_BYTES: Final = 1 << 16


class VirtioRng(VirtioDevice):
    """``seed``: at most 64 bytes, secret, of this device alone."""

    device_id = DEVICE_ID

    def __init__(self, name: str, memory: GuestMemory, seed: bytes) -> None:
        self._seed = seed
        super().__init__(name, memory, 0, [QUEUE_SIZE])

    def power_on(self) -> None:
        # a driver that resets the device does not get the same bytes again
        self._given = 0

    def device_state(self) -> dict[str, Any]:
        return {"given": self._given}

    def device_restore(self, state: dict[str, Any]) -> None:
        self._given = state["given"]

    def handle(self, queue: int) -> None:
        while (chain := self.queues[queue].pop(self.memory)) is not None:
            data = self._bytes(min(total(chain.writable), MOST_BYTES))
            scatter(self.memory, chain.writable, 0, data)
            self.use(queue, chain.head, len(data))
        self.wait_for_more(queue)

    def _bytes(self, size: int) -> bytes:
        """The next ``size`` bytes of the stream.  About 1 us for 64 bytes."""
        first, skip = divmod(self._given, BLOCK)
        count = (skip + size + BLOCK - 1) // BLOCK
        blocks = [
            hashlib.blake2b(number.to_bytes(8, "little"), key=self._seed).digest()
            for number in range(first, first + count)
        ]
        self._given += size
        return b"".join(blocks)[skip : skip + size]
