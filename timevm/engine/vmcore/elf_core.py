"""The head of an ELF core file, in 32 and 64 bits (System V ABI, chapters 4 and 5): what stands before the memory."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from timevm.engine.cpu.core_image import Note

ET_CORE, EV_CURRENT = 4, 1
PT_LOAD, PT_NOTE = 1, 4
ELFDATA2LSB = 1
#: a number of program headers that does not fit: it is in section 0's ``sh_info``
PN_XNUM = 0xFFFF
#: readable, writable and executable, since the physical pages are
_ALL = 7
#: where memory begins in the file: whole pages of it are whole pages of the file
ALIGNMENT = 4096


@dataclass(frozen=True, slots=True)
class Load:
    """``size`` bytes of memory that stand at ``offset`` in the file, counted from where memory begins there."""

    virtual: int
    physical: int
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class _Class:
    """``struct`` formats of the headers of one ELF class."""

    number: int
    file: str
    program: str
    section: str
    #: flags stand behind the type, or in front of the alignment
    flags_second: bool

    @property
    def sizes(self) -> tuple[int, int, int]:
        return struct.calcsize(self.file), struct.calcsize(self.program), struct.calcsize(self.section)


_CLASSES = {
    32: _Class(1, "<16sHHIIIIIHHHHHH", "<IIIIIIII", "<IIIIIIIIII", False),
    64: _Class(2, "<16sHHIQQQIHHHHHH", "<IIQQQQQQ", "<IIQQQQIIQQ", True),
}


def core_head(machine: int, bits: int, notes: Sequence[Note], loads: Sequence[Load]) -> bytes:
    """Everything up to the first byte of memory.  ``machine``: ELF's number of it; ``bits``: of the file's class."""
    form = _CLASSES[bits]
    file_size, program_size, section_size = form.sizes
    count = 1 + len(loads)
    sections = int(count >= PN_XNUM)
    noted = b"".join(map(packed_note, notes))
    notes_at = file_size + program_size * count + section_size * sections
    memory_at = -(-(notes_at + len(noted)) // ALIGNMENT) * ALIGNMENT
    identity = b"\x7fELF" + bytes((form.number, ELFDATA2LSB, EV_CURRENT))
    head = struct.pack(
        form.file,
        identity,
        ET_CORE,
        machine,
        EV_CURRENT,
        0,
        file_size,
        notes_at - section_size if sections else 0,
        0,
        file_size,
        program_size,
        PN_XNUM if sections else count,
        section_size if sections else 0,
        sections,
        0,
    )
    parts = [head, _program(form, PT_NOTE, 0, notes_at, 0, 0, len(noted))]
    parts += [_program(form, PT_LOAD, _ALL, memory_at + it.offset, it.virtual, it.physical, it.size) for it in loads]
    if sections:
        parts.append(struct.pack(form.section, 0, 0, 0, 0, 0, 0, 0, count, 0, 0))
    return b"".join((*parts, noted)).ljust(memory_at, b"\0")


def _program(form: _Class, kind: int, flags: int, offset: int, virtual: int, physical: int, size: int) -> bytes:
    places = (offset, virtual, physical, size, size)
    if form.flags_second:
        return struct.pack(form.program, kind, flags, *places, 0)
    return struct.pack(form.program, kind, *places, flags, 0)


def packed_note(note: Note) -> bytes:
    """The same in both classes, as tools have it."""
    name = note.name.encode() + b"\0"
    head = struct.pack("<III", len(name), len(note.data), note.type)
    return head + _filled(name) + _filled(note.data)


def _filled(data: bytes) -> bytes:
    """Up to a whole number of words."""
    return data + bytes(-len(data) % 4)
