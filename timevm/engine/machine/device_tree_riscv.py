"""The device tree of a riscv board, made from the board's own table: nodes, names and phandles are QEMU's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from timevm.engine.machine.flattened_tree import Node, Tree, Wishes, cells

#: phandles
CPU, CPU_INTERRUPTS, PLIC, FINISHER = 1, 2, 3, 4
#: a hart's interrupts by number (Privileged Architecture, table of mcause)
MACHINE_SOFTWARE, MACHINE_TIMER, SUPERVISOR_EXTERNAL, MACHINE_EXTERNAL = 3, 7, 9, 11


@dataclass(frozen=True, slots=True)
class Processor:
    """``extensions``: single letters first, as the specification orders them."""

    extensions: tuple[str, ...]
    mmu: str
    timebase_hz: int

    @property
    def isa(self) -> str:
        letters = "".join(name for name in self.extensions if len(name) == 1)
        return "_".join([f"rv64{letters}", *(name for name in self.extensions if len(name) > 1)])


@dataclass(frozen=True, slots=True)
class Core:
    """The windows (base, size) that a hart's interrupts come from, and the values that end or restart the machine."""

    clint: tuple[int, int]
    plic: tuple[int, int]
    #: of the PLIC, without source 0
    sources: int
    power_off: int
    reboot: int


def build(ram: tuple[int, int], processor: Processor, core: Core, devices: Sequence[Node], wishes: Wishes) -> bytes:
    """The flattened tree; the same arguments give the same bytes.  What ends the machine is the device FINISHER."""
    tree = Tree()
    put = tree.put
    put("/", "#address-cells", 2)
    put("/", "#size-cells", 2)
    put("/", "compatible", "riscv-virtio")
    put("/", "model", "riscv-virtio,qemu")
    for name, value in (("poweroff", core.power_off), ("reboot", core.reboot)):
        put(f"/{name}", "compatible", f"syscon-{name}")
        put(f"/{name}", "regmap", FINISHER)
        put(f"/{name}", "offset", 0)
        put(f"/{name}", "value", value)
    tree.put_memory(*ram)
    _put_processor(tree, processor)
    put("/soc", "#address-cells", 2)
    put("/soc", "#size-cells", 2)
    put("/soc", "compatible", "simple-bus")
    put("/soc", "ranges")
    _put_core(tree, core)
    for node in devices:
        _put_device(tree, node)
    tree.put_wishes(wishes)
    return tree.blob()


def _put_processor(tree: Tree, processor: Processor) -> None:
    put = tree.put
    put("/cpus", "#address-cells", 1)
    put("/cpus", "#size-cells", 0)
    put("/cpus", "timebase-frequency", processor.timebase_hz)
    path = "/cpus/cpu@0"
    put(path, "phandle", CPU)
    put(path, "device_type", "cpu")
    put(path, "reg", 0)
    put(path, "status", "okay")
    put(path, "compatible", "riscv")
    put(path, "riscv,isa", processor.isa)
    put(path, "riscv,isa-base", "rv64i")
    put(path, "riscv,isa-extensions", processor.extensions)
    put(path, "mmu-type", f"riscv,{processor.mmu}")
    path = f"{path}/interrupt-controller"
    put(path, "#interrupt-cells", 1)
    put(path, "interrupt-controller")
    put(path, "compatible", "riscv,cpu-intc")
    put(path, "phandle", CPU_INTERRUPTS)
    put("/cpus/cpu-map/cluster0/core0", "cpu", CPU)


def _put_core(tree: Tree, core: Core) -> None:
    put = tree.put
    base, size = core.clint
    path = f"/soc/clint@{base:x}"
    put(path, "compatible", ["sifive,clint0", "riscv,clint0"])
    put(path, "reg", [*cells(base), *cells(size)])
    put(path, "interrupts-extended", [CPU_INTERRUPTS, MACHINE_SOFTWARE, CPU_INTERRUPTS, MACHINE_TIMER])
    base, size = core.plic
    path = f"/soc/plic@{base:x}"
    put(path, "compatible", ["sifive,plic-1.0.0", "riscv,plic0"])
    put(path, "reg", [*cells(base), *cells(size)])
    put(path, "#address-cells", 0)
    put(path, "#interrupt-cells", 1)
    put(path, "interrupt-controller")
    put(path, "interrupts-extended", [CPU_INTERRUPTS, MACHINE_EXTERNAL, CPU_INTERRUPTS, SUPERVISOR_EXTERNAL])
    put(path, "riscv,ndev", core.sources)
    put(path, "phandle", PLIC)


def _put_device(tree: Tree, node: Node) -> None:
    put = tree.put
    path = f"/soc/{node.title}@{node.base:x}"
    put(path, "compatible", list(node.compatible))
    put(path, "reg", [*cells(node.base), *cells(node.size)])
    if node.interrupt is not None:
        put(path, "interrupts", node.interrupt)
        put(path, "interrupt-parent", PLIC)
    for name, value in node.properties:
        put(path, name, value)
    for name in node.flags:
        put(path, name)
    if node.phandle is not None:
        put(path, "phandle", node.phandle)
