"""Break- and watchpoints, and registers by name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.cpu import riscv64_assembler as a
from tests.engine.cpu.riscv64_board import (
    DATA,
    FOREVER,
    HANDLER,
    RAM,
    RiscvBoard,
)
from tests.engine.cpu.riscv64_programs import (
    LOOP_STORE,
    finished_loop,
    loop_board,
)
from timevm.engine.cpu.base import StopKind, WatchKind, Watchpoint
from timevm.errors import UserError

TOP = (1 << 64) - 1


@pytest.fixture(scope="module")
def reference() -> tuple[Any, ...]:
    return finished_loop()


def test_breakpoints_stop_before_and_are_passed_on_leaving() -> None:
    place = LOOP_STORE
    board = loop_board()
    board.cpu.run(3)
    board.cpu.set_breakpoints(frozenset({place}))
    icounts = []
    while (stop := board.cpu.run(FOREVER)).kind is StopKind.BREAKPOINT:
        assert stop.pc == place
        icounts.append(stop.icount)
    assert len(icounts) == 40 and icounts == sorted(set(icounts))
    again = loop_board()
    again.cpu.set_breakpoints(frozenset({place}))
    collected = again.cpu.run_collecting(icounts[30])
    assert collected.stop.kind is StopKind.LIMIT and collected.complete
    assert [(stop.kind, stop.icount, stop.pc) for stop in collected.passed] == [
        (StopKind.BREAKPOINT, icount, place) for icount in icounts[:30]
    ]


@pytest.mark.parametrize(
    ("kind", "hits"), [(WatchKind.WRITE, 40), (WatchKind.READ, 0), (WatchKind.ACCESS, 40)], ids=lambda v: str(v)
)
def test_watchpoints_stop_before_the_access(reference: tuple[Any, ...], kind: WatchKind, hits: int) -> None:
    board = loop_board()
    board.cpu.set_watchpoints(frozenset({Watchpoint(DATA + 3, 1, kind)}))
    values = []
    while (stop := board.cpu.run(FOREVER)).kind is StopKind.WATCHPOINT:
        assert (stop.pc, stop.address, stop.is_write) == (LOOP_STORE, DATA + 3, True)
        values.append(board.number(DATA))
    assert stop.kind is StopKind.POWER_OFF
    assert len(values) == hits
    assert not values or values[0] == 0
    board.cpu.set_watchpoints(frozenset())
    assert board.fingerprint() == reference


@pytest.mark.parametrize("offset", [-7, -4, -1, 0, 1, 5])
@pytest.mark.parametrize("base", [DATA + 0x100, DATA + 0x1000], ids=["in a page", "across two"])
def test_a_watched_byte_is_met_by_a_store_that_is_not_aligned(offset: int, base: int) -> None:
    program = a.code(*a.load_constant(2, base), a.addi(1, 0, -1), a.store(1, 2, offset), a.jal(0, 0))
    board = RiscvBoard(program)
    board.cpu.set_watchpoints(frozenset({Watchpoint(base, 1, WatchKind.WRITE)}))
    stop = board.cpu.run(100)
    meets = offset <= 0
    assert (stop.kind is StopKind.WATCHPOINT) is meets
    if meets:
        assert (stop.address, stop.icount) == (base, 5)
        assert board.read(base - 16, 32) == bytes(32)
    board.cpu.run(100)
    assert board.read(base + offset, 8) == b"\xff" * 8


def test_loads_are_watched() -> None:
    program = a.code(*a.load_constant(2, DATA), a.NOP, a.load(1, 2, 4, 2), a.load(1, 2, 8), a.jal(0, 0))
    board = RiscvBoard(program)
    board.cpu.set_watchpoints(frozenset({Watchpoint(DATA + 10, 2, WatchKind.READ)}))
    stop = board.cpu.run(100)
    assert (stop.kind, stop.address, stop.icount, stop.is_write) == (StopKind.WATCHPOINT, DATA + 10, 6, False)
    assert board.cpu.run(100).kind is StopKind.LIMIT


def test_an_atomic_access_that_is_stopped_has_not_begun() -> None:
    board = RiscvBoard(a.code(*a.load_constant(2, DATA), a.addi(3, 0, 5), a.atomic(0, 1, 2, 3), a.jal(0, 0)))
    board.write(DATA, (37).to_bytes(8, "little"))
    board.cpu.set_watchpoints(frozenset({Watchpoint(DATA, 8, WatchKind.WRITE)}))
    stop = board.cpu.run(100)
    assert (stop.kind, stop.icount, board.x(1), board.number(DATA)) == (StopKind.WATCHPOINT, 5, 0, 37)
    board.cpu.run(100)
    assert (board.x(1), board.number(DATA)) == (37, 42)


def test_registers_by_name() -> None:
    board = RiscvBoard(a.code(a.NOP))
    for name, value in (
        ("x31", 5), ("f31", 1 << 63 | 9), ("stvec", HANDLER), ("satp", 8 << 60 | 5), ("mscratch", TOP), ("pc", RAM + 8),
        ("fcsr", 0x61), ("mideleg", 0x222), ("sip", 2), ("mie", 0x222), ("priv", 1), ("sepc", RAM), ("priv", 3),
    ):  # fmt: skip
        board.cpu.write_register(name, value)
        assert board.cpu.read_register(name) == value, name
    board.cpu.write_register("x0", 7)
    assert board.x(0) == 0
    assert {register.name for register in board.cpu.registers} >= {"x1", "pc", "f0", "fflags", "mstatus", "time"}
    for register in board.cpu.registers:
        board.cpu.read_register(register.name)
    for name, value, message in (
        ("x99", 0, "unknown register 'x99'"), ("time", 1, "cannot be written"), ("priv", 2, "no privilege mode 2"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            board.cpu.write_register(name, value)
    with pytest.raises(UserError, match="unknown register 'x99'"):
        board.cpu.read_register("x99")
