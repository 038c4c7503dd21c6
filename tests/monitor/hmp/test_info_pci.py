"""``info pci`` and ``query-pci`` on a real pc machine: the text that QEMU 7.2 prints for the same one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.monitor.toy_vm import ToyVm
from tests.peers import need_file
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import ReplayMode
from timevm.engine.machine.spec import MIB, DeviceOption, MachineSpec
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.commands.dispatch import execute, on_wire
from timevm.monitor.hmp.line import run_hmp_line

#: instructions until SeaBIOS has given addresses and interrupts to everybody
SET_UP = 50_000_000

#: printed by qemu-system-x86_64 7.2.22 -M pc-i440fx-7.2 -m 64 -nodefaults -device rtl8139,romfile=,id=card,
#: when SeaBIOS has done that
QEMU = """\
  Bus  0, device   0, function 0:
    Host bridge: PCI device 8086:1237
      PCI subsystem 1af4:1100
      id ""
  Bus  0, device   1, function 0:
    ISA bridge: PCI device 8086:7000
      PCI subsystem 1af4:1100
      id ""
  Bus  0, device   1, function 1:
    IDE controller: PCI device 8086:7010
      PCI subsystem 1af4:1100
      BAR4: I/O at 0xc100 [0xc10f].
      id ""
  Bus  0, device   1, function 3:
    Bridge: PCI device 8086:7113
      PCI subsystem 1af4:1100
      IRQ 9, pin A
      id ""
  Bus  0, device   2, function 0:
    Ethernet controller: PCI device 10ec:8139
      PCI subsystem 1af4:1100
      IRQ 10, pin A
      BAR0: I/O at 0xc000 [0xc0ff].
      BAR1: 32 bit memory at 0xfebff000 [0xfebff0ff].
      id "card"
"""


def pc(*devices: DeviceOption) -> MachineSpec:
    return MachineSpec(
        architecture="x86_64",
        machine="pc",
        cpu="qemu64",
        ram_bytes=64 * MIB,
        bios=need_file("/usr/share/seabios/bios-256k.bin"),
        shift=2,
        sleep=False,
        seed=1,
        rtc_base=0,
        devices=devices,
    )


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = build_machine(pc(DeviceOption("rtl8139", "card"), DeviceOption("virtio-rng-pci")), lambda port, data: None)
    yield made
    made.close()


def context_of(machine: Machine) -> MonitorContext:
    vm = ToyVm(ReplayMode.NONE)
    vm.machine.pci_functions = machine.pci_functions  # type: ignore[method-assign]
    return MonitorContext(vm)


async def test_when_firmware_has_set_it_up() -> None:
    machine = build_machine(pc(DeviceOption("rtl8139", "card")), lambda port, data: None)
    machine.run(SET_UP)
    assert await run_hmp_line("info pci", context_of(machine)) == QEMU
    machine.close()


async def test_at_power_on(machine: Machine) -> None:
    """Nothing has an address, which QEMU says in this way."""
    shown = await run_hmp_line("info pci", context_of(machine))
    assert "      BAR4: I/O at 0xffffffffffffffff [0x000e].\n" in shown
    assert "      BAR1: 32 bit memory at 0xffffffffffffffff [0x000000fe].\n" in shown
    assert "    Class 0255: PCI device 1af4:1005\n      PCI subsystem 1af4:0004\n      IRQ 0, pin A\n" in shown


async def test_over_qmp(machine: Machine) -> None:
    (bus,) = on_wire(await execute(context_of(machine), "query-pci", {}))
    assert bus["bus"] == 0 and [(each["slot"], each["function"]) for each in bus["devices"]] == [
        *((0, 0), (1, 0), (1, 1), (1, 3)),
        *((2, 0), (3, 0)),
    ]
    assert bus["devices"][0] == {  # as QEMU answers
        "bus": 0,
        "slot": 0,
        "function": 0,
        "class_info": {"class": 1536, "desc": "Host bridge"},
        "id": {"device": 4663, "subsystem-vendor": 6900, "vendor": 32902, "subsystem": 4352},
        "irq_pin": 0,
        "qdev_id": "",
        "regions": [],
    }
    assert bus["devices"][4] == {
        "bus": 0,
        "slot": 2,
        "function": 0,
        "class_info": {"class": 512, "desc": "Ethernet controller"},
        "id": {"device": 33081, "subsystem-vendor": 6900, "vendor": 4332, "subsystem": 4352},
        "irq_pin": 1,
        "irq": 0,
        "qdev_id": "card",
        "regions": [
            {"bar": 0, "size": 256, "address": -1, "type": "io"},
            {"prefetch": False, "mem_type_64": False, "bar": 1, "size": 256, "address": -1, "type": "memory"},
        ],
    }
    assert bus["devices"][5]["class_info"] == {"class": 255}


async def test_a_machine_without_pci() -> None:
    context = MonitorContext(ToyVm())
    assert await run_hmp_line("info pci", context) == "PCI devices not supported\n"
    assert await execute(context, "query-pci", {}) == []
