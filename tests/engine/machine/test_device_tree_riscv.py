"""The riscv board's device tree, parsed back."""

from __future__ import annotations

from tests.engine.machine.test_device_tree import parsed
from timevm.engine.machine.device_tree_riscv import FINISHER, Core, Processor, build
from timevm.engine.machine.flattened_tree import Node, Wishes

PROCESSOR = Processor(("i", "m", "a", "c", "zicsr", "zifencei"), "sv39", 10_000_000)
CORE = Core((0x200_0000, 0x1_0000), (0xC00_0000, 0x60_0000), 95, power_off=0x5555, reboot=0x7777)
DEVICES = [
    Node("test", ("sifive,test1", "syscon"), 0x10_0000, 0x1000, phandle=FINISHER),
    Node("serial", ("ns16550a",), 0x1000_0000, 0x100, 10, properties=(("clock-frequency", 3_686_400),)),
]


def test_everything_has_its_place() -> None:
    wishes = Wishes("console=ttyS0", "/soc/serial@10000000", b"seed", initrd=(0x8800_0000, 0x8800_0010))
    nodes = parsed(build((0x8000_0000, 0x1_0000_0000), PROCESSOR, CORE, DEVICES, wishes))
    assert nodes["/memory@80000000"]["reg"] == [0, 0x8000_0000, 1, 0]
    assert nodes["/cpus"]["timebase-frequency"] == [10_000_000]
    cpu = nodes["/cpus/cpu@0"]
    assert cpu["riscv,isa"] == ["rv64imac_zicsr_zifencei"] and cpu["mmu-type"] == ["riscv,sv39"]
    assert cpu["riscv,isa-base"] == ["rv64i"]
    assert cpu["riscv,isa-extensions"] == ["i", "m", "a", "c", "zicsr", "zifencei"]
    hart = nodes["/cpus/cpu@0/interrupt-controller"]["phandle"][0]
    assert nodes["/cpus/cpu-map/cluster0/core0"]["cpu"] == cpu["phandle"]
    assert nodes["/soc/clint@2000000"]["interrupts-extended"] == [hart, 3, hart, 7]
    plic = nodes["/soc/plic@c000000"]
    assert plic["interrupts-extended"] == [hart, 11, hart, 9] and plic["riscv,ndev"] == [95]
    serial = nodes["/soc/serial@10000000"]
    assert serial["interrupts"] == [10] and serial["interrupt-parent"] == plic["phandle"]
    assert serial["reg"] == [0, 0x1000_0000, 0, 0x100] and serial["clock-frequency"] == [3_686_400]
    finisher = nodes["/soc/test@100000"]["phandle"]
    assert "interrupts" not in nodes["/soc/test@100000"]
    for name, value in (("poweroff", 0x5555), ("reboot", 0x7777)):
        assert nodes[f"/{name}"] == {
            "compatible": [f"syscon-{name}"],
            "regmap": finisher,
            "offset": [0],
            "value": [value],
        }
    assert nodes["/chosen"] == {
        "stdout-path": ["/soc/serial@10000000"],
        "bootargs": ["console=ttyS0"],
        "linux,initrd-start": [0, 0x8800_0000],
        "linux,initrd-end": [0, 0x8800_0010],
        "rng-seed": [int.from_bytes(b"seed", "big")],
    }
