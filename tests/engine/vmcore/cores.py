"""Core files as pyelftools reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile


@dataclass(frozen=True, slots=True)
class Load:
    virtual: int
    physical: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Core:
    """``notes``: (name, type, data) in order."""

    bits: int
    machine: str
    notes: tuple[tuple[str, int, bytes], ...]
    loads: tuple[Load, ...]

    def at(self, virtual: int, size: int) -> bytes:
        """Memory as a debugger finds it; b'' if it is in no one segment."""
        for load in self.loads:
            start = virtual - load.virtual
            if start >= 0 and start + size <= len(load.data):
                return load.data[start : start + size]
        return b""


def read_core(path: Path) -> Core:
    with path.open("rb") as file:
        elf = ELFFile(file)
        assert elf["e_type"] == "ET_CORE"
        assert elf["e_ident"]["EI_DATA"] == "ELFDATA2LSB"
        notes: list[tuple[str, int, bytes]] = []
        loads = []
        for segment in elf.iter_segments():
            assert segment["p_filesz"] == segment["p_memsz"]
            if segment["p_type"] == "PT_NOTE":
                file.seek(segment["p_offset"])
                notes += read_notes(file.read(segment["p_filesz"]))
            else:
                assert segment["p_type"] == "PT_LOAD"
                loads.append(Load(segment["p_vaddr"], segment["p_paddr"], segment.data()))
        return Core(elf.elfclass, elf["e_machine"], tuple(notes), tuple(loads))


def read_notes(data: bytes) -> list[tuple[str, int, bytes]]:
    """Without pyelftools, which gives types names."""
    found = []
    while data:
        name_size, size, kind = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4, 8))
        name = data[12 : 12 + name_size]
        start = 12 + -(-name_size // 4) * 4
        assert name.endswith(b"\0") and len(data) >= start + size
        found.append((name[:-1].decode(), kind, data[start : start + size]))
        data = data[start + -(-size // 4) * 4 :]
    return found
