"""Which line of which function a guest's address belongs to, from the DWARF of its ELF file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from elftools.dwarf.dwarfinfo import DWARFInfo
from elftools.elf.elffile import ELFFile


@dataclass(frozen=True, slots=True)
class SourcePlace:
    """A place in a program's source; ``line`` counts from 1."""

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.function} at {self.file}:{self.line}"


def place_of(program: Path, address: int) -> SourcePlace | None:
    """Where in its source the program stands at ``address``; None where it says nothing about it."""
    with program.open("rb") as file:
        elf = ELFFile(file)
        if not elf.has_dwarf_info():
            return None
        dwarf = elf.get_dwarf_info()
        line = line_of(dwarf, address)
        if line is None:
            return None
        return SourcePlace(function_of(elf, address), *line)


def line_of(dwarf: DWARFInfo, address: int) -> tuple[str, int] | None:
    """File name and line: the row of a line program that covers ``address`` (DWARF 5, section 6.2)."""
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        if program is None:
            continue
        before = None
        for entry in program.get_entries():
            state = entry.state
            if state is None:
                continue
            if before is not None and before.address <= address < state.address:
                # version 5 counts files from 0, older ones from 1
                index = before.file - (0 if program.header["version"] >= 5 else 1)
                name: bytes = program["file_entry"][index].name
                return name.decode(), int(before.line)
            before = None if state.end_sequence else state
    return None


def function_of(elf: ELFFile, address: int) -> str:
    symbols = elf.get_section_by_name(".symtab")
    for symbol in symbols.iter_symbols() if symbols is not None else ():
        start, size = symbol["st_value"], symbol["st_size"]
        if symbol["st_info"]["type"] == "STT_FUNC" and start <= address < start + size:
            return str(symbol.name)
    return f"{address:#x}"
