"""What code ran, as translated code notes it: all of a block, however long, and nothing beside it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.cpu import board as arm64
from tests.engine.cpu import riscv64_board as riscv64
from tests.engine.cpu import x86_board as x86
from timevm.engine.cpu.code_trace import CodeTrace

#: where the code stands in its page, in instructions of four bytes, and how many there are before a jump to itself
PLACES, LENGTHS = st.integers(0, 1023), st.integers(0, 700)
AT = 0x8000


def noted(trace: CodeTrace, base: int) -> list[int]:
    """Words of code around AT that are said to have run, by their place behind ``base``."""
    taken = trace.take()
    return [at for at in range(AT - 0x2000, AT + 0x4000, 4) if taken.holds(base + at)]


def expected(place: int, count: int) -> list[int]:
    begin = AT + 4 * place
    return list(range(begin, begin + 4 * count + 4, 4))


@given(PLACES, LENGTHS)
@settings(max_examples=40, deadline=None)
def test_aarch64(place: int, count: int) -> None:
    nop, stay = (0xD503201F).to_bytes(4, "little"), (0x14000000).to_bytes(4, "little")
    board = arm64.Board(b"")
    board.write(arm64.RAM + AT + 4 * place, nop * count + stay)
    trace = board.cpu.trace_code()
    board.cpu.reset(arm64.RAM + AT + 4 * place, [])
    board.cpu.run(count + 3)
    assert noted(trace, arm64.RAM) == expected(place, count)


@given(PLACES, LENGTHS)
@settings(max_examples=40, deadline=None)
def test_riscv64(place: int, count: int) -> None:
    nop, stay = (0x13).to_bytes(4, "little"), (0x6F).to_bytes(4, "little")
    board = riscv64.RiscvBoard(b"")
    board.write(riscv64.RAM + AT + 4 * place, nop * count + stay)
    trace = board.cpu.trace_code()
    board.cpu.write_register("pc", riscv64.RAM + AT + 4 * place)
    board.cpu.run(count + 3)
    assert noted(trace, riscv64.RAM) == expected(place, count)


@given(PLACES, LENGTHS)
@settings(max_examples=40, deadline=None)
def test_x86_64(place: int, count: int) -> None:
    nop, stay = bytes.fromhex("0f1f4000"), bytes.fromhex("ebfe")
    board = x86.Board(b"")
    board.write(AT + 4 * place, nop * count + stay)
    trace = board.cpu.trace_code()
    board.cpu.reset(AT + 4 * place, [])
    board.cpu.run(count + 3)
    assert noted(trace, 0) == expected(place, count)
