"""Page tables that are changed without a fence, on RISC-V: nobody can tell how long Unicorn's TLB keeps an entry.

Each program is run through, and stopped at every instruction with its state put back, here or in a fresh machine, which
empties the TLB.  All see what tables say when an access happens.
"""

from __future__ import annotations

import pytest

from tests.engine.cpu import riscv64_assembler as a
from tests.engine.cpu.device import LINE
from tests.engine.cpu.riscv64_board import DATA, DEVICE, FOREVER, HANDLER, RAM, TABLES, RiscvBoard, power_off
from tests.engine.cpu.riscv64_tables import ACCESSED, DIRTY, EXECUTE, LEVELS, READ, VALID, VIRTUAL, WRITE, Tables
from timevm.engine.cpu.base import StopKind
from timevm.engine.cpu.sbi import Arguments, SbiOutcome

LOAD_ACCESS, LOAD_PAGE, STORE_PAGE = 5, 13, 15
USER = 0x10
OTHER = DATA + 0x1000
#: bits of an entry that say DATA or OTHER
OTHER_FRAME = (DATA >> 12 ^ OTHER >> 12) << 10
ENTRY, BITS = 9, 8
HOW = ("straight through", "restored", "fresh")


def machine(*program: int, mode: int = 8, **registers: int) -> RiscvBoard:
    """S-mode with paging on; a trap notes scause and stval in x13 and x15 and switches off."""

    def sbi(extension: int, function: int, arguments: Arguments) -> SbiOutcome:
        raise AssertionError("nobody calls the firmware")

    board = RiscvBoard(b"", sbi=sbi)
    tables = Tables(board, mode)
    tables.map(VIRTUAL, DATA, READ | WRITE)
    board.write(HANDLER, a.code(a.csrr(13, "scause"), a.csrr(15, "stval"), *power_off()))
    board.write(RAM, a.code(*program, *power_off()))
    board.write(DATA, b"\x11" * 8)
    board.write(OTHER, b"\x22" * 8)
    own = {"stvec": HANDLER, "satp": tables.satp, "x5": VIRTUAL, f"x{ENTRY}": tables.entry(VIRTUAL)}
    for name, value in (own | registers).items():
        board.cpu.write_register(name, value)
    return board


def finish(board: RiscvBoard, how: str) -> RiscvBoard:
    """Run to its end; where that was."""
    if how == HOW[0]:
        assert board.cpu.run(FOREVER).kind is StopKind.POWER_OFF
        return board
    while (stop := board.cpu.run(board.cpu.icount + 1)).kind is StopKind.LIMIT:
        if how == HOW[2]:
            fresh = machine()
            board.copy_to(fresh)
            board = fresh
        else:
            board.cpu.restore(board.cpu.state())
    assert stop.kind is StopKind.POWER_OFF
    return board


#: stores that change the entry at x9 in the bits of x8, of its last two bytes
STORES = {
    "eight bytes": [a.load(7, ENTRY), a.xor(7, 7, BITS), a.store(7, ENTRY)],
    "two bytes": [a.load(7, ENTRY, 0, 1), a.xor(7, 7, BITS), a.store(7, ENTRY, 0, 1)],
    "not aligned": [a.load(7, ENTRY, -1), a.slli(6, BITS, 8), a.xor(7, 7, 6), a.store(7, ENTRY, -1)],
    "atomic": [a.atomic(4, 7, ENTRY, BITS)],
    "conditional": [a.atomic(2, 7, ENTRY, 0), a.xor(7, 7, BITS), a.atomic(3, 6, ENTRY, 7)],
}
ACCESSES = [a.load(1, 5), a.store(1, 5, 8)]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("mode", LEVELS)
def test_marks_of_use_come_back(mode: int, store: str, how: str) -> None:
    """As Linux looks which pages are in use: it takes the marks away, and has no fence behind that."""
    board = machine(*ACCESSES, *STORES[store], *ACCESSES, mode=mode, x8=ACCESSED | DIRTY)
    entry = board.cpu.read_register(f"x{ENTRY}")
    assert finish(board, how).number(entry) & 0xFF == VALID | READ | WRITE | ACCESSED | DIRTY


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    ("bits", "cause", "loaded"),
    [(VALID, LOAD_PAGE, 0), (WRITE, STORE_PAGE, 0x1111), (OTHER_FRAME, 0, 0x2222)],
    ids=["not there", "read-only", "elsewhere"],
)
def test_an_entry_is_what_it_says(bits: int, cause: int, loaded: int, store: str, how: str) -> None:
    board = machine(*ACCESSES, *STORES[store], a.addi(1, 0, 0), *ACCESSES, x8=bits)
    board = finish(board, how)
    assert (board.x(13), board.x(1) & 0xFFFF) == (cause, loaded)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("mode", LEVELS)
def test_tables_above_the_last_are_followed(mode: int, how: str) -> None:
    """The root's entry goes: the table that maps RAM from there is the same from another place."""
    board = machine(*ACCESSES, a.store(0, ENTRY), *ACCESSES, mode=mode)
    root = TABLES + 8 * (VIRTUAL >> 12 + 9 * (LEVELS[mode] - 1) & 511)
    board.cpu.write_register(f"x{ENTRY}", root)
    board = finish(board, how)
    assert (board.x(13), board.x(15)) == (LOAD_PAGE, VIRTUAL)


@pytest.mark.parametrize("how", HOW)
def test_large_pages_are_followed(how: str) -> None:
    large = 0x4000_0000
    board = machine(*ACCESSES, a.atomic(4, 7, ENTRY, BITS), *ACCESSES, x5=large + 0x10000, x8=ACCESSED | DIRTY)
    entry = TABLES + 8 * (large >> 30)
    board.write(entry, (RAM >> 12 << 10 | VALID | READ | WRITE).to_bytes(8, "little"))
    board.cpu.write_register(f"x{ENTRY}", entry)
    assert finish(board, how).number(entry) & 0xFF == VALID | READ | WRITE | ACCESSED | DIRTY


@pytest.mark.parametrize("how", HOW)
def test_the_next_instruction_comes_from_the_new_table(how: str) -> None:
    """The page that is running is mapped to another place, by a branch back to code that ran before."""
    body = [a.addi(7, 7, 1), a.bne(7, 4, 8), a.store(8, 9), a.addi(3, 3, 1), a.bne(3, 6, -16), *power_off()]
    board = machine(a.jalr(1, 5), x4=3, x6=6)
    tables = Tables(board)
    tables.map(VIRTUAL, DATA, READ | EXECUTE)
    board.write(DATA, a.code(*body))
    board.write(OTHER, a.code(a.addi(7, 7, 100), *body[1:]))
    board.cpu.write_register("x8", OTHER >> 12 << 10 | VALID | READ | EXECUTE)
    board.cpu.write_register("x9", tables.entry(VIRTUAL))
    assert finish(board, how).x(7) == 3 + 3 * 100


@pytest.mark.parametrize("how", HOW)
def test_a_table_that_two_places_share(how: str) -> None:
    """The same last table is in two entries above, so an entry in it is of two addresses."""
    alias = VIRTUAL + (1 << 21)
    both = [*ACCESSES, a.load(2, 4)]
    board = machine(*both, a.atomic(4, 7, ENTRY, BITS), *both, x4=alias, x8=OTHER_FRAME)
    table = board.cpu.read_register(f"x{ENTRY}") & ~0xFFF
    above = TABLES + 8 * (VIRTUAL >> 30 & 511)
    above = (board.number(above) >> 10 << 12) + 8 * (alias >> 21 & 511)
    board.write(above, (table >> 12 << 10 | VALID).to_bytes(8, "little"))
    board = finish(board, how)
    assert (board.x(1) & 0xFF, board.x(2) & 0xFF) == (0x22, 0x22)


@pytest.mark.parametrize("how", HOW)
def test_a_table_that_maps_itself(how: str) -> None:
    """The entry through which it is written: the next store goes elsewhere."""
    board = machine(a.store(8, 5), a.store(4, 5, 8), x4=0x77)
    tables = Tables(board)
    entry = tables.entry(VIRTUAL)
    tables.map(VIRTUAL, entry & ~0xFFF, READ | WRITE)
    board.cpu.write_register("x5", VIRTUAL + (entry & 0xFFF))
    board.cpu.write_register("x8", OTHER >> 12 << 10 | VALID | READ | WRITE)
    board = finish(board, how)
    assert board.number(OTHER + (entry & 0xFFF) + 8) == 0x77
    assert board.number(entry) == OTHER >> 12 << 10 | VALID | READ | WRITE | ACCESSED | DIRTY


@pytest.mark.parametrize("how", HOW)
def test_what_a_device_writes_to_a_table(how: str) -> None:
    """As by DMA, while it is accessed."""
    access = [a.store(0, 28, LINE, 2)]
    board = machine(*ACCESSES, *access, *ACCESSES, x28=DEVICE)
    entry = board.cpu.read_register(f"x{ENTRY}")

    def write(to: RiscvBoard) -> None:
        value = OTHER >> 12 << 10 | VALID | READ | WRITE
        to.write(entry, value.to_bytes(8, "little"))
        to.cpu.code_changed(entry, 8)

    if how == HOW[0]:
        board.device.effect = lambda: write(board)
        board = finish(board, how)
    else:
        board.cpu.run(len(ACCESSES) + 1)
        write(board)
        board = finish(board, how)
    assert board.x(1) & 0xFF == 0x22


@pytest.mark.parametrize("how", HOW)
def test_loads_as_in_the_mode_that_machine_mode_came_from(how: str) -> None:
    """MPRV: a trap and a return change that mode.  DATA is mapped to OTHER."""
    board = RiscvBoard(b"")
    tables = Tables(board)
    tables.map(DATA, OTHER, READ | WRITE | USER)
    tables.map(RAM + 0x1000, RAM + 0x1000, READ | WRITE | EXECUTE)
    board.write(DATA, b"\x11" * 8)
    board.write(OTHER, b"\x22" * 8)
    # as U-mode, of whose pages DATA is one; in the handler as M-mode; behind its return to M-mode as U-mode again
    loads = [a.load(number, 6, kind=4) for number in (1, 2, 3)]
    handler = [loads[1], a.csrr(4, "mepc"), a.addi(4, 4, 4), a.csrw("mepc", 4), a.MRET]
    board.write(RAM, a.code(loads[0], a.ECALL, loads[2], a.csrw("mstatus", 0), *power_off()))
    board.write(HANDLER, a.code(*handler))
    for name, value in (("mtvec", HANDLER), ("satp", tables.satp), ("x6", DATA), ("mstatus", 1 << 17)):
        board.cpu.write_register(name, value)
    while (stop := board.cpu.run(FOREVER if how == HOW[0] else board.cpu.icount + 1)).kind is StopKind.LIMIT:
        board.cpu.restore(board.cpu.state())
    assert stop.kind is StopKind.POWER_OFF
    assert [board.x(number) for number in (1, 2, 3)] == [0x22, 0x11, 0x22]


@pytest.mark.parametrize("how", HOW)
def test_protection_holds_at_once(how: str) -> None:
    """Of DATA's page from M-mode itself, which a locked entry is for."""
    board = RiscvBoard(b"")
    notes = [a.csrr(13, "mcause"), a.csrr(15, "mtval"), *power_off()]
    board.write(RAM, a.code(a.load(1, 6), a.csrw("pmpaddr0", 7), a.csrw("pmpcfg0", 8), a.load(2, 6), *power_off()))
    board.write(HANDLER, a.code(*notes))
    region = DATA >> 2 | 0x1FF  # a page
    for name, value in (("mtvec", HANDLER), ("x6", DATA), ("x7", region), ("x8", 0x98)):
        board.cpu.write_register(name, value)
    while (stop := board.cpu.run(FOREVER if how == HOW[0] else board.cpu.icount + 1)).kind is StopKind.LIMIT:
        board.cpu.restore(board.cpu.state())
    assert (stop.kind, board.x(13), board.x(15)) == (StopKind.POWER_OFF, LOAD_ACCESS, DATA)


def test_stores_to_what_was_a_table_once_become_fast() -> None:
    """Many stores to a page that tables were read from: it is a page like others again, and then a table again."""
    count = 2000
    loop = [a.store(3, ENTRY, 8), a.addi(3, 3, -1), a.bne(3, 0, -8)]
    board = machine(*ACCESSES, *loop, a.atomic(4, 7, ENTRY, BITS), *ACCESSES, x3=count, x8=ACCESSED | DIRTY)
    entry = board.cpu.read_register(f"x{ENTRY}")
    before = board.cpu.native.engine.slow_blocks
    board = finish(board, HOW[0])
    assert board.number(entry) & 0xFF == VALID | READ | WRITE | ACCESSED | DIRTY
    assert board.cpu.native.engine.slow_blocks - before < 50
