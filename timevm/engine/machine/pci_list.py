"""What is on a PCI bus, as plain data for those who ask (``info pci``)."""

from __future__ import annotations

from timevm.engine.devices.pci_bus import PciBus
from timevm.engine.devices.pci_function import (
    DEVICE_ID,
    INTERRUPT_LINE,
    INTERRUPT_PIN,
    SUBCLASS,
    SUBSYSTEM,
    SUBSYSTEM_VENDOR,
    VENDOR_ID,
    PciFunction,
)
from timevm.engine.machine.outcome import PciFunctionInfo, PciRegion


def pci_functions(bus: PciBus) -> list[PciFunctionInfo]:
    """In order of slot and function; reading has no side effects."""
    return [_information(number, function) for number, function in sorted(bus.functions.items())]


def _information(number: int, function: PciFunction) -> PciFunctionInfo:
    read = function.config_read
    return PciFunctionInfo(
        slot=number >> 3,
        function=number & 7,
        identifier=function.identifier,
        class_code=read(SUBCLASS, 2),
        vendor=read(VENDOR_ID, 2),
        device=read(DEVICE_ID, 2),
        subsystem_vendor=read(SUBSYSTEM_VENDOR, 2),
        subsystem=read(SUBSYSTEM, 2),
        interrupt_line=read(INTERRUPT_LINE, 1),
        interrupt_pin=read(INTERRUPT_PIN, 1),
        regions=tuple(PciRegion(bar.index, bar.is_io, function.base_of(bar), bar.size) for bar in function.bars),
    )
