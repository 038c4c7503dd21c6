"""Which line of which function a guest's address belongs to, inlined calls included, from the DWARF of its ELF file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.die import DIE
from elftools.dwarf.lineprogram import LineProgram
from elftools.dwarf.ranges import BaseAddressEntry
from elftools.elf.elffile import ELFFile

#: DIEs that have others inside which may cover the same address
_INLINED = "DW_TAG_inlined_subroutine"
_NESTED = ("DW_TAG_lexical_block", _INLINED)


@dataclass(frozen=True, slots=True)
class SourcePlace:
    """A place in a program's source; ``file`` without folders, ``line`` counts from 1."""

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.function} at {self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Function:
    """A function's code: addresses ``start`` … ``end`` - 1."""

    name: str
    start: int
    end: int


class SourcePlaces:
    """Of one program.  Opening takes some 10 ms, the first question about a place up to 100 ms more."""

    def __init__(self, program: Path) -> None:
        """Raises OSError, and elftools' ELFError if it is no ELF file."""
        # an ELFFile reads lazily, and keeps its file open as long as it lives
        elf = ELFFile(program.open("rb"))
        symbols = elf.get_section_by_name(".symtab")
        self.functions = [
            Function(str(symbol.name), symbol["st_value"], symbol["st_value"] + symbol["st_size"])
            for symbol in (symbols.iter_symbols() if symbols is not None else ())
            if symbol["st_info"]["type"] == "STT_FUNC"
        ]
        self._dwarf = elf.get_dwarf_info() if elf.has_dwarf_info() else None

    def function_at(self, address: int) -> Function | None:
        """From the symbol table: never an inlined one."""
        return next((function for function in self.functions if function.start <= address < function.end), None)

    def function_named(self, name: str) -> Function | None:
        return next((function for function in self.functions if function.name == name), None)

    def at(self, address: int) -> list[SourcePlace]:
        """The place, and behind it the calls that were inlined to it: innermost first, the function itself last.

        Empty where the program says nothing about the address.
        """
        dwarf = self._dwarf
        if dwarf is None:
            return []
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            found = _line_of(program, address) if program is not None else None
            if found is not None:
                return self._calls(unit, program, address, found)
        return []

    def _calls(
        self, unit: CompileUnit, program: LineProgram, address: int, innermost: tuple[str, int]
    ) -> list[SourcePlace]:
        places: list[SourcePlace] = []
        file, line = innermost
        for die in reversed(list(self._around(unit, address))):
            if die.tag == _INLINED:
                places.append(SourcePlace(_name_of(die), file, line))
                file = _file_name(program, die.attributes["DW_AT_call_file"].value)
                line = die.attributes["DW_AT_call_line"].value
        function = self.function_at(address)
        places.append(SourcePlace(function.name if function is not None else f"{address:#x}", file, line))
        return places

    def _around(self, unit: CompileUnit, address: int) -> Iterator[DIE]:
        """The function and the blocks in it that cover ``address``, from outside to inside."""
        functions = (die for die in unit.iter_DIEs() if die.tag == "DW_TAG_subprogram")
        die = next((die for die in functions if self._covers(unit, die, address)), None)
        while die is not None:
            yield die
            inner = (child for child in die.iter_children() if child.tag in _NESTED)
            die = next((child for child in inner if self._covers(unit, child, address)), None)

    def _covers(self, unit: CompileUnit, die: DIE, address: int) -> bool:
        """DWARF 5, section 2.17."""
        attributes = die.attributes
        if "DW_AT_ranges" in attributes:
            return self._in_ranges(unit, attributes["DW_AT_ranges"].value, address)
        if "DW_AT_low_pc" not in attributes or "DW_AT_high_pc" not in attributes:
            return False
        low, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
        end = high.value if high.form == "DW_FORM_addr" else low + high.value
        return bool(low <= address < end)

    def _in_ranges(self, unit: CompileUnit, offset: int, address: int) -> bool:
        low = unit.get_top_DIE().attributes.get("DW_AT_low_pc")
        base = low.value if low is not None else 0
        lists: Any = self._dwarf.range_lists() if self._dwarf is not None else None
        for entry in lists.get_range_list_at_offset(offset, unit) if lists is not None else ():
            if isinstance(entry, BaseAddressEntry):
                base = entry.base_address
            else:
                start = 0 if entry.is_absolute else base
                if start + entry.begin_offset <= address < start + entry.end_offset:
                    return True
        return False


def _name_of(die: DIE) -> str:
    """Of a copy the name is that of the original."""
    while "DW_AT_name" not in die.attributes:
        if "DW_AT_abstract_origin" not in die.attributes:
            return "?"
        die = die.get_DIE_from_attribute("DW_AT_abstract_origin")
    name: bytes = die.attributes["DW_AT_name"].value
    return name.decode(errors="replace")


def _file_name(program: LineProgram, number: int) -> str:
    """Version 5 counts files from 0, older ones from 1."""
    name: bytes = program["file_entry"][number - (0 if program.header["version"] >= 5 else 1)].name
    return Path(name.decode(errors="replace")).name


def _line_of(program: LineProgram, address: int) -> tuple[str, int] | None:
    """File name and line: the row that covers ``address`` (DWARF 5, section 6.2)."""
    before = None
    for entry in program.get_entries():
        state = entry.state
        if state is None:
            continue
        if before is not None and before.address <= address < state.address:
            return _file_name(program, before.file), int(before.line)
        before = None if state.end_sequence else state
    return None
