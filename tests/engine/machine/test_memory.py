"""RAM as bus masters, loaders and debuggers reach it, against the CPU that has translated from it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.cpu import assembler as a
from timevm.engine.cpu.aarch64 import Aarch64Cpu
from timevm.engine.devices.base import DmaError
from timevm.engine.machine.machine_digest import record_hash
from timevm.engine.machine.memory import SystemMemory
from timevm.engine.machine.memory_access import MemoryAccess
from timevm.engine.machine.ram import PAGE, Ram

BASE = 0x4000_0000
SIZE = 4 * PAGE


class Rig:
    """A CPU on RAM; with ``tables`` its MMU maps what the test says."""

    def __init__(self) -> None:
        self.ram = Ram(BASE, SIZE)
        self.cpu = Aarch64Cpu("cortex-a57", time_shift=0, seed=1, timer_line=lambda name, level: None)
        self.cpu.map_ram(self.ram.base, self.ram.host_address, self.ram.size)
        self.memory = SystemMemory(self.cpu, self.ram)
        self.access = MemoryAccess(self.cpu, self.ram)


def test_dma_reads_what_it_wrote_and_refuses_the_rest() -> None:
    rig = Rig()
    rig.memory.write(BASE + PAGE - 2, b"across")
    assert rig.memory.read(BASE + PAGE - 2, 6) == b"across"
    rig.memory.write(BASE + SIZE, b"")
    for address, size in ((BASE - 1, 2), (BASE + SIZE - 1, 2), (0, 4), (1 << 64, 1), (BASE, SIZE + 1)):
        with pytest.raises(DmaError, match="are not RAM"):
            rig.memory.read(address, size)
        with pytest.raises(DmaError, match="are not RAM"):
            rig.memory.write(address, bytes(min(size, 10)) if size <= SIZE else bytes(size))
        with pytest.raises(DmaError, match="are not RAM"):
            rig.memory.fill(address, b"", size)


def test_filling_clears_what_was_there() -> None:
    rig = Rig()
    rig.memory.write(BASE, b"\xff" * SIZE)
    rig.memory.fill(BASE + 10, b"data", PAGE)
    assert rig.ram.read(BASE, SIZE) == b"\xff" * 10 + b"data".ljust(PAGE, b"\0") + b"\xff" * (SIZE - PAGE - 10)


@pytest.mark.parametrize("how", ["dma", "fill", "debugger"])
def test_code_that_was_translated_is_dropped(how: str) -> None:
    rig = Rig()
    rig.memory.write(BASE, a.code(a.movz(1, 5), a.b(-1)))
    rig.cpu.reset(BASE, [])
    rig.cpu.run(10)
    assert rig.cpu.read_register("x1") == 5
    patch = a.code(a.movz(1, 6))
    match how:
        case "dma":
            rig.memory.write(BASE, patch)
        case "fill":
            rig.memory.fill(BASE, patch, len(patch))
        case _:
            assert rig.access.write(BASE, patch, physical=True) == 4
    rig.cpu.run(14)
    assert rig.cpu.read_register("x1") == 6


@given(st.integers(-2 * PAGE, SIZE + 2 * PAGE), st.integers(0, 2 * SIZE))
def test_a_debugger_sees_up_to_the_end_of_ram(offset: int, size: int) -> None:
    rig = RIG
    found = rig.access.read(BASE + offset, size, physical=True)
    contents = bytes(rig.ram.view)
    if offset < 0:
        # up to the first page boundary at least there is nothing
        assert found == b""
    else:
        assert found == contents[offset : offset + size]


RIG = Rig()
RIG.ram.bytes[:] = [(number * 7 + number // 256) % 256 for number in range(SIZE)]


@given(st.integers(0, SIZE - 1), st.binary(max_size=3 * PAGE))
def test_a_debugger_writes_up_to_the_end_of_ram(offset: int, data: bytes) -> None:
    rig = Rig()
    written = rig.access.write(BASE + offset, data, physical=True)
    assert written == min(len(data), SIZE - offset)
    assert rig.ram.read(BASE + offset, written) == data[:written]


def test_virtual_addresses_go_through_the_cpus_tables() -> None:
    """Pages that follow each other there do not do so in RAM; one of the three is not mapped."""
    rig = Rig()
    places = {0x1000: BASE + 2 * PAGE, 0x2000: BASE}
    rig.cpu.translate = lambda address: (  # type: ignore[method-assign]
        places[address & ~0xFFF] + (address & 0xFFF) if address & ~0xFFF in places else None
    )
    assert rig.access.write(0x1FFE, b"abcdef") == 6
    assert rig.ram.read(BASE + 3 * PAGE - 2, 2) == b"ab" and rig.ram.read(BASE, 4) == b"cdef"
    assert rig.access.read(0x1FFE, 6) == b"abcdef"
    assert rig.access.read(0x2FFE, 6) == rig.ram.read(BASE + PAGE - 2, 2)
    assert rig.access.read(0x3000, 1) == b"" and rig.access.write(0x3000, b"x") == 0


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(plain, plain)
def test_equal_records_have_equal_hashes_and_others_do_not(one: Any, other: Any) -> None:
    def shape(value: Any) -> Any:
        """Python calls True and 1 equal; a record does not."""
        if isinstance(value, dict):
            return {key: shape(item) for key, item in value.items()}
        return [shape(item) for item in value] if isinstance(value, list) else (type(value), value)

    assert (record_hash(one) == record_hash(other)) == (shape(one) == shape(other))


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=6))
def test_the_order_of_keys_does_not_matter(record: dict[str, int]) -> None:
    assert record_hash(record) == record_hash(dict(reversed(record.items())))
