"""The IDE function of the PIIX3 (Intel 290550): two channels at their ISA addresses and a bus master."""

from __future__ import annotations

from typing import Any, Final

from timevm.engine.devices.base import GuestMemory, InterruptLine
from timevm.engine.devices.ide_bus_master import BusMaster
from timevm.engine.devices.ide_channel import IdeChannel
from timevm.engine.devices.pci_function import Bar, Identity, PciFunction
from timevm.engine.devices.pci_i440fx import SUBSYSTEM, SUBSYSTEM_VENDOR

BUS_MASTER_BAR: Final = 4
#: timing registers of the channels; bit 15 lets a channel's addresses be decoded, which they are here always
TIMING: Final = 0x40


class PiixIde(PciFunction):
    """``channels`` are the primary and the secondary one."""

    def __init__(self, name: str, memory: GuestMemory, interrupts: tuple[InterruptLine, InterruptLine]) -> None:
        self._masters = [BusMaster(f"{name}-dma{number}", memory, lambda: self.is_master) for number in range(2)]
        self.channels = [
            IdeChannel(f"{name}{number}", line, master)
            for number, (line, master) in enumerate(zip(interrupts, self._masters, strict=True))
        ]
        super().__init__(
            name,
            Identity(0x8086, 0x7010, 0x010180, 0, SUBSYSTEM_VENDOR, SUBSYSTEM),
            [Bar(BUS_MASTER_BAR, 16, True, _BusMasters(f"{name}-dma", self._masters))],
        )
        self.set_initial(0x06, 2, 0x0280)
        self.allow(TIMING, 4, 0xFFFFFFFF)
        self.allow(0x48, 4, 0xFFFFFFFF)
        self.reset()

    def reset(self) -> None:
        super().reset()
        for master in self._masters:
            master.reset()
        for channel in self.channels:
            channel.reset()

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "masters": [master.state() for master in self._masters],
            "channels": [channel.state() for channel in self.channels],
        }

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        for master, saved in zip(self._masters, state["masters"], strict=True):
            master.restore(saved)
        for channel, saved in zip(self.channels, state["channels"], strict=True):
            channel.restore(saved)


class _BusMasters:
    """The 16 ports behind the base address register: 8 for each channel."""

    def __init__(self, name: str, masters: list[BusMaster]) -> None:
        self.name = name
        self._masters = masters

    def read(self, offset: int, size: int) -> int:
        return self._masters[offset >> 3].read(offset & 7, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self._masters[offset >> 3].write(offset & 7, size, value)
