"""The note in which a Linux kernel tells tools about itself, found in its memory.

The kernel keeps it ready for a crash: an ELF note at the beginning of a page (Linux: ``kernel/crash_core.c``).  crash
and drgn want it; without it they must be told the kernel's version and where it is.
"""

from __future__ import annotations

import struct

import numpy as np

from timevm.engine.cpu.core_image import Note
from timevm.engine.machine.memory_image import MemoryBlock
from timevm.engine.machine.ram import PAGE

NAME = "VMCOREINFO"
_HEAD = struct.Struct("<III12s")
_BEGINS_WITH = b"OSRELEASE="
#: of such a note, in bytes: a page of text, and what is around it
_MOST = 2 * PAGE
#: pages looked at in one go
_TOGETHER = 1 << 14


def find_note(block: MemoryBlock) -> Note | None:
    """The first one whose text makes sense.  Reads a few bytes of each page that holds something: 20 ns for each."""
    name = np.frombuffer(NAME.encode(), np.uint8)
    start = _HEAD.size - 12
    pages = np.frombuffer(block.view, np.uint8)[: len(block.view) // PAGE * PAGE].reshape(-1, PAGE)
    for first in range(0, len(block.pages), _TOGETHER):
        numbers = block.pages[first : first + _TOGETHER]
        fits = (pages[numbers, start : start + len(name)] == name).all(axis=1)
        for number in numbers[fits].tolist():
            note = _read(bytes(block.view[number * PAGE : number * PAGE + _MOST]))
            if note is not None:
                return note
    return None


def _read(data: bytes) -> Note | None:
    name_size, size, kind, name = _HEAD.unpack_from(data)
    text = data[_HEAD.size : _HEAD.size + size]
    is_one = name_size == len(NAME) + 1 and name == NAME.encode() + b"\0\0" and kind == 0
    return Note(NAME, kind, text) if is_one and len(text) == size and text.startswith(_BEGINS_WITH) else None
