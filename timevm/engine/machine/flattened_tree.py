"""A flattened device tree in the making, and what all boards put into one (Devicetree Specification 0.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import fdt


@dataclass(frozen=True, slots=True)
class Node:
    """One device of the board: its window and its interrupt (None: none), whose trigger some controllers want told."""

    title: str
    compatible: tuple[str, ...]
    base: int
    size: int
    interrupt: int | None = None
    trigger: int = 4  # LEVEL_HIGH
    clocks: tuple[str, ...] = ()
    #: further properties: numbers or strings
    properties: tuple[tuple[str, int | str], ...] = ()
    flags: tuple[str, ...] = ()
    phandle: int | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the tree tells the kernel beyond the hardware.  Seeds are random bytes of any length; empty: none."""

    arguments: str
    console: str
    random_seed: bytes
    layout_seed: bytes = b""
    initrd: tuple[int, int] | None = None


class Tree:
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

    def put_memory(self, base: int, size: int) -> None:
        """RAM, in a tree whose addresses and sizes have two cells."""
        memory = f"/memory@{base:x}"
        self.put(memory, "device_type", "memory")
        self.put(memory, "reg", [*cells(base), *cells(size)])

    def put_wishes(self, wishes: Wishes) -> None:
        put = self.put
        put("/chosen", "stdout-path", wishes.console)
        if wishes.arguments:
            put("/chosen", "bootargs", argument_bytes(wishes.arguments))
        if wishes.initrd is not None:
            put("/chosen", "linux,initrd-start", cells(wishes.initrd[0]))
            put("/chosen", "linux,initrd-end", cells(wishes.initrd[1]))
        for name, seed in (("rng-seed", wishes.random_seed), ("kaslr-seed", wishes.layout_seed)):
            if seed:
                put("/chosen", name, _words(seed))

    def blob(self) -> bytes:
        return bytes(self._tree.to_dtb(version=17, last_comp_version=16, boot_cpuid_phys=0))


def cells(value: int) -> list[int]:
    """A number of 64 bits."""
    return [value >> 32, value & 0xFFFF_FFFF]


def argument_bytes(arguments: str) -> bytes:
    """The kernel's command line as a property: the bytes that the user typed, in any alphabet."""
    return arguments.encode(errors="surrogateescape") + b"\0"


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4)]
