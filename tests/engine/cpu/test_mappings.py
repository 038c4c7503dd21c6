"""All that page tables map, against Unicorn's own look at one address, for random tables of every shape."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.cpu.board import RAM, RAM_SIZE
from tests.engine.cpu.board import Board as ArmBoard
from tests.engine.cpu.riscv64_board import RiscvBoard
from tests.engine.cpu.x86_board import Board as X86Board
from timevm.engine.cpu import aarch64_mappings, riscv64_mappings, table_walk, x86_64_mappings
from timevm.engine.cpu.base import Cpu
from timevm.engine.cpu.mappings import Mappings
from timevm.engine.cpu.page_size import page_size

TABLES = 8
_TOP = (1 << 64) - 1
#: of entries: the first ones, those around the middle, the last ones
PLACES = (0, 1, 2, 3, 255, 256, 510, 511)

AnyBoard = X86Board | RiscvBoard | ArmBoard


@dataclass(frozen=True, slots=True)
class Shape:
    """``at``: the first table; ``leaf`` and ``further`` make an entry from an address and random bits."""

    board: Callable[[], AnyBoard]
    at: int
    registers: tuple[tuple[str, int], ...]
    leaf: Callable[[int, int], int]
    further: Callable[[int, int], int]
    entry_bytes: int = 8
    table_size: int = 0x1000
    #: that suit pages of every size
    frames: tuple[int, ...] = (0, 1 << 30, 2 << 30, 3 << 30)


def _x86(control: int, extended: int, entry_bytes: int = 8) -> Shape:
    registers = (("efer", extended), ("cr4", control), ("cr3", 0x8000), ("cr0", 0x8000_0011))
    return Shape(
        lambda: X86Board(b"\xeb\xfe", model="max"),
        0x8000,
        registers,
        lambda address, bits: address | 0x81 | bits & 0x166,
        lambda address, bits: address | 1 | bits & 0x66,
        entry_bytes,
    )


def _riscv(mode: int) -> Shape:
    rights = (0x43, 0xC7, 0xCF, 0x4B, 0xD3, 0xDF, 0xE7)
    return Shape(
        lambda: RiscvBoard(b"\x6f\0\0\0"),
        0x8004_0000,
        (("satp", mode << 60 | 0x80040), ("priv", 1)),
        lambda address, bits: address >> 12 << 10 | rights[bits % len(rights)],
        lambda address, bits: address >> 12 << 10 | 1 | bits & 0x20,
        frames=(0, 1 << 48, 2 << 48, 3 << 48),
    )


def _arm(granule: int, low: int, high: int) -> Shape:
    """``low`` and ``high``: address bits of the halves."""
    codes = {12: (0, 2), 14: (2, 1), 16: (1, 3)}[granule]
    control = 64 - low | 64 - high << 16 | codes[0] << 14 | codes[1] << 30 | 5 << 32
    at = RAM + 0x8_0000
    tables = (("TTBR0_EL1", at), ("TTBR1_EL1", at + (1 << granule)), ("TCR_EL1", control), ("MAIR_EL1", 0x44FF))
    return Shape(
        lambda: ArmBoard(b"\x00\x00\x00\x14"),
        at,
        (*tables, ("SCTLR_EL1", 0x30D0_0801)),
        lambda address, bits: address | 0x400 | bits & 0x0060_0000_0000_08C0 | (3 if bits & 1 else 1),
        lambda address, bits: address | 0x403 | bits & 0x7800_0000_0000_0000,
        table_size=1 << granule,
    )


SHAPES = {
    "x86, 32 bits": _x86(0x10, 0, 4),
    "x86, 32 bits, small pages": _x86(0, 0, 4),
    "x86, PAE": _x86(0x20, 0),
    "x86, long": _x86(0x20, 0x500),
    "x86, five levels": _x86(0x1020, 0x500),
    "Sv39": _riscv(8),
    "Sv48": _riscv(9),
    "Sv57": _riscv(10),
    "AArch64, 4K": _arm(12, 48, 48),
    "AArch64, 4K, short": _arm(12, 39, 36),
    "AArch64, 16K": _arm(14, 47, 36),
    "AArch64, 64K": _arm(16, 42, 48),
}


def machine(shape: Shape, contents: Iterable[tuple[int, int, bytes]]) -> AnyBoard:
    """``contents``: table, entry and its bytes."""
    board = shape.board()
    for table, entry, data in contents:
        board.write(shape.at + shape.table_size * table + shape.entry_bytes * entry, data)
    for name, value in shape.registers:
        board.cpu.write_register(name, value)
    return board


def found_in(board: AnyBoard) -> Mappings:
    base = RAM if isinstance(board, ArmBoard) else 0x8000_0000 if isinstance(board, RiscvBoard) else 0
    size = len(board.memory)

    def read(address: int, wanted: int) -> bytes:
        start = address - base
        return bytes(board.memory[start : start + wanted]) if 0 <= start < size else b""

    return board.cpu.mappings(read)


def random_entries(shape: Shape, rng: random.Random) -> list[tuple[int, int, bytes]]:
    """Entries that are all sound, of every level."""
    entries = []
    tables = min(TABLES, (RAM_SIZE // 2) // shape.table_size)
    places = [place for place in PLACES if place < shape.table_size // shape.entry_bytes]
    for _ in range(rng.randrange(1, 24)):
        if rng.random() < 0.5:
            target = shape.at + shape.table_size * rng.randrange(tables)
            value = shape.further(target, rng.getrandbits(64))
        else:
            value = shape.leaf(rng.choice(shape.frames), rng.getrandbits(64))
        data = (value & (1 << 8 * shape.entry_bytes) - 1).to_bytes(shape.entry_bytes, "little")
        entries.append((rng.randrange(tables), rng.choice(places), data))
    return entries


def check(cpu: Cpu, found: Mappings, rng: random.Random) -> None:
    """Some pages that are mapped, and some addresses between them."""
    assert (found.virtual[1:] > found.virtual[:-1]).all()
    count = len(found.virtual)
    for row in {0, count - 1, *(rng.randrange(count) for _ in range(20))} if count else ():
        start, place, size = (int(column[row]) for column in (found.virtual, found.physical, found.size))
        for offset in (0, rng.randrange(size)):
            assert cpu.translate(start + offset) == place + offset, hex(start)
    ends = (found.virtual + (found.size - np.uint64(1))).tolist()
    starts = found.virtual.tolist()
    for row in {-1, *(rng.randrange(count) for _ in range(20))} if count else (-1,):
        before = ends[row] + 1 if row >= 0 else 0
        behind = starts[row + 1] if row + 1 < count else _TOP
        if before < behind and not 1 << 47 <= before < _TOP - (1 << 57):
            assert cpu.translate(before & ~0xFFF) is None, hex(before)


@pytest.mark.parametrize("name", SHAPES)
def test_each_page_is_where_the_processor_finds_it(name: str) -> None:
    for seed in range(25):
        rng = random.Random(seed)
        board = machine(SHAPES[name], random_entries(SHAPES[name], rng))
        before = board.fingerprint()
        found = found_in(board)
        assert board.fingerprint() == before
        check(board.cpu, found, rng)
        assert before[0] == board.fingerprint()[0]


@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_bytes_are_tables(name: str, data: st.DataObject) -> None:
    shape = SHAPES[name]
    entry = st.tuples(
        st.integers(0, 3),
        st.sampled_from(PLACES[:6]),
        st.binary(min_size=shape.entry_bytes, max_size=shape.entry_bytes),
    )
    board = machine(shape, data.draw(st.lists(entry, max_size=40)))
    found = found_in(board)
    assert len(found.virtual) == len(found.rights.index) == len(found.flags.index) <= 2 * table_walk.MOST_PAGES
    assert len(found.range_starts()) <= len(found.virtual)


@pytest.mark.parametrize("name", ["x86, long", "Sv57", "AArch64, 4K"])
def test_tables_that_lead_to_themselves_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_walk, "MOST_PAGES", 1 << 14)
    monkeypatch.setattr(table_walk, "MOST_TABLES", 1 << 10)
    shape = SHAPES[name]
    itself = shape.further(shape.at, 0).to_bytes(8, "little")
    page = shape.leaf(0, 1).to_bytes(8, "little")
    board = machine(shape, [(0, place, itself if place else page) for place in range(512)])
    began = time.process_time()
    found = found_in(board)
    assert time.process_time() - began < 10
    assert found.more_from is not None
    assert 0 < len(found.virtual) <= 1 << 15
    assert (found.virtual < np.uint64(found.more_from)).any()


def test_ranges_end_where_rights_do() -> None:
    shape = SHAPES["x86, long"]
    rows = [(3, number, (0x10_0000 + 0x1000 * number | bits).to_bytes(8, "little")) for number, bits in
            ((0, 1), (1, 3), (2, 3), (4, 3), (5, 7), (6, 0x1E7))]  # fmt: skip
    tops = [(level, 0, shape.further(shape.at + 0x1000 * (level + 1), 6).to_bytes(8, "little")) for level in range(3)]
    found = found_in(machine(shape, [*tops, *rows]))
    assert found.virtual[found.range_starts()].tolist() == [0, 0x1000, 0x4000, 0x5000]
    assert [found.rights.texts[index] for index in found.rights.index] == ["-r-", "-rw", "-rw", "-rw", "urw", "urw"]


@pytest.mark.parametrize(("size", "text"), [(4096, "  4K"), (1 << 21, "  2M"), (1 << 29, "512M"), (1 << 39, "512G")])
def test_sizes_of_pages(size: int, text: str) -> None:
    assert page_size(size) == text


@pytest.mark.parametrize("walker", [x86_64_mappings, riscv64_mappings, aarch64_mappings])
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 32), entries=st.binary(max_size=64))
def test_any_registers(walker: ModuleType, seed: int, entries: bytes) -> None:
    """Memory is one table everywhere; most of its entries are empty."""
    rng = random.Random(seed)
    values: dict[str, int] = {}

    def register(name: str) -> int:
        return values.setdefault(name, rng.getrandbits(64) | (1 if name == "SCTLR_EL1" else 1 << 31))

    def read(address: int, size: int) -> bytes:
        return entries[:size].ljust(size, b"\0") if rng.random() < 0.9 else b""

    found = walker.mappings(register, read)
    assert found.absent or len(found.virtual) == len(found.physical) == len(found.size) == len(found.flags.index)
