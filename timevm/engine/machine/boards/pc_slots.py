"""The PCI cards of the pc board: virtio devices, in the slots that their options name or the first free ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from timevm.engine.devices.base import InterruptLine
from timevm.engine.devices.pci_bus import SLOTS, PciBus
from timevm.engine.devices.virtio import VirtioDevice
from timevm.engine.devices.virtio_pci import Interface, VirtioPci
from timevm.engine.machine.spec import DeviceOption
from timevm.errors import UserError

#: slots 0 and 1 are the chipset's
FIRST_SLOT = 2
_INTERFACES = {
    (False, False): Interface.TRANSITIONAL,
    (True, False): Interface.MODERN,
    (False, True): Interface.LEGACY,
}


def fill_slots(
    bus: PciBus, cards: Iterable[tuple[DeviceOption, VirtioDevice]], interrupt: Callable[[int], InterruptLine]
) -> None:
    """``interrupt``: the INTA wire of a slot.  Cards with an address are placed first.  Raises UserError."""
    waiting = [(option, device, _address(option)) for option, device in cards]
    for option, device, wanted in sorted(waiting, key=lambda item: item[2] is None):
        slot = bus.free_slot(FIRST_SLOT) if wanted is None else wanted
        if slot is None:
            raise _refusal(option, "no slot of the PCI bus is free")
        if slot << 3 in bus.functions:
            raise _refusal(option, f"PCI: slot {slot} function 0 not available for {option.driver}, in use")
        interface = _INTERFACES.get((_switch(option, "disable-legacy"), _switch(option, "disable-modern")))
        if interface is None:
            raise _refusal(option, "device cannot work as neither modern nor legacy mode is enabled")
        bus.add(slot, 0, VirtioPci(device.name, device, interface, interrupt(slot)))


def _address(option: DeviceOption) -> int | None:
    given = dict(option.properties)
    if given.get("bus", "pci.0") not in ("pci.0", "pci"):
        raise _refusal(option, f"Bus '{given['bus']}' not found (known: pci.0)")
    text = given.get("addr")
    if text is None:
        return None
    match = re.fullmatch(r"(?:0x)?([0-9a-fA-F]{1,2})(?:\.0)?", text)
    if match is None or int(match[1], 16) >= SLOTS:
        raise _refusal(option, f"Parameter 'addr' expects a slot of the PCI bus (02 to 1f), not '{text}'")
    return int(match[1], 16)


def _switch(option: DeviceOption, name: str) -> bool:
    value = dict(option.properties).get(name, "off")
    if value not in ("on", "off", "true", "false", "auto"):
        raise _refusal(option, f"Parameter '{name}' expects 'on' or 'off'")
    return value in ("on", "true")


def _refusal(option: DeviceOption, why: str) -> UserError:
    return UserError(f"-device {option.driver}: {why}")
