"""RAM: where it begins and ends, what it costs, and what it refuses."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timevm.engine.machine.ram import PAGE, Ram
from timevm.errors import HostError, InternalError

BASE = 0x4000_0000
SIZE = 8 * PAGE


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@given(st.lists(st.tuples(st.integers(-10, SIZE + 10), st.binary(max_size=2 * PAGE)), max_size=20))
def test_reads_what_was_written_and_refuses_what_is_outside(writes: list[tuple[int, bytes]]) -> None:
    ram, model = Ram(BASE, SIZE), bytearray(SIZE)
    for offset, data in writes:
        inside = offset >= 0 and offset + len(data) <= SIZE
        assert ram.contains(BASE + offset, len(data)) == inside
        if inside:
            model[offset : offset + len(data)] = data
            ram.write(BASE + offset, data)
            assert ram.read(BASE + offset, len(data)) == data
        else:
            with pytest.raises(InternalError, match="not in RAM"):
                ram.write(BASE + offset, data)
            with pytest.raises(InternalError, match="not in RAM"):
                ram.read(BASE + offset, len(data))
    assert ram.view == model
    assert ram.bytes.tobytes() == model
    assert ctypes.string_at(ram.host_address, SIZE) == model


@given(st.integers(0, SIZE), st.integers(0, SIZE), st.binary(min_size=1, max_size=100), st.integers(0, SIZE - 100))
def test_clear(start: int, size: int, data: bytes, where: int) -> None:
    ram, model = Ram(BASE, SIZE), bytearray(SIZE)
    ram.write(BASE + where, data)
    model[where : where + len(data)] = data
    size = min(size, SIZE - start)
    ram.clear(BASE + start, size)
    model[start : start + size] = bytes(size)
    assert ram.view == model
    with pytest.raises(InternalError):
        ram.clear(BASE + SIZE - 1, 2)


def test_views_are_the_memory_itself() -> None:
    ram = Ram(BASE, SIZE)
    ram.pages[3, 5] = 7
    ram.view[0] = 1
    assert ram.read(BASE + 3 * PAGE + 5, 1) == b"\x07" and ram.bytes[0] == 1
    assert (ram.end, ram.page_count) == (BASE + SIZE, 8)


def test_a_negative_size_is_not_contained() -> None:
    assert not Ram(BASE, SIZE).contains(BASE + 5, -1)


def test_four_gibibytes_take_no_memory_before_they_are_written() -> None:
    before = resident_bytes()
    ram = Ram(BASE, 4 << 30)
    assert ram.end == 0x1_4000_0000
    ram.write(ram.end - 1, b"x")
    ram.write(ram.base, b"y")
    assert ram.read(ram.end - 2, 2) == b"\0x"
    assert resident_bytes() - before < 16 << 20


@pytest.mark.parametrize(("base", "size"), [(BASE, 0), (BASE, -PAGE), (BASE, PAGE + 1), (BASE + 1, PAGE)])
def test_only_whole_pages(base: int, size: int) -> None:
    with pytest.raises(InternalError, match="whole pages"):
        Ram(base, size)


def test_more_than_any_host_has() -> None:
    with pytest.raises(HostError, match="the host has no"):
        Ram(0, 1 << 62)
