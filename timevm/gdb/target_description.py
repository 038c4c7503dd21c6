"""What gdb is told about a processor: register features as data, and the documents made of them.

The formats are those of the gdb manual's appendices "Target Descriptions" and "Memory Map Format".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import quoteattr

from timevm.engine.control.port import MemoryRegion


@dataclass(frozen=True, slots=True)
class GdbRegister:
    """``source`` is its name in ``MachinePort.registers``; ``type`` one of gdb's or of the feature's own.

    Without a source it is one that gdb insists on, and that the machine has not: it is always 0.
    """

    name: str
    bits: int
    source: str | None
    type: str = "int"
    group: str | None = None
    #: gdb saves and restores it around a call of a guest function by hand
    saved: bool = True

    @property
    def size(self) -> int:
        return (self.bits + 7) // 8


@dataclass(frozen=True, slots=True)
class Feature:
    """A set of registers under the name by which gdb knows it; ``types``: XML of the types they need."""

    name: str
    registers: tuple[GdbRegister, ...]
    types: str = ""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A processor in gdb's terms.  Registers are numbered through all features; little-endian."""

    #: gdb's ``set architecture``
    name: str
    features: tuple[Feature, ...]
    #: features whose registers are in the ``g`` packet; the others are asked for one by one, when somebody looks
    general_features: int
    #: gdb takes a watchpoint's stop for one before the access: it steps over it by itself and then compares values.
    #: False: it wants the stop behind the access
    watch_stops_before: bool

    @property
    def registers(self) -> tuple[GdbRegister, ...]:
        return tuple(register for feature in self.features for register in feature.registers)

    @property
    def general(self) -> tuple[GdbRegister, ...]:
        """Those of the ``g`` packet."""
        return tuple(register for feature in self.features[: self.general_features] for register in feature.registers)

    @property
    def program_counter(self) -> GdbRegister:
        """It is the last code pointer: a return address may come before it."""
        return next(register for register in reversed(self.general) if register.type == "code_ptr")

    def document(self) -> str:
        """``target.xml``"""
        return (
            '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n<target version="1.0">\n'
            f"<architecture>{self.name}</architecture>\n{''.join(self._features())}</target>\n"
        )

    def _features(self) -> Iterator[str]:
        number = 0
        for feature in self.features:
            lines = []
            for register in feature.registers:
                group = "" if register.group is None else f" group={quoteattr(register.group)}"
                saved = "" if register.saved else ' save-restore="no"'
                lines.append(
                    f"<reg name={quoteattr(register.name)} bitsize={quoteattr(str(register.bits))} "
                    f"type={quoteattr(register.type)} regnum={quoteattr(str(number))}{group}{saved}/>\n"
                )
                number += 1
            yield f"<feature name={quoteattr(feature.name)}>\n{feature.types}{''.join(lines)}</feature>\n"


#: virtual addresses that no processor of ours can map: from 57 bits on (RISC-V's Sv57) to the upper half
_NEVER_MAPPED = (1 << 57, 1 << 63)


def _pieces(regions: Sequence[MemoryRegion]) -> list[tuple[int, int]]:
    """Begin and end of each, in order; no gap is between them."""
    edges = {0, 1 << 63, 1 << 64}
    for region in regions:
        if region.kind == "ram":
            edges |= {region.base, region.base + region.size}
    return list(pairwise(sorted(edges)))


def memory_region(regions: Sequence[MemoryRegion], address: int) -> str:
    """``qMemoryRegionInfo``, which LLDB asks instead.

    It looks for a place where nothing is, for what it keeps to itself, and goes round and round if there is none.
    """
    edges = {*_NEVER_MAPPED, *(edge for piece in _pieces(regions) for edge in piece)}
    start, end = next((start, end) for start, end in pairwise(sorted(edges)) if start <= address < end)
    rights = "" if _NEVER_MAPPED[0] <= start < _NEVER_MAPPED[1] else "permissions:rwx;"
    return f"start:{start:x};size:{end - start:x};{rights}"


def memory_map_document(regions: Sequence[MemoryRegion]) -> str:
    """``qXfer:memory-map``: RAM by itself, and everything between as memory too.

    gdb does not touch what is on no map, and addresses are virtual: any of them may be mapped.
    """
    entries = "".join(
        f'<memory type="ram" start="{start:#x}" length="{end - start:#x}"/>\n' for start, end in _pieces(regions)
    )
    return (
        '<?xml version="1.0"?>\n'
        '<!DOCTYPE memory-map PUBLIC "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN" '
        '"http://sourceware.org/gdb/gdb-memory-map.dtd">\n'
        f"<memory-map>\n{entries}</memory-map>\n"
    )
