"""The 32 virtio-mmio slots of the ``virt`` board (QEMU: hw/arm/virt.c): where they are and what is in which.

The first ``-device`` goes into the last slot, the second into the one before.  Linux looks at the slots by ascending
address, so of two disks the *last* one on the command line is vda, as with QEMU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from timevm.engine.devices.base import InterruptLine, Stateful
from timevm.engine.devices.virtio import VirtioDevice
from timevm.engine.devices.virtio_mmio import VirtioMmio
from timevm.engine.machine.bus import Window
from timevm.engine.machine.device_tree import EDGE_RISING, Node
from timevm.errors import UserError

BASE, SIZE, COUNT = 0x0A00_0000, 0x200, 32
#: shared interrupt of the first slot
FIRST_INTERRUPT = 16


@dataclass(frozen=True, slots=True)
class Slots:
    """For the board: all windows and nodes, empty slots too; state only of what is there."""

    windows: list[Window]
    nodes: list[Node]
    devices: dict[str, Stateful]


def fill_slots(devices: Iterable[VirtioDevice], line: Callable[[int], InterruptLine], *, modern: bool = False) -> Slots:
    """``line``: the interrupt line of a shared interrupt.  ``modern`` False: the legacy interface, QEMU's default.

    Raises UserError when there are more devices than slots.
    """
    waiting = list(devices)
    if len(waiting) > COUNT:
        raise UserError(f"-device: this machine has {COUNT} places for virtio devices, {len(waiting)} are asked for")
    slots = Slots([], [], {})
    for number in range(COUNT):
        place = COUNT - 1 - number  # of the command line
        device = waiting[place] if place < len(waiting) else None
        interrupt = FIRST_INTERRUPT + number
        transport = VirtioMmio(f"virtio-mmio.{number}", line(interrupt), device, modern=modern)
        base = BASE + number * SIZE
        slots.windows.append(Window(transport.name, base, SIZE, transport))
        slots.nodes.append(
            Node("virtio_mmio", ("virtio,mmio",), base, SIZE, interrupt, EDGE_RISING, flags=("dma-coherent",))
        )
        if device is not None:
            slots.devices[transport.name] = transport
    return slots
