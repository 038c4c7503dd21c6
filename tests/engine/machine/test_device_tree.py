"""The board's device tree, parsed back and held against QEMU's."""

from __future__ import annotations

import gzip
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import fdt
import pytest

from timevm.engine.machine.builder import device_tree_of
from timevm.engine.machine.device_tree import KEY_POWER, build
from timevm.engine.machine.flattened_tree import Node, Wishes
from timevm.engine.machine.spec import CPU_MODELS, GIB, MIB, MachineSpec
from timevm.errors import HostError, UserError

GIC = ((0x0800_0000, 0x1_0000), (0x0801_0000, 0x1_0000))
UART = Node("uart", ("arm,pl011", "arm,primecell"), 0x0900_0000, 0x1000, interrupt=1, clocks=("uartclk", "apb_pclk"))
WISHES = Wishes("console=ttyAMA0", "/uart@9000000", bytes(range(32)), b"layouts!", (0x4800_0000, 0x4800_1234))

Properties = dict[str, Any]


def parsed(blob: bytes) -> dict[str, Properties]:
    """Path of each node -> its properties: lists of cells or of strings."""
    fdt.FDT().entries.clear()  # the library's trees share it, as a default argument
    tree = fdt.parse_dtb(blob)
    nodes: dict[str, Properties] = {}
    for path, _, properties in tree.walk():
        nodes[path] = {each.name: list(each.data) if hasattr(each, "data") else [] for each in properties}
    return nodes


def tree_of(**changes: Any) -> dict[str, Properties]:
    return parsed(device_tree_of(replace(MachineSpec(seed=1, rtc_base=0), **changes)))


def test_everything_that_was_asked_for() -> None:
    nodes = parsed(build(0x4000_0000, 4 * GIB, "arm,cortex-a72", GIC, [UART], WISHES))
    assert nodes["/memory@40000000"] == {"device_type": ["memory"], "reg": [0, 0x4000_0000, 1, 0]}
    assert nodes["/cpus/cpu@0"]["compatible"] == ["arm,cortex-a72"]
    assert nodes["/uart@9000000"]["reg"] == [0, 0x0900_0000, 0, 0x1000]
    assert nodes["/uart@9000000"]["interrupts"] == [0, 1, 4]
    assert nodes["/chosen"] == {
        "stdout-path": ["/uart@9000000"],
        "bootargs": ["console=ttyAMA0"],
        "linux,initrd-start": [0, 0x4800_0000],
        "linux,initrd-end": [0, 0x4800_1234],
        "rng-seed": [int.from_bytes(WISHES.random_seed[at : at + 4], "big") for at in range(0, 32, 4)],
        "kaslr-seed": [int.from_bytes(b"layo", "big"), int.from_bytes(b"uts!", "big")],
    }
    assert "/gpio-keys" not in nodes


def test_what_was_not_asked_for_is_not_there() -> None:
    wishes = replace(WISHES, arguments="", initrd=None)
    chosen = parsed(build(0x4000_0000, 16 * MIB, "arm,armv8", GIC, [UART], wishes))["/chosen"]
    assert set(chosen) == {"stdout-path", "rng-seed", "kaslr-seed"}


def test_the_same_arguments_give_the_same_bytes() -> None:
    def once() -> bytes:
        return build(0x4000_0000, 128 * MIB, "arm,cortex-a57", GIC, [UART], WISHES, power_key_line=3)

    assert once() == once()
    assert device_tree_of(MachineSpec(seed=5)) == device_tree_of(MachineSpec(seed=5, rtc_base=7))
    assert device_tree_of(MachineSpec(seed=5)) != device_tree_of(MachineSpec(seed=6))
    assert device_tree_of(MachineSpec()) != device_tree_of(MachineSpec()), (
        "a machine that is not replayed has new seeds"
    )


@pytest.mark.parametrize("ram", [16 * MIB, 128 * MIB, 4 * GIB])
def test_ram(ram: int) -> None:
    assert tree_of(ram_bytes=ram)["/memory@40000000"]["reg"] == [0, 0x4000_0000, ram >> 32, ram & 0xFFFF_FFFF]


def test_arguments_of_any_alphabet() -> None:
    typed = b"init=/bin/\xc3\xa4 \xff"  # the last is no UTF-8: Python's argv has it as a surrogate
    blob = device_tree_of(MachineSpec(append=typed.decode(errors="surrogateescape")))
    assert typed + b"\0" in blob
    assert bytes(parsed(blob)["/chosen"]["bootargs"]) == typed + b"\0"


def test_errors_are_those_of_the_machine(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="could not load kernel"):
        device_tree_of(MachineSpec(kernel=tmp_path / "none"))
    with pytest.raises(UserError, match="unsupported machine type"):
        device_tree_of(MachineSpec(machine="none"))


def test_dumping_records_nothing(tmp_path: Path) -> None:
    device_tree_of(MachineSpec(mode="record", rrfile=tmp_path / "x.rr"))
    assert not (tmp_path / "x.rr").exists()


# ---- QEMU's tree

#: what QEMU has no such thing for, or chooses freely; node -> properties
OURS_ALONE = {
    "/cpus/cpu@0": {"enable-method"},  # QEMU names it from two processors on; the binding wants it always
    "/chosen": {"rng-seed", "kaslr-seed"},
    "/gpio-keys/poweroff": {"label"},
}
HANDLES = {"interrupt-parent", "clocks", "phandle", "gpios"}


def qemus_tree(tmp_path: Path, *options: str) -> dict[str, Properties]:
    """Skips the test where QEMU is not installed: it is only a second opinion."""
    target = tmp_path / "qemu.dtb"
    command = ["qemu-system-aarch64", "-M", f"virt,dumpdtb={target}", "-nographic", "-net", "none", *options]
    if "-cpu" not in options:
        command += ["-cpu", "cortex-a57"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=20, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        pytest.skip("qemu-system-aarch64 is not installed")
    return parsed(target.read_bytes())


def resolved(nodes: dict[str, Properties], name: str, cells: list[int]) -> list[Any]:
    """Cells with paths in place of handles."""
    if name not in HANDLES:
        return cells
    paths = {node["phandle"][0]: path for path, node in nodes.items() if "phandle" in node}
    whole = len(cells) if name == "clocks" else 1
    return [paths[cell] if place < whole else cell for place, cell in enumerate(cells)]


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A kernel that is only a header: enough to be placed."""
    head = bytearray(0x10000)
    head[8:24] = (0).to_bytes(8, "little") + (0x20_0000).to_bytes(8, "little")
    head[56:60] = b"ARM\x64"
    path = tmp_path / "Image.gz"
    path.write_bytes(gzip.compress(bytes(head)))
    return path


def number(cells: list[int]) -> int:
    return int("".join(f"{cell:08x}" for cell in cells), 16)


@pytest.mark.parametrize("ram", [64, 1024])
def test_an_initrd_is_where_qemu_puts_it(tmp_path: Path, kernel: Path, ram: int) -> None:
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"i" * 5000)
    theirs = qemus_tree(tmp_path, "-m", str(ram), "-kernel", str(kernel), "-initrd", str(initrd))["/chosen"]
    ours = tree_of(ram_bytes=ram * MIB, kernel=kernel, initrd=initrd)["/chosen"]
    for name in ("linux,initrd-start", "linux,initrd-end"):
        assert number(ours[name]) == number(theirs[name])


@pytest.mark.parametrize("cpu", [model for model in CPU_MODELS if model != "max"])
def test_everything_in_our_tree_is_in_qemus(tmp_path: Path, kernel: Path, cpu: str) -> None:
    theirs = qemus_tree(tmp_path, "-cpu", cpu, "-m", "256", "-append", "a b c", "-kernel", str(kernel))
    ours = tree_of(cpu=cpu, ram_bytes=256 * MIB, append="a b c", kernel=kernel)
    assert {"/pl011@9000000", "/pl031@9010000", "/pl061@9030000", "/intc@8000000", "/timer", "/psci"} <= set(ours)
    for path, properties in ours.items():
        assert path in theirs
        for name, value in properties.items():
            if name in OURS_ALONE.get(path, ()):
                continue
            assert resolved(ours, name, value) == resolved(theirs, name, theirs[path][name]), f"{path} {name}"


def test_the_power_button() -> None:
    nodes = tree_of()
    assert nodes["/gpio-keys"]["compatible"] == ["gpio-keys"]
    key = nodes["/gpio-keys/poweroff"]
    assert key["linux,code"] == [KEY_POWER] and key["gpios"][1:] == [3, 0]
    assert nodes["/pl061@9030000"]["phandle"] == [key["gpios"][0]]
