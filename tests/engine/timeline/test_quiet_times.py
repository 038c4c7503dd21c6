"""Where a breakpoint need not be looked for: never where one was, and not lost in the crowd."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.cpu import assembler as a
from tests.engine.cpu.board import RAM, Board
from timevm.engine.cpu import code_trace
from timevm.engine.cpu.base import StopKind
from timevm.engine.cpu.code_trace import CodeTrace
from timevm.engine.timeline import quiet_times
from timevm.engine.timeline.quiet_times import QuietTimes

FOREVER = 1 << 60


def long_program(blocks: int) -> list[int]:
    """Blocks of many lengths, each ended by a jump over a hole."""
    words: list[int] = []
    for number in range(blocks):
        words += [a.add(1, 1, 1)] * (1 + number * 7 % 60)
        words += [a.b(1 + number % 20), *[a.add(2, 2, 1)] * (number % 20)]
    return [*words, *a.load_constant(0, 0x8400_0008), a.hvc(), a.NOP]


def test_every_instruction_that_ran_is_in_the_trace_and_holes_are_not() -> None:
    words = long_program(60)
    board = Board(a.code(*words))
    trace = board.cpu.trace_code()
    ran = {RAM}
    while (stop := board.cpu.run(board.cpu.icount + 1)).kind is StopKind.LIMIT:
        ran.add(stop.pc)
    trace.clear()
    board = Board(a.code(*words))
    trace = board.cpu.trace_code()
    while board.cpu.run(board.cpu.icount + 37).kind is StopKind.LIMIT:
        pass
    taken = trace.take()
    assert len(ran) > 1000
    assert all(taken.holds(pc) for pc in ran)
    elsewhere = [address for address in range(RAM, RAM + 16 * len(words), 4) if address not in ran]
    assert elsewhere and not any(taken.holds(pc) for pc in elsewhere)
    assert not any(trace.take().holds(pc) for pc in ran)


def test_more_blocks_than_there_are_numbers_may_be_anything_until_the_next_stretch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(code_trace, "CAPACITY", 40)
    board = Board(a.code(*long_program(60)))
    trace = board.cpu.trace_code()
    while board.cpu.run(board.cpu.icount + 1000).kind is StopKind.LIMIT:
        pass
    assert trace.take().holds(0x1234_5678)
    board.cpu.reset(RAM, [])
    board.cpu.run(board.cpu.icount + 100)
    taken = trace.take()
    assert taken.holds(RAM) and not taken.holds(RAM + 4 * 1000) and not taken.holds(0x1234_5678)


class Marked(CodeTrace):
    """A trace that a test marks: each word of code is a block."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def mark(self, address: int) -> None:
        number = address // 4
        self._blocks.places[number] = address, 4
        self._table.count = max(self._table.count, number + 1)
        self._ran[number] = 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["run", "back", "look"]), st.integers(0, 400), st.sets(st.integers(0, 5), max_size=2)
        ),
        max_size=60,
    ),
    st.integers(1, 60),
)
@settings(max_examples=200, deadline=None)
def test_what_is_called_quiet_was_run_without(actions: list[tuple[str, int, set[int]]], worth: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quiet_times, "WORTH", worth)
        patch.setattr(quiet_times, "MANY", 8)
        # history is what it is: one place of six runs at each moment
        history = [(icount * icount + icount // 7) % 6 for icount in range(3000)]
        trace, icount = Marked(), 0
        quiet, known = QuietTimes(trace, 0), set[int]()
        for action, number, places in actions:
            if action == "run":
                for moment in range(icount, icount + number % 100):
                    trace.mark(history[moment] * 4)
                    known.add(moment)
                icount += number % 100
                quiet.reached(icount)
            elif action == "back":
                icount = min(icount, number)
                quiet.moved(icount)
            else:
                upper = number
                since = quiet.quiet_since(upper, [place * 4 for place in places])
                assert since <= upper
                assert all(moment in known and history[moment] not in places for moment in range(since, upper))


def test_a_place_that_ran_once_is_found_among_many_stretches() -> None:
    trace = Marked()
    quiet = QuietTimes(trace, 0)
    for number in range(100):
        trace.mark(0x1000)
        if number == 3:
            trace.mark(0x2000)
        quiet.reached((number + 1) * quiet_times.WORTH)
    assert quiet.quiet_since(100 * quiet_times.WORTH, [0x2000]) == 4 * quiet_times.WORTH
    assert quiet.quiet_since(100 * quiet_times.WORTH, [0x1000]) == 100 * quiet_times.WORTH
    assert quiet.quiet_since(100 * quiet_times.WORTH, [0x3000]) == 0
    assert quiet.quiet_since(100 * quiet_times.WORTH + 1, [0x3000]) == 100 * quiet_times.WORTH + 1
