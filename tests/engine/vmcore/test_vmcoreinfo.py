"""The kernel's note is found where it is, and nothing else is taken for it."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from timevm.engine.cpu.core_image import Note
from timevm.engine.machine.memory_image import MemoryBlock
from timevm.engine.machine.ram import PAGE
from timevm.engine.vmcore.vmcoreinfo import find_note

TEXT = b"OSRELEASE=6.1.0\nPAGESIZE=4096\n"


def note(text: bytes = TEXT, *, name: bytes = b"VMCOREINFO\0", size: int | None = None, kind: int = 0) -> bytes:
    head = struct.pack("<III", len(name), len(text) if size is None else size, kind)
    return head + name.ljust(12, b"\0") + text


def memory(*pages: bytes) -> MemoryBlock:
    data = b"".join(page.ljust(PAGE, b"\0") for page in pages)
    return MemoryBlock(0, memoryview(data), np.arange(len(pages), dtype=np.int64))


def test_it_is_found() -> None:
    assert find_note(memory(b"", b"x", note(), note(b"OSRELEASE=later"))) == Note("VMCOREINFO", 0, TEXT)


def test_what_is_none() -> None:
    shifted = b"\0\0\0\0" + note()
    for page in (b"", shifted, note(size=3 * PAGE), note(b"VERSION=1"), note(kind=1), note(name=b"VMCOREINFX\0")):
        assert find_note(memory(page, b"")) is None
    assert find_note(memory(shifted, note())) == Note("VMCOREINFO", 0, TEXT)


def test_it_may_be_longer_than_a_page_and_end_with_the_memory() -> None:
    long = b"OSRELEASE=" + b"x" * (PAGE - 10)
    whole = note(long)
    assert find_note(memory(whole[:PAGE], whole[PAGE:])) == Note("VMCOREINFO", 0, long)
    assert find_note(memory(whole[:PAGE])) is None


def test_pages_that_hold_nothing_are_not_looked_at() -> None:
    found = memory(note(), note())
    assert find_note(MemoryBlock(0, found.view, np.array([], np.int64))) is None


@given(st.binary(max_size=64), st.integers(0, 1 << 32), st.integers(0, 3))
def test_whatever_a_guest_writes_there(text: bytes, size: int, kind: int) -> None:
    page = struct.pack("<III", 11, size % (1 << 32), kind) + b"VMCOREINFO\0\0" + text
    found = find_note(memory(page))
    assert found is None or (kind == 0 and found.data.startswith(b"OSRELEASE="))
