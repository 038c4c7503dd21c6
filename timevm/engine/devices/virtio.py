"""What every virtio device is, whatever bus it sits on (Virtual I/O Device 1.2, chapters 2 and 3).

A device has features, a configuration and queues; a *transport* (``virtio_mmio``, a PCI function) owns the registers
and the interrupt, and reaches the device through the methods here.  A device whose driver writes nonsense into its
rings sets DEVICE_NEEDS_RESET and does nothing more until it is reset.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from timevm.engine.devices.base import DmaError, GuestMemory
from timevm.engine.devices.virtqueue import RingError, Virtqueue

# device status (2.1)
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 64, 128
# reserved features (6)
INDIRECT_DESC, EVENT_IDX, VERSION_1 = 1 << 28, 1 << 29, 1 << 32
RING_FEATURES: Final = INDIRECT_DESC | EVENT_IDX


class VirtioTransport(Protocol):
    """What a device says to its driver, by way of its bus."""

    def queue_interrupt(self, queue: int) -> None:
        """Buffers of queue number ``queue`` were used."""

    def config_interrupt(self) -> None:
        """The configuration or the device status changed."""


class NoTransport:
    """Until the device is on a bus."""

    def queue_interrupt(self, queue: int) -> None:
        pass

    def config_interrupt(self) -> None:
        pass


class VirtioDevice:
    """Stateful; a subclass has ``device_id``, its features, its configuration, and says what a notification means."""

    device_id: int
    _status: int
    _driver_features: int
    _generation: int
    _broken: bool

    def __init__(self, name: str, memory: GuestMemory, features: int, queue_sizes: Sequence[int]) -> None:
        self.name = name
        self.memory = memory
        self.queues = [Virtqueue(size) for size in queue_sizes]
        self.transport: VirtioTransport = NoTransport()
        self._features = features | RING_FEATURES
        self._modern = False
        self.reset()

    def connect(self, transport: VirtioTransport, *, modern: bool) -> None:
        """Called by the transport, once, while the machine is put together."""
        self.transport = transport
        self._modern = modern

    # ---- what a subclass is

    def configuration(self) -> bytes:
        """The device configuration space as it is now."""
        return b""

    def write_configuration(self, offset: int, data: bytes) -> None:
        """The driver wrote into it; most of it is read-only."""

    def handle(self, queue: int) -> None:
        """The driver added buffers to queue number ``queue``.  May raise RingError and DmaError: the device breaks."""
        raise NotImplementedError

    def power_on(self) -> None:
        """What the subclass has that the driver's reset leaves alone; ``device_reset`` follows.  Calls nobody."""

    def device_reset(self) -> None:
        """The subclass's own part of a reset by the driver; calls nobody."""

    def device_state(self) -> dict[str, Any]:
        return {}

    def device_restore(self, state: dict[str, Any]) -> None:
        pass

    # ---- what a transport needs

    @property
    def offered(self) -> int:
        """Feature bits 0 … 63."""
        return self._features | (VERSION_1 if self._modern else 0)

    @property
    def status(self) -> int:
        return self._status

    def traits(self) -> dict[str, Any]:
        return {"id": self.device_id, "offered": self.offered, "configuration": self.configuration()}

    def set_status(self, value: int) -> None:
        """For zero the transport calls ``driver_reset`` instead."""
        if value & FEATURES_OK and not self._status & FEATURES_OK and not self._acceptable():
            value &= ~FEATURES_OK
        self._status = value | self._status & NEEDS_RESET

    def set_driver_features(self, half: int, value: int) -> None:
        """Feature bits 32 * ``half`` … + 31 as the driver takes them; too late when the features are settled."""
        if self._status & FEATURES_OK or half > 1:
            return
        shift = 32 * half
        self._driver_features = self._driver_features & ~(0xFFFFFFFF << shift) | value << shift
        if not self._modern:
            self._driver_features &= self.offered

    def driver_features(self, half: int) -> int:
        """Feature bits 32 * ``half`` … + 31 as the driver took them."""
        return self._driver_features >> 32 * half & 0xFFFFFFFF if half < 2 else 0

    def has(self, feature: int) -> bool:
        """Whether the driver took ``feature``."""
        return bool(self._driver_features & self.offered & feature)

    @property
    def generation(self) -> int:
        """Changes when the configuration did (2.5.1), modulo 2**32."""
        return self._generation

    def notify(self, queue: int) -> None:
        """The driver wrote the number of a queue into the notification register; any number may come."""
        if queue >= len(self.queues) or self._status & NEEDS_RESET or self._broken:
            return
        if self._modern and not self._status & DRIVER_OK:
            return
        self.guarded(queue)

    def guarded(self, queue: int) -> None:
        """``handle``, with the device broken if the driver's rings make no sense."""
        try:
            self.handle(queue)
        except (RingError, DmaError):
            self.broken()

    # ---- what a subclass uses

    @property
    def is_broken(self) -> bool:
        """Nothing is read from or written to the driver's memory any more until the next reset."""
        return self._broken

    def broken(self) -> None:
        """The driver is at fault: the device asks to be reset (a legacy driver cannot be told)."""
        self._broken = True
        if self._modern:
            self._status |= NEEDS_RESET
            if self._status & DRIVER_OK:
                self.transport.config_interrupt()

    def configuration_changed(self) -> None:
        self._generation = (self._generation + 1) & 0xFFFFFFFF
        if self._status & DRIVER_OK:
            self.transport.config_interrupt()

    def use(self, queue: int, head: int, written: int) -> None:
        """The buffer ``head`` of queue number ``queue`` is done; tell the driver if it wants to know.

        Raises DmaError for rings that are not in RAM.
        """
        self.use_all(queue, ((head, written),))

    def use_all(self, queue: int, done: Iterable[tuple[int, int]]) -> None:
        """The same for several buffers (head, bytes written) that belong together."""
        ring = self.queues[queue]
        if not ring.ready:
            return
        for head, written in done:
            ring.push(self.memory, head, written)
        if ring.wants_interrupt(self.memory, self.has(EVENT_IDX)):
            self.transport.queue_interrupt(queue)

    def wait_for_more(self, queue: int) -> None:
        """Everything available was taken.  Raises DmaError."""
        self.queues[queue].ask_for_notification(self.memory, self.has(EVENT_IDX))

    def _acceptable(self) -> bool:
        return not self._driver_features & ~self.offered and bool(self._driver_features & VERSION_1)

    # ---- Stateful

    def reset(self) -> None:
        self.power_on()
        self.driver_reset()

    def driver_reset(self) -> None:
        """At any time, with buffers under way: they stay where they are.  Calls nobody."""
        self._status = 0
        self._driver_features = 0
        self._generation = 0
        self._broken = False
        for queue in self.queues:
            queue.reset()
        self.device_reset()

    def state(self) -> dict[str, Any]:
        return {
            "status": self._status,
            "driver_features": self._driver_features,
            "generation": self._generation,
            "broken": self._broken,
            "queues": [queue.state() for queue in self.queues],
            **self.device_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._status = state["status"]
        self._driver_features = state["driver_features"]
        self._generation = state["generation"]
        self._broken = state["broken"]
        for queue, queue_state in zip(self.queues, state["queues"], strict=True):
            queue.restore(queue_state)
        self.device_restore(state)
