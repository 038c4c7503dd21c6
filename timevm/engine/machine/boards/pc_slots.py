"""Where the PCI cards of the pc board go: into the slots that their options name, or the first free ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from timevm.engine.devices.base import InterruptLine
from timevm.engine.devices.pci_bus import SLOTS, PciBus
from timevm.engine.machine.boards.pc_cards import PciCard, refusal
from timevm.engine.machine.spec import DeviceOption

#: slots 0 and 1 are the chipset's
FIRST_SLOT = 2


def fill_slots(bus: PciBus, cards: Iterable[PciCard], interrupt: Callable[[int], InterruptLine]) -> None:
    """``interrupt``: the INTA wire of a slot.  Cards with an address are placed first.  Raises UserError."""
    waiting = [(card, _address(card.option)) for card in cards]
    for card, wanted in sorted(waiting, key=lambda item: item[1] is None):
        slot = bus.free_slot(FIRST_SLOT) if wanted is None else wanted
        if slot is None:
            raise refusal(card.option, "no slot of the PCI bus is free")
        if slot << 3 in bus.functions:
            raise refusal(card.option, f"PCI: slot {slot} function 0 not available for {card.option.driver}, in use")
        function = card.make(interrupt(slot))
        function.identifier = card.option.identifier or ""
        bus.add(slot, 0, function)


def _address(option: DeviceOption) -> int | None:
    given = dict(option.properties)
    if given.get("bus", "pci.0") not in ("pci.0", "pci"):
        raise refusal(option, f"Bus '{given['bus']}' not found (known: pci.0)")
    text = given.get("addr")
    if text is None:
        return None
    match = re.fullmatch(r"(?:0x)?([0-9a-fA-F]{1,2})(?:\.0)?", text)
    if match is None or int(match[1], 16) >= SLOTS:
        raise refusal(option, f"Parameter 'addr' expects a slot of the PCI bus (02 to 1f), not '{text}'")
    return int(match[1], 16)
