"""What a board hands over once it is put together: the parts that ``Machine`` runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from timevm.engine.clock.virtual_clock import VirtualClock
from timevm.engine.cpu.base import Cpu
from timevm.engine.devices.base import Stateful
from timevm.engine.machine.disks import Disks
from timevm.engine.machine.images import Images
from timevm.engine.machine.memory import SystemMemory
from timevm.engine.machine.network_cards import Cables
from timevm.engine.machine.outcome import InterruptController, MemoryRegion, PciFunctionInfo
from timevm.engine.machine.ram import Ram
from timevm.engine.machine.spec import MachineSpec


def _nothing() -> None:
    """What the hooks of an assembly are until a board has some."""


@dataclass(frozen=True, slots=True)
class SerialPort:
    """The guest's side of a serial line: bytes in, and how many it takes now."""

    receive: Callable[[bytes], None]
    capacity: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Order:
    """What a board is asked for: the specification with everything decided that it left open.

    ``shift``, ``rtc_base`` and ``seed`` are the recording's in a replay.  ``transmit(port, data)`` gets the guest's
    serial output, on the CPU thread.
    """

    spec: MachineSpec
    images: Images
    shift: int
    rtc_base: int
    seed: bytes
    transmit: Callable[[int, bytes], None]
    disks: Disks = field(default_factory=Disks)
    cables: Cables = field(default_factory=Cables)


@dataclass(slots=True)
class Assembly:
    cpu: Cpu
    ram: Ram
    #: as bus masters reach it
    memory: SystemMemory
    clock: VirtualClock
    #: everything with state but CPU and clock, by name, in the board's order
    devices: dict[str, Stateful]
    serial: list[SerialPort]
    memory_map: list[MemoryRegion]
    #: writes kernel, initrd and device tree into RAM and starts the CPU there; on power-on and on every reset
    boot: Callable[[], None]
    #: the power button was pressed (``system_powerdown``)
    power_button: Callable[[], None] = field(default=_nothing)
    #: a non-maskable interrupt for the CPU (``nmi``)
    nmi: Callable[[], None] = field(default=_nothing)
    #: device registers that the CPU serves natively follow the devices again, after a reset or a restore
    follow_devices: Callable[[], None] = field(default=_nothing)
    #: read-only memory: seen by debuggers and monitors, written by nobody
    roms: tuple[Ram, ...] = ()
    #: what the guest is told about the machine, a flattened device tree; None: this board has none
    device_tree: bytes | None = None
    #: the same on a PC; None: this board has none
    acpi_tables: bytes | None = None
    #: what is on the PCI bus now
    pci_functions: Callable[[], list[PciFunctionInfo]] = field(default=list)
    interrupt_controllers: Callable[[], list[InterruptController]] = field(default=list)

    @property
    def takes_nmi(self) -> bool:
        return self.nmi is not _nothing
