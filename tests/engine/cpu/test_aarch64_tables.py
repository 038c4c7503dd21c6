"""Page tables that are changed without a TLBI, on AArch64: nobody can tell how long Unicorn's TLB keeps an entry.

Each program is run through, and stopped at every instruction with its state put back, here or in a fresh machine, which
empties the TLB.  All see what tables say when an access happens (Arm ARM D5; it lets a processor keep no entries).
"""

from __future__ import annotations

import random

import pytest

from tests.engine.cpu import assembler as a
from tests.engine.cpu.aarch64_programs import power_off, vector_table
from tests.engine.cpu.board import DATA, DEVICE, RAM, RAM_SIZE, VECTORS, Board
from tests.engine.cpu.device import LINE
from timevm.engine.cpu.base import StopKind

OTHER = DATA + 0x1000
#: tables of levels 1 to 3; the last maps RAM one to one, LAST what tests look at
TOP, MIDDLE, LOW, LAST = (RAM + 0x10_0000 + 0x1000 * number for number in range(4))
OTHER_TOP = LAST + 0x1000
#: what is mapped by LAST's first entries, and by a block of 2 MiB
VIRTUAL, LARGE = RAM + RAM_SIZE, RAM + 2 * RAM_SIZE
VALID, TABLE, READ_ONLY, ACCESSED = 1, 2, 0x80, 0x400
PAGE = VALID | TABLE | ACCESSED
#: 39 bits of addresses at the lower half, none at the upper; MMU on
TCR, SCTLR = 25 | 1 << 23, 0x30D0_0801
TRANSLATION, ACCESS, PERMISSION = 7, 0xB, 0xF  # of the last level
LEVEL_2_ACCESS = 0xA
HOW = ("straight through", "restored", "fresh")
#: x5 to the page, x9 to its entry, x8 bits; x13 and x14 are the fault's syndrome and address
PAGE_AT, ENTRY_AT, BITS = 5, 9, 8
ACCESSES = [a.ldr(1, PAGE_AT), a.str_(1, PAGE_AT, 8)]


def empty() -> Board:
    return Board(b"", vectors=vector_table(sync=[a.mrs(13, *a.ESR_EL1), a.mrs(14, *a.FAR_EL1), *power_off()]))


def machine(*program: int, bits: int = 0, page: int = VIRTUAL, entry: int = LAST) -> Board:
    """It stands before the first instruction, with its MMU on."""
    begin = [*a.load_constant(0, VECTORS), a.msr(0, *a.VBAR_EL1), *a.load_constant(0, TOP), a.msr(0, *a.TTBR0_EL1),
             *a.load_constant(0, TCR), a.msr(0, *a.TCR_EL1), a.movz(0, 0xFF), a.msr(0, *a.MAIR_EL1),
             *a.load_constant(PAGE_AT, page), *a.load_constant(ENTRY_AT, entry), *a.load_constant(BITS, bits),
             *a.load_constant(0, SCTLR), a.msr(0, *a.SCTLR_EL1), a.ISB]  # fmt: skip
    board = empty()
    board.write(RAM, a.code(*begin, *program, *power_off()))
    entries = {
        TOP + 8 * (RAM >> 30): MIDDLE | VALID | TABLE,
        TOP + 8 * (DEVICE >> 30): DEVICE & ~0x3FFF_FFFF | VALID | ACCESSED,
        MIDDLE: LOW | VALID | TABLE,
        MIDDLE + 8: LAST | VALID | TABLE,
        MIDDLE + 16: RAM | VALID | ACCESSED,
        LAST: DATA | PAGE,
        **{LOW + 8 * number: RAM + 0x1000 * number | PAGE for number in range(512)},
    }
    for at, value in entries.items():
        board.write(at, value.to_bytes(8, "little"))
    board.write(DATA, b"\x11" * 8)
    board.write(OTHER, b"\x22" * 8)
    board.cpu.run(len(begin))
    return board


def finish(board: Board, how: str) -> Board:
    """Run to its end; where that was."""
    if how == HOW[0]:
        assert board.cpu.run(1 << 60).kind is StopKind.POWER_OFF
        return board
    while (stop := board.cpu.run(board.cpu.icount + 1)).kind is StopKind.LIMIT:
        if how == HOW[2]:
            fresh = empty()
            board.copy_to(fresh)
            board = fresh
        else:
            board.cpu.restore(board.cpu.state())
    assert stop.kind is StopKind.POWER_OFF
    return board


def x(board: Board, number: int) -> int:
    return board.cpu.read_register(f"x{number}")


#: stores that change the entry in its low bits
STORES = {
    "eight bytes": [a.ldr(7, 9), a.eor(7, 7, 8), a.str_(7, 9)],
    "two bytes": [a.ldrh(7, 9), a.eor(7, 7, 8), a.strh(7, 9)],
    "not aligned": [a.ldur(7, 9, -1), a.lsl(6, 8, 8), a.eor(7, 7, 6), a.stur(7, 9, -1)],
    "the second of a pair": [a.ldp(6, 7, 9, -8), a.eor(7, 7, 8), a.stp(6, 7, 9, -8)],
    "exclusive": [a.ldxr(7, 9), a.eor(7, 7, 8), a.stxr(6, 7, 9)],
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    ("bits", "fault", "loaded"),
    [
        (VALID, TRANSLATION, 0x11),
        (ACCESSED, ACCESS, 0x11),
        (READ_ONLY, PERMISSION, 0x11),
        (DATA ^ OTHER, None, 0x22),
    ],
    ids=["not there", "not accessed", "read-only", "elsewhere"],
)
def test_an_entry_is_what_it_says(bits: int, fault: int | None, loaded: int, store: str, how: str) -> None:
    """Not accessed: as Linux looks which pages are in use, without a TLBI behind that."""
    board = finish(machine(*ACCESSES, *STORES[store], *ACCESSES, bits=bits), how)
    assert x(board, 1) & 0xFF == loaded
    if fault is None:
        assert x(board, 13) == 0
    else:
        assert (x(board, 13) & 0x3F, x(board, 14)) == (fault, VIRTUAL + (8 if fault == PERMISSION else 0))


@pytest.mark.parametrize("how", HOW)
def test_a_cleared_line_of_a_table(how: str) -> None:
    board = finish(machine(*ACCESSES, a.dc_zva(ENTRY_AT), *ACCESSES), how)
    assert (x(board, 13) & 0x3F, x(board, 14)) == (TRANSLATION, VIRTUAL)


@pytest.mark.parametrize("how", HOW)
def test_tables_above_the_last_are_followed(how: str) -> None:
    board = finish(machine(*ACCESSES, a.str_(BITS, ENTRY_AT), *ACCESSES, entry=MIDDLE + 8), how)
    assert (x(board, 13) & 0x3F, x(board, 14)) == (TRANSLATION - 1, VIRTUAL)


@pytest.mark.parametrize("how", HOW)
def test_another_root_of_the_same_address_space(how: str) -> None:
    board = machine(*ACCESSES, a.msr(BITS, *a.TTBR0_EL1), *ACCESSES, bits=OTHER_TOP)
    for at, value in (
        (OTHER_TOP + 8 * (RAM >> 30), OTHER_TOP + 0x1000 | VALID | TABLE),
        (OTHER_TOP + 0x1000, LOW | VALID | TABLE),
        (OTHER_TOP + 0x1008, OTHER_TOP + 0x2000 | VALID | TABLE),
        (OTHER_TOP + 0x2000, OTHER | PAGE),
    ):
        board.write(at, value.to_bytes(8, "little"))
    assert x(finish(board, how), 1) & 0xFF == 0x22


@pytest.mark.parametrize("how", HOW)
def test_large_pages_are_followed(how: str) -> None:
    change = STORES["eight bytes"]
    board = machine(*ACCESSES, *change, *ACCESSES, bits=ACCESSED, page=LARGE + 0x1_0000, entry=MIDDLE + 16)
    board = finish(board, how)
    assert (x(board, 13) & 0x3F, x(board, 14)) == (LEVEL_2_ACCESS, LARGE + 0x1_0000)


@pytest.mark.parametrize("how", HOW)
def test_the_next_instruction_comes_from_the_new_table(how: str) -> None:
    """The page that is running is mapped to another place, by a branch back to code that ran before."""
    board = machine(a.movz(3, 0), a.movz(7, 0), a.blr(PAGE_AT), bits=OTHER | PAGE)
    body = [a.subs(4, 3, 3), a.b_ne(2), a.str_(BITS, ENTRY_AT), a.add(3, 3, 1), a.subs(4, 3, 6), a.b_ne(-6), a.ret()]
    for frame, step in ((DATA, 1), (OTHER, 100)):
        board.write(frame, a.code(a.add(7, 7, step), *body))
        board.cpu.code_changed(frame, 0x100)
    assert x(finish(board, how), 7) == 4 + 2 * 100


@pytest.mark.parametrize("how", HOW)
def test_a_table_that_maps_itself(how: str) -> None:
    """The entry through which it is written: the next store goes elsewhere."""
    board = machine(a.movz(4, 0x77), a.str_(BITS, PAGE_AT), a.str_(4, PAGE_AT, 8), bits=OTHER | PAGE)
    board.write(LAST, (LAST | PAGE).to_bytes(8, "little"))
    board = finish(board, how)
    assert board.read(OTHER + 8, 8) == (0x77).to_bytes(8, "little")
    assert board.read(LAST, 16) == (OTHER | PAGE).to_bytes(8, "little") + bytes(8)


@pytest.mark.parametrize("how", HOW)
def test_what_a_device_writes_to_a_table(how: str) -> None:
    """As by DMA, while it is accessed."""
    board = machine(*ACCESSES, *a.load_constant(10, DEVICE), a.movz(2, 0), a.str_w(2, 10, LINE), *ACCESSES)

    def write() -> None:
        board.write(LAST, (OTHER | PAGE).to_bytes(8, "little"))
        board.cpu.code_changed(LAST, 8)

    board.device.effect = write
    if how != HOW[0]:
        while not board.device.log:
            board.cpu.run(board.cpu.icount + 1)
    assert x(finish(board, how), 1) & 0xFF == 0x22


def test_stores_to_what_was_a_table_once_become_fast() -> None:
    """Many stores to a page that tables were read from, and then it is a table again."""
    loop = [*a.load_constant(3, 20_000), a.str_(3, ENTRY_AT, 8), a.subs(3, 3, 1), a.b_ne(-2)]
    board = machine(*ACCESSES, *loop, *STORES["eight bytes"], *ACCESSES, bits=ACCESSED)
    before = board.cpu.native.engine.memory.flushes
    board = finish(board, HOW[0])
    assert x(board, 13) & 0x3F == ACCESS
    assert board.cpu.native.engine.memory.flushes - before < 20


#: of a random program: entries of LAST that it knows, and what it xors into them
KNOWN = 4
CHANGES = (VALID, ACCESSED, READ_ONLY, 0x1000, ACCESSED | 0x1000, READ_ONLY | ACCESSED)
#: faults are added up in x20, and it goes on behind the instruction
SUM_UP = [
    *(a.mrs(13, *a.ESR_EL1), a.mrs(14, *a.FAR_EL1), a.eor(20, 20, 13), a.eor(20, 20, 14), a.add(20, 20, 1)),
    *(a.mrs(15, *a.ELR_EL1), a.add(15, 15, 4), a.msr(15, *a.ELR_EL1), a.ERET),
]
TLBI_ALL = 0xD508871F


def random_program(rng: random.Random) -> list[int]:
    program = []
    for _ in range(60):
        page, change, number = rng.randrange(KNOWN), rng.choice(CHANGES), rng.randrange(KNOWN)
        match rng.randrange(6):
            case 0 | 1:
                program.append(a.ldr(2, 10 + page, 8 * rng.randrange(8)))
            case 2:
                program.append(a.str_(3 + rng.randrange(2), 10 + page, 8 * rng.randrange(8)))
            case 3:
                program += [*a.load_constant(BITS, change), a.add(ENTRY_AT, 16, 8 * number)]
                program += rng.choice(list(STORES.values()))
            case 4:
                program.append(a.stp(17, 18, 16, 16 * (number // 2)))
            case _:
                program += rng.choice(([TLBI_ALL], [a.ISB], [a.blr(10 + page)], [a.add(3, 3, 1)]))
    return program


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_do_not_depend_on_where_they_are_restored(seed: int) -> None:
    """They change entries of pages that they load from, store to and run in."""

    def board() -> Board:
        rng = random.Random(seed)
        program = random_program(rng)
        made = machine(*[a.NOP] * 40, page=VIRTUAL)
        made.write(VECTORS, vector_table(sync=SUM_UP))
        made.write(RAM + 0x4000, a.code(*program, *power_off()))
        for number in range(2 * KNOWN):
            made.write(DATA + 0x1000 * number, a.code(a.add(19, 19, number + 1), a.ret()) * 32)
        for number in range(KNOWN):
            entry = (DATA + 0x2000 * number) | PAGE
            made.write(LAST + 8 * number, entry.to_bytes(8, "little"))
            made.cpu.write_register(f"x{10 + number}", VIRTUAL + 0x1000 * number)
        for register, value in (
            (16, LAST),
            (17, DATA | PAGE),
            (18, OTHER | PAGE),
            (3, 0x1234),
            (4, a.ret() << 32 | a.NOP),
        ):
            made.cpu.write_register(f"x{register}", value)
        made.cpu.code_changed(RAM, RAM_SIZE)
        made.cpu.write_register("pc", RAM + 0x4000)
        return made

    def end(of: Board, sizes: tuple[int, ...]) -> tuple[object, ...]:
        rng = random.Random(seed)
        limit = of.cpu.icount + 400
        while (
            of.cpu.run(min(limit, of.cpu.icount + rng.choice(sizes))).kind is StopKind.LIMIT and of.cpu.icount < limit
        ):
            if rng.random() < 0.2:
                of.cpu.restore(of.cpu.state())
        return of.fingerprint()

    whole = end(board(), (400,))
    assert whole == end(board(), (1,))
    assert whole == end(board(), (1, 2, 3, 7, 20))
