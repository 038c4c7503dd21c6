"""``query-pci``."""

from __future__ import annotations

from timevm.engine.control.port import PciFunctionInfo, PciRegion
from timevm.monitor.commands.context import Handler, MonitorContext
from timevm.qmp_schema.base import Empty
from timevm.qmp_schema.pci import PciDeviceClass, PciDeviceId, PciDeviceInfo, PciInfo, PciMemoryRegion

#: QEMU's words for the classes that machines of timevm have; for others it has the number
_CLASSES = {
    0x0100: "SCSI controller",
    0x0101: "IDE controller",
    0x0200: "Ethernet controller",
    0x0600: "Host bridge",
    0x0601: "ISA bridge",
    0x0680: "Bridge",
}
_NOWHERE = -1


def _region(region: PciRegion) -> PciMemoryRegion:
    memory = None if region.is_io else False
    return PciMemoryRegion(
        bar=region.bar,
        type="io" if region.is_io else "memory",
        address=_NOWHERE if region.address is None else region.address,
        size=region.size,
        prefetch=memory,
        mem_type_64=memory,
    )


def _device(found: PciFunctionInfo) -> PciDeviceInfo:
    return PciDeviceInfo(
        bus=0,
        slot=found.slot,
        function=found.function,
        class_info=PciDeviceClass(desc=_CLASSES.get(found.class_code), class_=found.class_code),
        id=PciDeviceId(
            device=found.device,
            vendor=found.vendor,
            subsystem=found.subsystem,
            subsystem_vendor=found.subsystem_vendor,
        ),
        irq=found.interrupt_line if found.interrupt_pin else None,
        irq_pin=found.interrupt_pin,
        qdev_id=found.identifier,
        regions=[_region(region) for region in found.regions],
    )


async def query_pci(context: MonitorContext, arguments: Empty) -> list[PciInfo]:
    found = await context.vm.inspect(lambda machine: machine.pci_functions())
    return [PciInfo(bus=0, devices=[_device(each) for each in found])] if found else []


HANDLERS: dict[str, Handler] = {"query-pci": query_pci}
