"""The ``virt`` board (aarch64): QEMU's memory map and interrupt numbers (hw/arm/virt.c) as data, and its assembly."""

from __future__ import annotations

import logging

from timevm.engine.clock.virtual_clock import VirtualClock
from timevm.engine.cpu.aarch64 import Aarch64Cpu
from timevm.engine.cpu.base import MmioHandler
from timevm.engine.cpu.unicorn_cpu import UnicornWindow
from timevm.engine.devices import pl011
from timevm.engine.devices.base import Stateful
from timevm.engine.devices.gicv2 import Gicv2
from timevm.engine.devices.gicv2_interrupts import FIRST_SPI
from timevm.engine.devices.gpio_key import GpioKey
from timevm.engine.devices.pl011 import Pl011
from timevm.engine.devices.pl031 import Pl031
from timevm.engine.devices.pl061 import Pl061
from timevm.engine.machine.assembly import Assembly, Order, SerialPort
from timevm.engine.machine.boards.virt_flash import Flash
from timevm.engine.machine.boards.virtio_slots import MODERN_VIRTIO, Places, fill_slots
from timevm.engine.machine.bus import Window, map_windows
from timevm.engine.machine.device_tree import EDGE_RISING, GPIO, build
from timevm.engine.machine.flattened_tree import Node, Wishes
from timevm.engine.machine.interrupt_list import gic_list
from timevm.engine.machine.linux_arm64_boot import place
from timevm.engine.machine.memory import SystemMemory
from timevm.engine.machine.outcome import MemoryRegion
from timevm.engine.machine.ram import Ram
from timevm.engine.machine.randomness import derive, derive_number
from timevm.engine.machine.virtio_devices import make_devices
from timevm.errors import UserError

RAM_BASE = 0x4000_0000
GIC_DISTRIBUTOR = (0x0800_0000, 0x1_0000)
GIC_CPU_INTERFACE = (0x0801_0000, 0x1_0000)
#: shared interrupts of the controller
SPI_COUNT = 256
UART = Node("pl011", ("arm,pl011", "arm,primecell"), 0x0900_0000, 0x1000, interrupt=1, clocks=("uartclk", "apb_pclk"))
CLOCK = Node("pl031", ("arm,pl031", "arm,primecell"), 0x0901_0000, 0x1000, interrupt=2, clocks=("apb_pclk",))
PINS = Node(
    "pl061",
    ("arm,pl061", "arm,primecell"),
    0x0903_0000,
    0x1000,
    interrupt=7,
    clocks=("apb_pclk",),
    properties=(("#gpio-cells", 2),),
    flags=("gpio-controller",),
    phandle=GPIO,
)
#: where the power button is on them
POWER_KEY_LINE = 3
#: interrupt ids of the CPU's own timers (private interrupts: Arm BSA, table 9)
TIMER_INTERRUPTS = {"virtual-timer": 27, "physical-timer": 30}
#: of two disks the *last* one on the command line is vda: Linux looks at the slots by ascending address
VIRTIO = Places(0x0A00_0000, 0x200, 32, first_interrupt=16, trigger=EDGE_RISING, flags=("dma-coherent",))
#: each CPU model's compatible string in the device tree
CPU_COMPATIBLE = {
    "cortex-a53": "arm,cortex-a53",
    "cortex-a57": "arm,cortex-a57",
    "cortex-a72": "arm,cortex-a72",
    "max": "arm,armv8",
}


class _CpuLine:
    """``InterruptLine`` into the CPU."""

    def __init__(self, cpu: Aarch64Cpu, name: str) -> None:
        self._cpu, self._name = cpu, name

    def set(self, level: bool) -> None:
        self._cpu.set_interrupt(self._name, level)


class _SerialWindow:
    """The UART's hot registers are served natively: 97 % of a boot's device accesses are its flags and its data."""

    def __init__(self, uart: Pl011, window: UnicornWindow) -> None:
        self._uart, self._window = uart, window
        uart.changed = self.follow
        self.follow()

    def follow(self) -> None:
        self._window.set_constant_read(pl011.FR, self._uart.flag_register())
        self._window.set_output(pl011.DR if self._uart.transmit_is_quiet() else None)


_log = logging.getLogger(__name__)


def assemble(order: Order) -> Assembly:
    """Raises UserError, HostError."""
    spec = order.spec
    if spec.bios is not None and spec.kernel is not None:
        raise UserError("-bios with -kernel: this machine starts a kernel without firmware: leave one of them out")
    if spec.kernel is None and spec.bios is None and not spec.loaders:
        _log.warning("the guest has nothing to execute: give it -kernel, -bios or -device loader")
    cpu = Aarch64Cpu(
        spec.cpu,
        time_shift=order.shift,
        seed=derive_number(order.seed, "RNDR"),
        timer_line=lambda name, level: gic.set_line(TIMER_INTERRUPTS[name], level),
    )
    ram = Ram(RAM_BASE, spec.ram_bytes)
    cpu.map_ram(ram.base, ram.host_address, ram.size)
    memory = SystemMemory(cpu, ram)
    clock = VirtualClock(order.shift, lambda: cpu.icount, cpu.ask_attention)
    gic = Gicv2(SPI_COUNT, _CpuLine(cpu, "irq"), _CpuLine(cpu, "fiq"))
    uart = Pl011("uart0", gic.line(FIRST_SPI + 1), lambda data: order.transmit(0, data))
    rtc = Pl031("rtc", gic.line(FIRST_SPI + 2), clock, order.rtc_base)
    pins = Pl061("gpio", gic.line(FIRST_SPI + 7))
    power_key = GpioKey("power-key", pins.line(POWER_KEY_LINE), clock)
    devices: dict[str, Stateful] = {device.name: device for device in (gic, uart, rtc, pins, power_key)}
    slots = fill_slots(
        make_devices(spec, order.disks, order.cables, memory.of, order.seed, "device"),
        VIRTIO,
        lambda number: gic.line(FIRST_SPI + number),
        modern=(MODERN_VIRTIO in spec.machine_properties),
    )
    devices |= slots.devices
    nodes = [UART, CLOCK, PINS, *slots.nodes]
    windows = [
        Window("gic-distributor", *GIC_DISTRIBUTOR, gic.distributor),
        Window("gic-cpu-interface", *GIC_CPU_INTERFACE, gic.cpu_interface),
        Window("rtc", CLOCK.base, CLOCK.size, rtc),
        Window("gpio", PINS.base, PINS.size, pins),
        *slots.windows,
    ]

    def map_pages(base: int, size: int, handler: MmioHandler) -> None:
        cpu.map_mmio(base, size, handler)

    map_windows(windows, map_pages)
    serial_window = _SerialWindow(uart, cpu.map_mmio(UART.base, UART.size, uart, lambda data: order.transmit(0, data)))

    def device_tree(initrd: tuple[int, int] | None) -> bytes:
        return build(
            ram.base,
            ram.size,
            CPU_COMPATIBLE[spec.cpu],
            (GIC_DISTRIBUTOR, GIC_CPU_INTERFACE),
            nodes,
            Wishes(
                arguments=spec.append,
                console=f"/{UART.title}@{UART.base:x}",
                random_seed=derive(order.seed, "rng-seed", 32),
                layout_seed=derive(order.seed, "kaslr-seed", 8),
                initrd=initrd,
            ),
            POWER_KEY_LINE,
        )

    placement = place(spec, order.images, ram.base, ram.end, device_tree)

    flash = Flash(order.images.bios, cpu)

    def boot() -> None:
        flash.fill()
        for piece in placement.pieces:
            memory.fill(piece.address, piece.data, piece.size)
        cpu.reset(placement.start, placement.arguments)

    return Assembly(
        cpu=cpu,
        ram=ram,
        memory=memory,
        clock=clock,
        devices=devices,
        serial=[SerialPort(uart.receive, uart.capacity)],
        memory_map=[
            *(window.region() for window in windows),
            MemoryRegion(uart.name, UART.base, UART.size, "io"),
            MemoryRegion("mach-virt.ram", ram.base, ram.size, "ram"),
            *flash.regions,
        ],
        boot=boot,
        roms=flash.roms,
        power_button=power_key.press,
        follow_devices=serial_window.follow,
        device_tree=placement.device_tree,
        interrupt_controllers=lambda: gic_list(gic),
    )
