"""What firmware does to the board before it starts an operating system; done here when a kernel starts without one.

The choices are SeaBIOS's: PCI interrupts on IRQ 10 and 11, ports from C000h on, memory from the top of the hole down.
"""

from __future__ import annotations

from timevm.engine.devices.acpi_pm import BASE, MISCELLANEOUS, AcpiPm
from timevm.engine.devices.pci_function import (
    BARS,
    COMMAND,
    COMMAND_IO,
    COMMAND_MASTER,
    COMMAND_MEMORY,
    INTERRUPT_LINE,
    INTERRUPT_PIN,
    PciFunction,
)
from timevm.engine.devices.pci_piix3 import ROUTES, WIRES
from timevm.engine.devices.piix_ide import TIMING
from timevm.engine.machine.boards.pc_acpi import PM_BASE, SCI
from timevm.engine.machine.boards.pc_chipset import Chipset

#: IRQ of each of the four PCI interrupt wires
INTERRUPTS = (10, 10, 11, 11)
FIRST_PORT = 0xC000
#: both IDE channels answer at their addresses: drivers look for this before they look for drives
DECODED = 0x8000_8000
#: level-triggered inputs, as the two edge/level registers have them
LEVEL = 1 << SCI | 1 << 10 | 1 << 11


def set_up(chipset: Chipset, memory_end: int) -> None:
    """All devices are in their power-on state.  ``memory_end``: addresses below it are for memory windows."""
    power = chipset.power
    for wire in range(WIRES):
        chipset.isa.config_write(ROUTES + wire, 1, INTERRUPTS[wire])
    chipset.pic.edge_level.write(0, 2, LEVEL)
    power.config_write(BASE, 4, PM_BASE | 1)
    power.config_write(MISCELLANEOUS, 1, 1)
    chipset.ide.config_write(TIMING, 4, DECODED)
    port, memory = FIRST_PORT, memory_end
    for number, function in sorted(chipset.bus.functions.items()):
        command = 0
        for bar in function.bars:
            if bar.is_io:
                port = -(-port // bar.size) * bar.size
                function.config_write(BARS + 4 * bar.index, 4, port)
                port += bar.size
                command |= COMMAND_IO | COMMAND_MASTER
            else:
                memory = (memory - bar.size) // bar.size * bar.size
                function.config_write(BARS + 4 * bar.index, 4, memory)
                command |= COMMAND_MEMORY | COMMAND_MASTER
        if command:
            function.config_write(COMMAND, 2, function.command | command)
        _set_interrupt(function, number >> 3)


def _set_interrupt(function: PciFunction, slot: int) -> None:
    pin = function.config_read(INTERRUPT_PIN, 1)
    if pin and not isinstance(function, AcpiPm):
        function.config_write(INTERRUPT_LINE, 1, INTERRUPTS[(slot - 1 + pin - 1) % WIRES])
