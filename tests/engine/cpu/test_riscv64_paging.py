"""Address translation on RISC-V: page faults, looks that leave no trace, changed tables, code in two pages."""

from __future__ import annotations

import threading

import pytest

from tests.engine.cpu import riscv64_assembler as a
from tests.engine.cpu.riscv64_board import DATA, FOREVER, HANDLER, HOLE, RAM, TABLES, RiscvBoard, power_off
from tests.engine.cpu.riscv64_tables import ACCESSED, DIRTY, EXECUTE, LEVELS, READ, VALID, VIRTUAL, WRITE, Tables
from timevm.engine.cpu.base import StopKind, WatchKind, Watchpoint
from timevm.engine.cpu.sbi import Arguments, SbiOutcome

FETCH_PAGE, LOAD_PAGE, STORE_PAGE = 12, 13, 15


def supervisor(*program: int, mode: int = 8, handler: list[int] | None = None) -> tuple[RiscvBoard, Tables]:
    """S-mode with paging on; a trap notes scause, sepc, stval in x13, x14, x15 and switches off."""

    def sbi(extension: int, function: int, arguments: Arguments) -> SbiOutcome:
        raise AssertionError("nobody calls the firmware")

    board = RiscvBoard(b"", sbi=sbi)
    tables = Tables(board, mode)
    notes = [a.csrr(13, "scause"), a.csrr(14, "sepc"), a.csrr(15, "stval"), *power_off()]
    board.write(HANDLER, a.code(*(handler or notes)))
    board.write(RAM, a.code(*program))
    for name, value in (("stvec", HANDLER), ("satp", tables.satp), ("x5", VIRTUAL), ("x6", DATA)):
        board.cpu.write_register(name, value)
    return board, tables


@pytest.mark.parametrize("mode", LEVELS)
def test_pages_are_found_without_a_trace(mode: int) -> None:
    board, tables = supervisor(a.jal(0, 0), mode=mode)
    tables.map(VIRTUAL, DATA, READ)
    assert board.cpu.translate(VIRTUAL + 0x123) == DATA + 0x123
    assert board.cpu.translate(VIRTUAL + 0x1000) is None
    assert board.cpu.translate(RAM + 5) == RAM + 5
    assert board.cpu.translate(1 << 62) is None
    assert tables.rights(VIRTUAL) == VALID | READ
    board.cpu.write_register("priv", 3)
    assert board.cpu.translate(1 << 62) == 1 << 62


def test_a_large_page_is_found() -> None:
    board, _ = supervisor(a.jal(0, 0))
    large = 0x4000_0000
    board.write(TABLES + 8 * (large >> 30), ((RAM >> 12) << 10 | 0xCF).to_bytes(8, "little"))
    assert board.cpu.translate(large + 0x12_3456) == RAM + 0x12_3456
    board.write(TABLES + 8 * (large >> 30), ((DATA >> 12) << 10 | 0xCF).to_bytes(8, "little"))
    assert board.cpu.translate(large) is None  # not aligned to its size


@pytest.mark.parametrize("mode", LEVELS)
@pytest.mark.parametrize(
    ("access", "rights", "cause"),
    [
        (a.load(1, 5, 8), 0, LOAD_PAGE),
        (a.store(1, 5, 8), READ, STORE_PAGE),
        (a.atomic(0, 1, 5, 2), 0, STORE_PAGE),
        (a.atomic(0, 1, 5, 2), READ, STORE_PAGE),
        (a.atomic(2, 1, 5, 0), 0, LOAD_PAGE),
        (a.jalr(0, 5, 8), READ, FETCH_PAGE),
    ],
    ids=["load", "store", "atomic", "atomic to read-only", "reserve", "fetch"],
)
def test_page_faults(mode: int, access: int, rights: int, cause: int) -> None:
    board, tables = supervisor(a.NOP, access, a.NOP, mode=mode)
    if rights:
        tables.map(VIRTUAL, DATA, rights)
    stop = board.cpu.run(FOREVER)
    assert stop.kind is StopKind.POWER_OFF
    offset = 0 if access & 0x7F == 0x2F else 8
    assert (board.x(13), board.x(15)) == (cause, VIRTUAL + offset)
    assert board.x(14) == (VIRTUAL + 8 if cause == FETCH_PAGE else RAM + 4)
    assert stop.icount == 2 + 3 + 5


def test_accesses_mark_their_pages() -> None:
    board, tables = supervisor(a.load(1, 5), a.store(1, 5, 8), a.jal(0, 0))
    tables.map(VIRTUAL, DATA, READ | WRITE)
    board.cpu.run(1)
    assert tables.rights(VIRTUAL) == VALID | READ | WRITE | ACCESSED
    board.cpu.run(2)
    assert tables.rights(VIRTUAL) == VALID | READ | WRITE | ACCESSED | DIRTY


@pytest.mark.parametrize("step", [1, 2, FOREVER])
@pytest.mark.parametrize("second_is_mapped", [True, False])
def test_an_instruction_across_two_pages(step: int, second_is_mapped: bool) -> None:
    """A fault of its second half names the second page, and counts nothing."""
    board, tables = supervisor(a.addi(5, 5, 0x7FA), a.addi(5, 5, 0x7FE), a.jalr(1, 5, 2))
    code = a.code(a.C_NOP, a.C_NOP, a.addi(7, 7, 5), a.jalr(0, 1))
    for page, place in enumerate((DATA, DATA + 0x3000)):
        if page == 0 or second_is_mapped:
            tables.map(VIRTUAL + 0x1000 * page, place, READ | EXECUTE)
    board.write(DATA + 0xFFA, code[:6])
    board.write(DATA + 0x3000, code[6:])
    board.write(RAM + 12, a.code(*power_off()))
    while (stop := board.cpu.run(board.cpu.icount + step)).kind is StopKind.LIMIT:
        pass
    if second_is_mapped:
        assert (board.x(7), stop.icount) == (5, 3 + 4 + 5)
    else:
        assert (board.x(13), board.x(14), board.x(15)) == (FETCH_PAGE, VIRTUAL + 0xFFE, VIRTUAL + 0x1000)
        assert stop.icount == 3 + 2 + 3 + 5


@pytest.mark.parametrize("step", [1, FOREVER])
def test_the_next_instruction_comes_from_the_new_table_after_a_fence(step: int) -> None:
    """The page that is running is mapped to another place."""
    pages = (DATA, DATA + 0x3000)
    body = [a.store(8, 9), a.SFENCE_VMA, a.addi(7, 7, 1)]
    board, tables = supervisor(a.jalr(1, 5))
    tables.map(VIRTUAL, pages[0], READ | EXECUTE | ACCESSED)
    board.write(pages[0], a.code(*body, *power_off()))
    board.write(pages[1], a.code(*body[:2], a.addi(7, 7, 100), *power_off()))
    board.cpu.write_register("x8", pages[1] >> 12 << 10 | VALID | READ | EXECUTE | ACCESSED)
    board.cpu.write_register("x9", tables.entry(VIRTUAL))
    while board.cpu.run(board.cpu.icount + step).kind is StopKind.LIMIT:
        pass
    assert board.x(7) == 100


@pytest.mark.parametrize("step", [1, 3, FOREVER])
def test_code_that_is_changed_through_another_mapping(step: int) -> None:
    """As Linux patches its text: stores through an alias, 300 times, so that the page is written off once."""
    rounds = 300
    board, tables = supervisor()
    tables.map(VIRTUAL, DATA, READ | EXECUTE)
    tables.map(VIRTUAL + 0x1000, DATA, READ | WRITE)
    body = [a.add(3, 3, 6), a.store(3, 4, 0, 2), a.FENCE_I, a.jalr(1, 5), a.addi(8, 8, -1)]
    board.write(DATA, a.code(a.addi(7, 7, 0), a.jalr(0, 1)))
    board.write(RAM, a.code(*body, a.bne(8, 0, -4 * len(body)), *power_off()))
    for name, value in (("x3", a.addi(7, 7, 0)), ("x4", VIRTUAL + 0x1000), ("x6", 1 << 20), ("x8", rounds)):
        board.cpu.write_register(name, value)
    while (stop := board.cpu.run(board.cpu.icount + step)).kind is StopKind.LIMIT:
        pass
    assert stop.kind is StopKind.POWER_OFF
    assert board.x(7) == sum(range(1, rounds + 1))


@pytest.mark.parametrize("step", [1, FOREVER])
def test_paging_begins_with_the_next_instruction(step: int) -> None:
    """Linux turns it on where its page is not mapped: the fault takes it to its trap vector, at a virtual address."""
    board, tables = supervisor(a.csrw("satp", 8), a.addi(7, 7, 1), a.addi(7, 7, 1))
    for page in range(RAM, RAM + (2 << 20), 0x1000):
        tables.map(page, 0, 0)
    tables.map(VIRTUAL, HANDLER, READ | EXECUTE)
    board.cpu.write_register("x8", board.cpu.read_register("satp"))
    board.cpu.write_register("satp", 0)
    board.cpu.write_register("stvec", VIRTUAL)
    while (stop := board.cpu.run(board.cpu.icount + step)).kind is StopKind.LIMIT:
        pass
    assert (board.x(7), board.x(13), board.x(14)) == (0, FETCH_PAGE, RAM + 4)
    assert stop.icount == 1 + 3 + 5


@pytest.mark.parametrize("mapped", [True, False], ids=["access faults", "page faults"])
def test_a_guest_whose_trap_handler_is_nowhere_can_be_stopped(mapped: bool) -> None:
    """It executes nothing any longer, one fault after the other."""
    board, tables = supervisor(a.NOP, a.EBREAK)
    board.cpu.write_register("stvec", VIRTUAL)
    if mapped:
        tables.map(VIRTUAL, HOLE, READ | EXECUTE)
    timer = threading.Timer(0.2, board.cpu.kick)
    timer.start()
    stop = board.cpu.run(FOREVER)
    timer.join()
    assert (stop.kind, stop.icount, stop.pc) == (StopKind.KICK, 2, VIRTUAL)
    assert board.cpu.read_register("scause") == (1 if mapped else FETCH_PAGE)


def test_watchpoints_are_virtual_and_know_who_maps_the_page() -> None:
    board, tables = supervisor(a.store(1, 6), a.store(1, 5), a.load(1, 5), a.jal(0, 0))
    tables.map(VIRTUAL, DATA, READ | WRITE)
    for kind, icounts in ((WatchKind.WRITE, [1]), (WatchKind.ACCESS, [1, 2])):
        state, memory = board.cpu.state(), bytes(board.memory)
        board.cpu.set_watchpoints(frozenset({Watchpoint(VIRTUAL, 4, kind)}))
        found = []
        while (stop := board.cpu.run(50)).kind is StopKind.WATCHPOINT:
            found.append(stop.icount)
        assert found == icounts
        board.memory[:] = memory
        board.cpu.restore(state)


def test_physical_memory_is_watched_whoever_maps_it() -> None:
    """Through both mappings, and by a store that begins before what is watched."""
    board, tables = supervisor(a.store(1, 6, 8), a.store(1, 5, 8), a.store(1, 5, 3), a.store(1, 5, 16), a.jal(0, 0))
    tables.map(VIRTUAL, DATA, READ | WRITE)
    watched = Watchpoint(DATA + 8, 8, WatchKind.WRITE, physical=True)
    board.cpu.set_watchpoints(frozenset({watched}))
    found = []
    while (stop := board.cpu.run(50)).kind is StopKind.WATCHPOINT:
        found.append((stop.icount, stop.address))
    assert found == [(0, DATA + 8), (1, DATA + 8), (2, DATA + 8)]


def test_a_breakpoint_at_a_virtual_address() -> None:
    board, tables = supervisor(a.NOP, a.jalr(1, 5), a.jal(0, -4))
    tables.map(VIRTUAL, DATA, READ | EXECUTE)
    board.write(DATA, a.code(a.C_NOP, a.addi(7, 7, 1), a.jalr(0, 1)))
    board.cpu.run(20)
    board.cpu.set_breakpoints(frozenset({VIRTUAL + 2}))
    first = board.cpu.run(FOREVER)
    second = board.cpu.run(FOREVER)
    assert (first.kind, first.pc, second.icount - first.icount) == (StopKind.BREAKPOINT, VIRTUAL + 2, 5)
    board.cpu.set_breakpoints(frozenset())
    assert board.cpu.run(200).kind is StopKind.LIMIT
