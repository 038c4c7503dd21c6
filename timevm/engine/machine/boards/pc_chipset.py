"""The pc board's fixed devices: 440FX, PIIX3 and what their ISA bus has; ports, interrupts and slots as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from timevm.engine.devices.acpi_pm import AcpiPm
from timevm.engine.devices.base import GuestMemory, InterruptLine, Stateful, VirtualTime
from timevm.engine.devices.i8042 import I8042
from timevm.engine.devices.i8254 import I8254
from timevm.engine.devices.i8259_pair import INPUTS, I8259Pair
from timevm.engine.devices.mc146818 import Mc146818
from timevm.engine.devices.pci_bus import PciBus
from timevm.engine.devices.pci_i440fx import I440fx
from timevm.engine.devices.pci_piix3 import Piix3Isa
from timevm.engine.devices.piix_ide import PiixIde
from timevm.engine.devices.shared_lines import SharedLines
from timevm.engine.devices.system_control import Port61, Port92
from timevm.engine.machine.boards.pc_acpi import SCI
from timevm.engine.machine.boards.pc_cmos import contents
from timevm.engine.machine.io_ports import Ports

TIMER_IRQ, KEYBOARD_IRQ, CLOCK_IRQ, IDE_IRQS = 0, 1, 8, (14, 15)
#: command and control blocks of the two IDE channels
IDE_COMMAND, IDE_CONTROL = (0x1F0, 0x170), (0x3F6, 0x376)
#: slot and function of what the chipset has
HOST_BRIDGE, ISA_BRIDGE, IDE, POWER = (0, 0), (1, 0), (1, 1), (1, 3)


@dataclass(frozen=True, slots=True)
class Wiring:
    """Where the chipset leads to: the CPU's INTR and address line 20, reset, power-off."""

    interrupt: InterruptLine
    gate_a20: InterruptLine
    reset: Callable[[], None]
    power_off: Callable[[], None]


class Chipset:
    """``lines`` are the ISA interrupts, for more devices; ``bus`` takes more functions."""

    def __init__(
        self,
        wiring: Wiring,
        time: VirtualTime,
        memory_of: Callable[[str], GuestMemory],
        rtc_base: int,
        ram_bytes: int,
    ) -> None:
        self.pic = I8259Pair("pic", wiring.interrupt)
        self.lines = SharedLines("isa-interrupts", INPUTS, self.pic.set_input)
        self._timer = I8254("pit", self.lines.source(TIMER_IRQ), time)
        self._clock = Mc146818("rtc", self.lines.source(CLOCK_IRQ), time, rtc_base, contents(ram_bytes))
        self._keyboard = I8042("i8042", self.lines.source(KEYBOARD_IRQ), wiring.gate_a20, wiring.reset)
        self._port61 = Port61("port61", self._timer, time)
        self._port92 = Port92("port92", wiring.gate_a20, wiring.reset)
        self.bus = PciBus("pci", wiring.reset)
        self.isa = Piix3Isa("piix3", self.lines)
        self.ide = PiixIde("ide", memory_of("ide"), (self.lines.source(IDE_IRQS[0]), self.lines.source(IDE_IRQS[1])))
        self.power = AcpiPm("pm", self.lines.source(SCI), time, wiring.power_off)
        for place, function in (
            (HOST_BRIDGE, I440fx("i440fx")),
            (ISA_BRIDGE, self.isa),
            (IDE, self.ide),
            (POWER, self.power),
        ):
            self.bus.add(*place, function)

    def devices(self) -> dict[str, Stateful]:
        """Those that are no PCI functions, by name."""
        named = (
            self.pic,
            self.lines,
            self._timer,
            self._clock,
            self._keyboard,
            self._port61,
            self._port92,
            self.bus,
        )
        return {device.name: device for device in named}

    def ports(self) -> list[Ports]:
        return [
            Ports("pic-master", 0x20, 2, self.pic.master),
            Ports("pit", 0x40, 4, self._timer),
            Ports("i8042-data", 0x60, 1, self._keyboard.data),
            Ports("i8042-command", 0x64, 1, self._keyboard.command),
            Ports("rtc", 0x70, 2, self._clock),
            Ports("port92", 0x92, 1, self._port92),
            Ports("pic-slave", 0xA0, 2, self.pic.slave),
            *(Ports(f"ide{n}-control", IDE_CONTROL[n], 1, self.ide.channels[n].control_block) for n in (0, 1)),
            Ports("pic-elcr", 0x4D0, 2, self.pic.edge_level),
            Ports("pci-address", 0xCF8, 4, self.bus.address),
            Ports("pci-data", 0xCFC, 4, self.bus.data),
        ]

    def hot_ports(self) -> list[Ports]:
        """Apart, because windows of their own make each access shorter.

        Firmware reads disks word by word; boot loaders poll port 61h.
        """
        return [
            Ports("port61", 0x61, 1, self._port61),
            *(Ports(f"ide{n}-command", IDE_COMMAND[n], 8, self.ide.channels[n].command_block) for n in (0, 1)),
        ]
