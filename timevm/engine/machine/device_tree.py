"""The device tree of an arm64 board, made from the board's own table (Devicetree Specification 0.4, Linux bindings)."""

from __future__ import annotations

from collections.abc import Sequence

from timevm.engine.machine.flattened_tree import Node, Tree, Wishes, cells

#: of the generic interrupt controller's binding: kind of interrupt, trigger
SHARED, PRIVATE = 0, 1
EDGE_RISING, LEVEL_HIGH = 1, 4
#: a private interrupt that goes to CPU 0
PRIVATE_LEVEL_HIGH = 0x104
CLOCK_HZ = 24_000_000
GIC, CLOCK, GPIO = 1, 2, 3  # phandles
#: Linux input code of the power key
KEY_POWER = 116


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
    tree = Tree()
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
    tree.put_memory(ram_base, ram_size)
    tree.put_wishes(wishes)
    return tree.blob()


def _put_processor(tree: Tree, compatible: str) -> None:
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


def _put_gic(tree: Tree, gic: tuple[tuple[int, int], tuple[int, int]]) -> None:
    put = tree.put
    (base, _), _ = gic
    path = f"/intc@{base:x}"
    put(path, "compatible", "arm,cortex-a15-gic")
    put(path, "#interrupt-cells", 3)
    put(path, "#address-cells", 2)
    put(path, "#size-cells", 2)
    put(path, "interrupt-controller")
    put(path, "ranges")
    put(path, "reg", [cell for window in gic for number in window for cell in cells(number)])
    put(path, "phandle", GIC)


def _put_power_key(tree: Tree, line: int) -> None:
    put = tree.put
    put("/gpio-keys", "compatible", "gpio-keys")
    put("/gpio-keys/poweroff", "label", "power button")
    put("/gpio-keys/poweroff", "linux,code", KEY_POWER)
    put("/gpio-keys/poweroff", "gpios", [GPIO, line, 0])


def _put_device(tree: Tree, node: Node) -> None:
    put = tree.put
    path = f"/{node.title}@{node.base:x}"
    put(path, "compatible", list(node.compatible))
    put(path, "reg", [*cells(node.base), *cells(node.size)])
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
