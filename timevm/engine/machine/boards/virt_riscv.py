"""The ``virt`` board (riscv64): QEMU's memory map and interrupt numbers (hw/riscv/virt.c) as data, and its assembly.

Without ``-bios`` the hart starts in S-mode and timevm is its firmware (decision 0160); with ``-bios none`` or a file it
starts in M-mode.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from timevm.engine.clock.virtual_clock import VirtualClock
from timevm.engine.cpu.base import MmioHandler, StopKind
from timevm.engine.cpu.riscv64 import NS_PER_TICK, Riscv64Cpu
from timevm.engine.cpu.sbi import Arguments, Sbi, SbiOutcome
from timevm.engine.devices import sifive_test
from timevm.engine.devices.base import Stateful
from timevm.engine.devices.goldfish_rtc import GoldfishRtc
from timevm.engine.devices.riscv_clint import Clint
from timevm.engine.devices.sifive_plic import SifivePlic
from timevm.engine.devices.sifive_test import TestFinisher
from timevm.engine.devices.uart16550 import Uart16550
from timevm.engine.machine.assembly import Assembly, Order, SerialPort
from timevm.engine.machine.boards.uart_window import UartWindow
from timevm.engine.machine.boards.virt_riscv_firmware import FirmwarePlatform
from timevm.engine.machine.boards.virtio_slots import MODERN_VIRTIO, Places, fill_slots
from timevm.engine.machine.bus import SharedPages, Window, map_windows
from timevm.engine.machine.device_tree_riscv import FINISHER, Core, Processor, build
from timevm.engine.machine.flattened_tree import Node, Wishes
from timevm.engine.machine.interrupt_list import plic_list
from timevm.engine.machine.linux_riscv_boot import place
from timevm.engine.machine.memory import SystemMemory
from timevm.engine.machine.memory_access import MemoryAccess
from timevm.engine.machine.outcome import MemoryRegion
from timevm.engine.machine.ram import Ram
from timevm.engine.machine.randomness import derive, derive_number
from timevm.engine.machine.spec import NO_FIRMWARE
from timevm.engine.machine.virtio_devices import make_devices

RAM_BASE = 0x8000_0000
CLINT = (0x0200_0000, Clint.window)
PLIC = (0x0C00_0000, SifivePlic.window)
#: sources of the interrupt controller, 0 included, which is none
SOURCES = 97
TEST = Node("test", ("sifive,test1", "sifive,test0", "syscon"), 0x0010_0000, 0x1000, phandle=FINISHER)
CLOCK = Node("rtc", ("google,goldfish-rtc",), 0x0010_1000, 0x1000, interrupt=11)
UART = Node("serial", ("ns16550a",), 0x1000_0000, 0x100, interrupt=10, properties=(("clock-frequency", 3_686_400),))
#: Linux looks at the slots in the order of the tree, which is by descending address: the first disk of the command
#: line is vda
VIRTIO = Places(0x1000_1000, 0x1000, 8, first_interrupt=1, trigger=0)
#: what Unicorn's CPU can do
PROCESSOR = Processor(("i", "m", "a", "f", "d", "c", "zicsr", "zifencei"), "sv48", 1_000_000_000 // NS_PER_TICK)
#: and, where nobody else is in M-mode: a timer that S-mode sets by itself
OWN_TIMER = "sstc"
PAGE = 4096


class _CpuLine:
    """``InterruptLine`` into the CPU: a bit of its mip register."""

    def __init__(self, cpu: Riscv64Cpu, name: str) -> None:
        self._cpu, self._name = cpu, name

    def set(self, level: bool) -> None:
        self._cpu.set_interrupt(self._name, level)


_log = logging.getLogger(__name__)


def assemble(order: Order) -> Assembly:
    """Raises UserError, HostError."""
    spec = order.spec
    is_bare = NO_FIRMWARE in spec.machine_properties
    is_own_firmware = not is_bare and spec.bios is None
    if spec.kernel is None and spec.bios is None and not spec.loaders:
        _log.warning("the guest has nothing to execute: give it -kernel, -bios FILE or -device loader")

    processor = replace(PROCESSOR, extensions=(*PROCESSOR.extensions, OWN_TIMER)) if is_own_firmware else PROCESSOR

    def call_firmware(extension: int, function: int, arguments: Arguments) -> SbiOutcome:
        return firmware(extension, function, arguments)

    cpu = Riscv64Cpu(
        spec.cpu,
        time_shift=order.shift,
        seed=derive_number(order.seed, "seed"),
        sbi=call_firmware if is_own_firmware else None,
    )
    ram = Ram(RAM_BASE, spec.ram_bytes)
    cpu.map_ram(ram.base, ram.host_address, ram.size)
    memory = SystemMemory(cpu, ram)
    clock = VirtualClock(order.shift, lambda: cpu.icount, cpu.ask_attention)

    def transmit(data: bytes) -> None:
        order.transmit(0, data)

    def power_off(exit_code: int | None) -> None:
        cpu.ask_stop(StopKind.POWER_OFF, exit_code)

    plic = SifivePlic("plic", SOURCES, [_CpuLine(cpu, "meip"), _CpuLine(cpu, "seip")])
    clint = Clint("clint", _CpuLine(cpu, "msip"), _CpuLine(cpu, "mtip"), clock, NS_PER_TICK)
    uart = Uart16550("uart0", plic.line(10), transmit)
    rtc = GoldfishRtc("rtc", plic.line(11), clock, order.rtc_base)
    test = TestFinisher("test", power_off, lambda: cpu.ask_stop(StopKind.RESET))
    devices: dict[str, Stateful] = {device.name: device for device in (plic, clint, uart, rtc)}
    platform = FirmwarePlatform(
        "sbi",
        software=_CpuLine(cpu, "ssip"),
        timer=_CpuLine(cpu, "stip"),
        time=clock,
        tick_ns=NS_PER_TICK,
        uart=uart,
        transmit=transmit,
        memory=memory.of("sbi"),
        virtual=MemoryAccess(cpu, ram).read,
    )
    firmware = Sbi(platform)
    if is_own_firmware:
        devices[platform.name] = platform
    slots = fill_slots(
        make_devices(spec, order.disks, order.cables, memory.of, order.seed, "device"),
        VIRTIO,
        plic.line,
        modern=(MODERN_VIRTIO in spec.machine_properties),
    )
    devices |= slots.devices
    windows = [
        Window("test", TEST.base, TEST.size, test),
        Window("rtc", CLOCK.base, CLOCK.size, rtc),
        Window("clint", *CLINT, clint),
        Window("plic", *PLIC, plic),
        *slots.windows,
    ]

    def map_pages(base: int, size: int, handler: MmioHandler) -> None:
        cpu.map_mmio(base, size, handler)

    map_windows(windows, map_pages)
    serial = Window(uart.name, UART.base, Uart16550.window, uart)
    serial_window = UartWindow(uart, cpu.map_mmio(UART.base, PAGE, SharedPages(UART.base, [serial]), transmit))

    def device_tree(initrd: tuple[int, int] | None) -> bytes:
        return build(
            (ram.base, ram.size),
            processor,
            Core(CLINT, PLIC, SOURCES - 1, power_off=sifive_test.PASS, reboot=sifive_test.RESET),
            [*reversed(slots.nodes), TEST, UART, CLOCK],
            Wishes(
                arguments=spec.append,
                console=f"/soc/{UART.title}@{UART.base:x}",
                random_seed=derive(order.seed, "rng-seed", 32),
                initrd=initrd,
            ),
        )

    placement = place(spec, order.images, ram.base, ram.end, device_tree, is_bare=is_bare)

    def boot() -> None:
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
            *(window.region() for window in (*windows, serial)),
            MemoryRegion("riscv_virt_board.ram", ram.base, ram.size, "ram"),
        ],
        boot=boot,
        follow_devices=serial_window.follow,
        device_tree=placement.device_tree,
        interrupt_controllers=lambda: plic_list(plic, ("machine mode", "supervisor mode")),
    )
