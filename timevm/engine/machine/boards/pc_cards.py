"""What the pc board's PCI slots take: virtio devices and network cards of the command line, in its order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from timevm.engine.devices.base import GuestMemory, InterruptLine, VirtualTime
from timevm.engine.devices.pci_function import PciFunction
from timevm.engine.devices.rtl8139 import Rtl8139
from timevm.engine.devices.virtio_pci import Interface, VirtioPci
from timevm.engine.machine.assembly import Order
from timevm.engine.machine.network_cards import Cable
from timevm.engine.machine.spec import DeviceOption
from timevm.engine.machine.virtio_devices import make_devices, options_of
from timevm.errors import UserError

RTL8139 = "rtl8139"
#: its properties; those behind the first two change nothing here
_RTL8139 = ("netdev", "mac", "addr", "bus", "bootindex", "multifunction", "romfile", "rombar", "failover_pair_id")
_INTERFACES = {
    (False, False): Interface.TRANSITIONAL,
    (True, False): Interface.MODERN,
    (False, True): Interface.LEGACY,
}

MakeFunction = Callable[[InterruptLine], PciFunction]


@dataclass(frozen=True, slots=True)
class PciCard:
    """``make``: the function, given its interrupt wire; its slot is known by then."""

    option: DeviceOption
    make: MakeFunction


def pci_cards(order: Order, memory_of: Callable[[str], GuestMemory], time: VirtualTime) -> list[PciCard]:
    """Raises UserError."""
    spec = order.spec
    devices = make_devices(spec, order.disks, order.cables, memory_of, order.seed, "pci")
    cards = [
        PciCard(option, partial(VirtioPci, device.name, device, _interface(option)))
        for option, device in zip(options_of(spec, order.disks, "pci"), devices, strict=True)
    ]
    for cable in order.cables.cables:
        if cable.plan.option.driver == RTL8139:
            cards.append(PciCard(cable.plan.option, _rtl8139(cable, memory_of, time)))
    places = {id(option): number for number, option in enumerate(spec.devices)}
    # disks of `if=virtio` are no -device: they come last
    return sorted(cards, key=lambda card: places.get(id(card.option), len(places)))


def _rtl8139(cable: Cable, memory_of: Callable[[str], GuestMemory], time: VirtualTime) -> MakeFunction:
    plan = cable.plan
    for key, _ in plan.option.properties:
        if key not in _RTL8139:
            raise refusal(plan.option, f"Property '{RTL8139}.{key}' not found")
    return lambda interrupt: Rtl8139(plan.name, memory_of(plan.name), cable, plan.address, interrupt, time)


def _interface(option: DeviceOption) -> Interface:
    interface = _INTERFACES.get((_switch(option, "disable-legacy"), _switch(option, "disable-modern")))
    if interface is None:
        raise refusal(option, "device cannot work as neither modern nor legacy mode is enabled")
    return interface


def _switch(option: DeviceOption, name: str) -> bool:
    value = dict(option.properties).get(name, "off")
    if value not in ("on", "off", "true", "false", "auto"):
        raise refusal(option, f"Parameter '{name}' expects 'on' or 'off'")
    return value in ("on", "true")


def refusal(option: DeviceOption, why: str) -> UserError:
    return UserError(f"-device {option.driver}: {why}")
