"""Where the AArch64 CPU stops: breakpoints, watchpoints, kicks."""

from __future__ import annotations

import pytest

from tests.engine.cpu import assembler as a
from tests.engine.cpu.aarch64_programs import FOREVER, IRQ_HANDLER, counting_loop, finished_loop, vector_table
from tests.engine.cpu.board import DATA, RAM, Board
from timevm.engine.cpu.base import StopKind, WatchKind, Watchpoint

STP_X0_X1_AT_X2 = 0xA9000440
STR_X0_AT_X2 = 0xF9000040
BR_X1 = 0xD61F0020


def test_breakpoints_stop_before_and_are_passed_on_leaving() -> None:
    board = Board(counting_loop(40), vectors=vector_table(irq=IRQ_HANDLER))
    place = RAM + 4 * 11
    board.cpu.run(3)
    board.cpu.set_breakpoints(frozenset({place}))
    icounts = []
    while (stop := board.cpu.run(FOREVER)).kind is StopKind.BREAKPOINT:
        assert stop.pc == place
        icounts.append(stop.icount)
    assert len(icounts) == 40 and icounts == sorted(set(icounts))
    again = Board(counting_loop(40), vectors=vector_table(irq=IRQ_HANDLER))
    again.cpu.set_breakpoints(frozenset({place}))
    collected = again.cpu.run_collecting(icounts[30])
    assert collected.stop.kind is StopKind.LIMIT and collected.complete
    assert [(stop.kind, stop.icount, stop.pc) for stop in collected.passed] == [
        (StopKind.BREAKPOINT, icount, place) for icount in icounts[:30]
    ]


@pytest.mark.parametrize(
    ("kind", "hits"), [(WatchKind.WRITE, 40), (WatchKind.READ, 0), (WatchKind.ACCESS, 40)], ids=lambda v: str(v)
)
def test_watchpoints_stop_before_the_access(kind: WatchKind, hits: int) -> None:
    board = Board(counting_loop(40), vectors=vector_table(irq=IRQ_HANDLER))
    board.cpu.set_watchpoints(frozenset({Watchpoint(DATA + 3, 1, kind)}))
    values = []
    while (stop := board.cpu.run(FOREVER)).kind is StopKind.WATCHPOINT:
        assert (stop.pc, stop.address, stop.is_write) == (RAM + 4 * 14, DATA + 3, True)
        values.append(int.from_bytes(board.read(DATA, 8), "little"))
    assert stop.kind is StopKind.POWER_OFF
    assert len(values) == hits
    assert not values or values[0] == 0
    board.cpu.set_watchpoints(frozenset())
    assert board.fingerprint() == finished_loop()


@pytest.mark.parametrize("physical", [False, True], ids=["virtual", "physical"])
@pytest.mark.parametrize("watched", [0, 8], ids=["first", "second"])
def test_a_pair_that_is_stopped_has_not_begun(watched: int, physical: bool) -> None:
    """The second of two stores is watched: the first has not happened either where the machine stands."""
    board = Board(a.code(*a.load_constant(2, DATA), a.movz(0, 5), a.movz(1, 6), STP_X0_X1_AT_X2, a.b(0)))
    board.cpu.set_watchpoints(frozenset({Watchpoint(DATA + watched, 8, WatchKind.WRITE, physical)}))
    before = board.read(DATA, 16)
    stop = board.cpu.run(100)
    assert (stop.kind, stop.address) == (StopKind.WATCHPOINT, DATA + watched)
    assert board.read(DATA, 16) == before
    board.cpu.run(stop.icount + 1)
    assert board.read(DATA, 16) == (5).to_bytes(8, "little") + (6).to_bytes(8, "little")


@pytest.mark.parametrize("physical", [False, True], ids=["virtual", "physical"])
@pytest.mark.parametrize("flat_translation", [True, False])
@pytest.mark.parametrize(
    ("begin", "instruction"), [(-8, STP_X0_X1_AT_X2), (-4, STR_X0_AT_X2)], ids=["pair", "unaligned"]
)
def test_a_watched_page_is_reached_from_the_page_before(
    flat_translation: bool, begin: int, instruction: int, physical: bool
) -> None:
    border = DATA + 0x1000
    program = a.code(*a.load_constant(2, border + begin), a.movz(0, 5), a.movz(1, 6), instruction, a.b(0))
    board = Board(program, flat_translation=flat_translation)
    board.cpu.set_watchpoints(frozenset({Watchpoint(border, 2, WatchKind.WRITE, physical)}))
    before = board.read(border - 16, 32)
    stop = board.cpu.run(100)
    assert (stop.kind, stop.address) == (StopKind.WATCHPOINT, border)
    assert board.read(border - 16, 32) == before
    board.cpu.run(stop.icount + 1)
    assert board.read(border - 16, 32) != before


def test_a_kick_stops_an_endless_loop() -> None:
    board = Board(a.code(a.b(0)))
    board.cpu.kick()
    stop = board.cpu.run(FOREVER)
    assert stop.kind is StopKind.KICK and 0 < stop.icount < 1 << 20


def test_a_kick_stops_a_guest_that_executes_nothing() -> None:
    # nothing is mapped where it jumps to, nor where the abort's vector is: one abort after the other, no instruction
    board = Board(a.code(*a.load_constant(1, 0x10), BR_X1))
    board.cpu.kick()
    stop = board.cpu.run(FOREVER)
    assert stop.kind is StopKind.KICK
    board.cpu.kick()
    assert board.cpu.run(FOREVER) == stop
