"""The virtio-mmio slots of a board: where they are and what is in which.

The first ``-device`` goes into the last slot, the second into the one before, as with QEMU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from timevm.engine.devices.base import InterruptLine, Stateful
from timevm.engine.devices.virtio import VirtioDevice
from timevm.engine.devices.virtio_mmio import VirtioMmio
from timevm.engine.machine.bus import Window
from timevm.engine.machine.flattened_tree import Node
from timevm.errors import UserError

#: QEMU's ``-global virtio-mmio.force-legacy=off``
MODERN_VIRTIO = ("virtio-mmio.force-legacy", "off")


@dataclass(frozen=True, slots=True)
class Places:
    """``count`` slots from ``base`` on, ``size`` bytes each; ``trigger`` and ``flags`` are of their nodes."""

    base: int
    size: int
    count: int
    #: of the first slot, the others follow
    first_interrupt: int
    trigger: int
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Slots:
    """For the board: all windows and nodes by ascending address, empty slots too; state only of what is there."""

    windows: list[Window]
    nodes: list[Node]
    devices: dict[str, Stateful]


def fill_slots(
    devices: Iterable[VirtioDevice],
    places: Places,
    line: Callable[[int], InterruptLine],
    *,
    modern: bool = False,
) -> Slots:
    """``line``: the line of an interrupt.  ``modern`` False: the legacy interface, QEMU's default.

    Raises UserError when there are more devices than slots.
    """
    waiting = list(devices)
    count = places.count
    if len(waiting) > count:
        raise UserError(f"-device: this machine has {count} places for virtio devices, {len(waiting)} are asked for")
    slots = Slots([], [], {})
    for number in range(count):
        place = count - 1 - number  # of the command line
        device = waiting[place] if place < len(waiting) else None
        interrupt = places.first_interrupt + number
        transport = VirtioMmio(f"virtio-mmio.{number}", line(interrupt), device, modern=modern)
        base = places.base + number * places.size
        slots.windows.append(Window(transport.name, base, VirtioMmio.window, transport))
        slots.nodes.append(
            Node("virtio_mmio", ("virtio,mmio",), base, places.size, interrupt, places.trigger, flags=places.flags)
        )
        if device is not None:
            slots.devices[transport.name] = transport
    return slots
