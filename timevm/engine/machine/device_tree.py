"""The device tree of an arm64 board, made from the board's own table (Devicetree Specification 0.4, Linux bindings)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import fdt

#: of the generic interrupt controller's binding: kind of interrupt, trigger
SHARED, PRIVATE = 0, 1
EDGE_RISING, LEVEL_HIGH = 1, 4
#: a private interrupt that goes to CPU 0
PRIVATE_LEVEL_HIGH = 0x104
CLOCK_HZ = 24_000_000
GIC, CLOCK, GPIO = 1, 2, 3  # phandles
#: Linux input code of the power key
KEY_POWER = 116


@dataclass(frozen=True, slots=True)
class Node:
    """One device of the board: its window and its shared interrupt (None: none)."""

    title: str
    compatible: tuple[str, ...]
    base: int
    size: int
    interrupt: int | None = None
    trigger: int = LEVEL_HIGH
    clocks: tuple[str, ...] = ()
    #: further properties: numbers or strings
    properties: tuple[tuple[str, int | str], ...] = ()
    flags: tuple[str, ...] = ()
    phandle: int | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the tree tells the kernel beyond the hardware.  Seeds are random bytes of any length."""

    arguments: str
    console: str
    random_seed: bytes
    layout_seed: bytes
    initrd: tuple[int, int] | None = None


def _cells(value: int) -> list[int]:
    return [value >> 32, value & 0xFFFF_FFFF]


def build(
    ram_base: int,
    ram_size: int,
    cpu_compatible: str,
    gic: tuple[tuple[int, int], tuple[int, int]],
    devices: Sequence[Node],
    wishes: Wishes,
    power_key_line: int | None = None,
) -> bytes:
    """The flattened tree; the same arguments give the same bytes.  ``gic``: base and size of its two windows.

    ``power_key_line``: where the power button is on the board's GPIO (the device with that phandle).
    """
    tree = _Tree()
    put = tree.put
    put("/", "interrupt-parent", GIC)
    put("/", "model", "linux,dummy-virt")
    put("/", "#size-cells", 2)
    put("/", "#address-cells", 2)
    put("/", "compatible", "linux,dummy-virt")
    _put_processor(tree, cpu_compatible)
    _put_gic(tree, gic)
    clock = "/apb-pclk"
    put(clock, "compatible", "fixed-clock")
    put(clock, "#clock-cells", 0)
    put(clock, "clock-frequency", CLOCK_HZ)
    put(clock, "clock-output-names", "clk24mhz")
    put(clock, "phandle", CLOCK)
    for node in devices:
        _put_device(tree, node)
    if power_key_line is not None:
        _put_power_key(tree, power_key_line)
    memory = f"/memory@{ram_base:x}"
    put(memory, "device_type", "memory")
    put(memory, "reg", [*_cells(ram_base), *_cells(ram_size)])
    put("/chosen", "stdout-path", wishes.console)
    if wishes.arguments:
        put("/chosen", "bootargs", argument_bytes(wishes.arguments))
    if wishes.initrd is not None:
        put("/chosen", "linux,initrd-start", _cells(wishes.initrd[0]))
        put("/chosen", "linux,initrd-end", _cells(wishes.initrd[1]))
    put("/chosen", "rng-seed", _words(wishes.random_seed))
    put("/chosen", "kaslr-seed", _words(wishes.layout_seed))
    return tree.blob()


class _Tree:
    """Nodes come into being when something is put into them."""

    def __init__(self) -> None:
        self._tree = fdt.FDT(entries=[])

    def put(self, path: str, name: str, value: int | str | bytes | Sequence[int] | Sequence[str] | None = None) -> None:
        """A property: cells, strings, bytes, or nothing (a flag)."""
        node = self._tree.get_node(path, create=True)
        match value:
            case None:
                node.append(fdt.Property(name))
            case int():
                node.append(fdt.PropWords(name, value))
            case str():
                node.append(fdt.PropStrings(name, value))
            case bytes():
                node.append(fdt.PropBytes(name, data=value))
            case [str(), *_]:
                node.append(fdt.PropStrings(name, *value))
            case _:
                node.append(fdt.PropWords(name, *value))

    def blob(self) -> bytes:
        return bytes(self._tree.to_dtb(version=17, last_comp_version=16, boot_cpuid_phys=0))


def argument_bytes(arguments: str) -> bytes:
    """The kernel's command line as a property: the bytes that the user typed, in any alphabet."""
    return arguments.encode(errors="surrogateescape") + b"\0"


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4)]


def _put_processor(tree: _Tree, compatible: str) -> None:
    put = tree.put
    put("/psci", "compatible", ["arm,psci-1.0", "arm,psci-0.2", "arm,psci"])
    put("/psci", "method", "hvc")
    put("/cpus", "#address-cells", 1)
    put("/cpus", "#size-cells", 0)
    put("/cpus/cpu@0", "device_type", "cpu")
    put("/cpus/cpu@0", "compatible", compatible)
    put("/cpus/cpu@0", "reg", 0)
    put("/cpus/cpu@0", "enable-method", "psci")
    put("/timer", "compatible", ["arm,armv8-timer", "arm,armv7-timer"])
    lines = (13, 14, 11, 10)  # secure physical, physical, virtual, hypervisor (Arm BSA, table 9)
    put("/timer", "interrupts", [cell for line in lines for cell in (PRIVATE, line, PRIVATE_LEVEL_HIGH)])
    put("/timer", "always-on")


def _put_gic(tree: _Tree, gic: tuple[tuple[int, int], tuple[int, int]]) -> None:
    put = tree.put
    (base, _), _ = gic
    path = f"/intc@{base:x}"
    put(path, "compatible", "arm,cortex-a15-gic")
    put(path, "#interrupt-cells", 3)
    put(path, "#address-cells", 2)
    put(path, "#size-cells", 2)
    put(path, "interrupt-controller")
    put(path, "ranges")
    put(path, "reg", [cell for window in gic for number in window for cell in _cells(number)])
    put(path, "phandle", GIC)


def _put_power_key(tree: _Tree, line: int) -> None:
    put = tree.put
    put("/gpio-keys", "compatible", "gpio-keys")
    put("/gpio-keys/poweroff", "label", "power button")
    put("/gpio-keys/poweroff", "linux,code", KEY_POWER)
    put("/gpio-keys/poweroff", "gpios", [GPIO, line, 0])


def _put_device(tree: _Tree, node: Node) -> None:
    put = tree.put
    path = f"/{node.title}@{node.base:x}"
    put(path, "compatible", list(node.compatible))
    put(path, "reg", [*_cells(node.base), *_cells(node.size)])
    if node.interrupt is not None:
        put(path, "interrupts", [SHARED, node.interrupt, node.trigger])
    if node.clocks:
        put(path, "clocks", [CLOCK] * len(node.clocks))
        put(path, "clock-names", list(node.clocks))
    for name, value in node.properties:
        put(path, name, value)
    for name in node.flags:
        put(path, name)
    if node.phandle is not None:
        put(path, "phandle", node.phandle)
