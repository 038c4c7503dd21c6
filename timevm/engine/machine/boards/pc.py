"""The ``pc`` board (x86): QEMU's pc-i440fx-7.2 as data, and its assembly.

RAM is below 4 GiB only, and lies behind the adapter and BIOS areas below 1 MiB too (a PC's "shadow" RAM).
"""

from __future__ import annotations

from collections.abc import Callable

from timevm.engine.clock.virtual_clock import VirtualClock
from timevm.engine.cpu.base import StopKind
from timevm.engine.cpu.x86_64 import X86Cpu
from timevm.engine.devices.fw_cfg import FwCfg
from timevm.engine.devices.uart16550 import Uart16550
from timevm.engine.machine.acpi_tables import Tables
from timevm.engine.machine.assembly import Assembly, Order, SerialPort
from timevm.engine.machine.boards.pc_acpi import SerialResource, tables
from timevm.engine.machine.boards.pc_cards import pci_cards
from timevm.engine.machine.boards.pc_chipset import Chipset, Wiring
from timevm.engine.machine.boards.pc_debug import debug_devices
from timevm.engine.machine.boards.pc_disks import fill_channels
from timevm.engine.machine.boards.pc_firmware import files, items
from timevm.engine.machine.boards.pc_setup import set_up
from timevm.engine.machine.boards.pc_slots import fill_slots
from timevm.engine.machine.boards.uart_window import UartWindow
from timevm.engine.machine.images import Piece
from timevm.engine.machine.interrupt_list import pic_list
from timevm.engine.machine.io_ports import Absolute, PortMap, Ports, gaps
from timevm.engine.machine.memory import SystemMemory
from timevm.engine.machine.outcome import MemoryRegion
from timevm.engine.machine.pc_boot import PcPlacement, place_firmware, place_kernel
from timevm.engine.machine.pci_list import pci_functions
from timevm.engine.machine.ram import Ram
from timevm.engine.machine.randomness import derive, derive_number
from timevm.engine.machine.spec import GIB, MIB, MachineSpec
from timevm.engine.machine.x86_memory_map import ROOT_POINTER, TABLES, ranges
from timevm.errors import UserError

#: from here to 4 GiB: PCI devices, interrupt controllers, the BIOS (QEMU's boundary for this much RAM)
RAM_MOST = 3 * GIB + 512 * MIB
RESET_VECTOR = 0xFFFF_FFF0
#: ports and interrupts of the serial lines, COM1 first
SERIAL = ((0x3F8, 4), (0x2F8, 3), (0x3E8, 4), (0x2E8, 3))
SERIAL_PORTS = 8
#: addresses below 4 GiB that belong to PCI devices: the lowest that the first may be, and the last
PCI_MEMORY = (2 * GIB, 0xFEBF_FFFF)


class _CpuLine:
    """``InterruptLine`` into the CPU."""

    def __init__(self, cpu: X86Cpu, name: str) -> None:
        self._cpu, self._name = cpu, name

    def set(self, level: bool) -> None:
        self._cpu.set_interrupt(self._name, level)


class _GateA20:
    """Address line 20; its level is in the CPU's state."""

    def __init__(self, cpu: X86Cpu) -> None:
        self._cpu = cpu

    def set(self, level: bool) -> None:
        self._cpu.set_a20(level)


def assemble(order: Order) -> Assembly:
    """Raises UserError, HostError."""
    spec = order.spec
    _check(spec)
    cpu = X86Cpu(
        spec.cpu,
        time_shift=order.shift,
        seed=derive_number(order.seed, "RDRAND"),
        acknowledge=lambda: chipset.pic.acknowledge(),
    )
    ram = Ram(0, spec.ram_bytes)
    cpu.map_ram(ram.base, ram.host_address, ram.size)
    memory = SystemMemory(cpu, ram)
    clock = VirtualClock(order.shift, lambda: cpu.icount, cpu.ask_attention)

    def power_off(exit_code: int | None = None) -> None:
        cpu.ask_stop(StopKind.POWER_OFF, exit_code)

    wiring = Wiring(_CpuLine(cpu, "intr"), _GateA20(cpu), lambda: cpu.ask_stop(StopKind.RESET), power_off)
    chipset: Chipset = Chipset(wiring, clock, memory.of, order.rtc_base, spec.ram_bytes)
    bus = chipset.bus
    fill_channels(chipset.ide, order.disks)
    fill_slots(bus, pci_cards(order, memory.of, clock), lambda slot: chipset.isa.interrupt(slot, 1))
    pci_memory = (max(PCI_MEMORY[0], ram.end), PCI_MEMORY[1])
    described = tables(pci_memory, [SerialResource(*SERIAL[number]) for number in range(spec.serial_ports)])
    console = SERIAL[0][0] if spec.serial_ports else None
    firmware = FwCfg("fw_cfg", memory.of("fw_cfg"), items(), files(spec.ram_bytes, described, console))
    uarts = [
        Uart16550(f"serial{number}", chipset.lines.source(SERIAL[number][1]), _transmit(order, number))
        for number in range(spec.serial_ports)
    ]

    windows = [
        *chipset.ports(),
        Ports("fw-cfg", 0x510, 2, firmware.control),
        Ports("fw-cfg-dma", 0x514, 8, firmware.dma),
        *debug_devices(spec, _transmit(order, spec.serial_ports), power_off),
    ]
    serial_windows = [Ports(uart.name, SERIAL[number][0], SERIAL_PORTS, uart) for number, uart in enumerate(uarts)]
    apart = [*chipset.hot_ports(), *serial_windows]
    ports = PortMap(windows, bus.ports)
    for base, count in gaps(apart):
        cpu.map_ports(base, count, Absolute(ports, base))
    for window in chipset.hot_ports():
        cpu.map_ports(window.base, window.count, window.handler)
    native = [
        UartWindow(uart, cpu.map_ports(window.base, window.count, uart, _transmit(order, number)))
        for number, (uart, window) in enumerate(zip(uarts, serial_windows, strict=True))
    ]
    cpu.map_mmio(pci_memory[0], pci_memory[1] + 1 - pci_memory[0], Absolute(bus.memory, pci_memory[0]))

    placement = _placement(order, ram, described)
    rom = Ram((1 << 32) - len(placement.rom), len(placement.rom))
    cpu.map_rom(rom.base, rom.host_address, rom.size)

    def boot() -> None:
        rom.write(rom.base, placement.rom)
        for piece in placement.pieces:
            memory.fill(piece.address, piece.data, piece.size)
        if placement.needs_set_up:
            set_up(chipset, pci_memory[1] + 1)
        cpu.reset(RESET_VECTOR, ())

    def follow_devices() -> None:
        for window in native:
            window.follow()

    def nmi() -> None:
        for level in (True, False):
            cpu.set_interrupt("nmi", level)

    devices = chipset.devices()
    devices |= {uart.name: uart for uart in uarts} | {firmware.name: firmware}
    devices |= {function.name: function for _, function in sorted(bus.functions.items())}
    return Assembly(
        cpu=cpu,
        ram=ram,
        memory=memory,
        clock=clock,
        devices=devices,
        serial=[SerialPort(uart.receive, uart.capacity) for uart in uarts],
        memory_map=[
            *(window.region() for window in (*windows, *apart)),
            MemoryRegion("pc.ram", ram.base, ram.size, "ram"),
            MemoryRegion("pc.bios", rom.base, rom.size, "rom"),
        ],
        boot=boot,
        roms=(rom,),
        power_button=chipset.power.press_power_button,
        nmi=nmi,
        follow_devices=follow_devices,
        acpi_tables=b"".join(described.placed(TABLES)),
        pci_functions=lambda: pci_functions(bus),
        interrupt_controllers=lambda: pic_list(chipset.pic),
    )


def _check(spec: MachineSpec) -> None:
    """Raises UserError for what this board cannot be."""
    if spec.ram_bytes > RAM_MOST:
        raise UserError(f"-m: this machine takes at most {RAM_MOST // MIB}M of RAM")
    if spec.dtb is not None:
        raise UserError("-dtb: this machine has no device tree")
    if spec.serial_ports > len(SERIAL):
        raise UserError(f"-serial: this machine has {len(SERIAL)} serial ports")


def _transmit(order: Order, number: int) -> Callable[[bytes], None]:
    return lambda data: order.transmit(number, data)


def _placement(order: Order, ram: Ram, described: Tables) -> PcPlacement:
    spec, images = order.spec, order.images
    if images.kernel is None and images.bios is not None and not spec.loaders:
        return place_firmware(images.bios)
    if images.bios is not None:
        raise UserError("-bios with -kernel: this machine starts a kernel without firmware: leave one of them out")
    placed, root = described.placed(TABLES)
    return place_kernel(
        spec,
        images,
        ram.end,
        ranges(spec.ram_bytes),
        random_seed=derive(order.seed, "rng-seed", 32),
        rsdp=ROOT_POINTER,
        tables=(Piece(TABLES, placed, len(placed)), Piece(ROOT_POINTER, root, len(root))),
    )
