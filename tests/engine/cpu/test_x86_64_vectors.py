"""Vector and x87 registers: the state holds what instructions can see of them, and nothing of the host."""

from __future__ import annotations

import pytest

from tests.engine.cpu.x86_assembler import assemble
from tests.engine.cpu.x86_board import CODE, DATA, END, LONG_MODE, Board
from timevm.engine.cpu import x86_64_private as private

#: (model, instruction): those of which Unicorn's helper copies a whole register from its own stack
SHUFFLES = (
    ("qemu64", "pshufd xmm3, xmm0, 0x1b"),
    ("qemu64", "shufps xmm3, xmm0, 0x1b"),
    ("qemu64", "shufpd xmm3, xmm0, 1"),
    ("qemu64", "packsswb xmm3, xmm0"),
    ("qemu64", "punpcklbw xmm3, xmm0"),
    ("qemu64", "punpckhqdq xmm3, xmm0"),
    ("qemu64", "haddps xmm3, xmm0"),
    ("max", "pshufb xmm3, xmm0"),
    ("max", "palignr xmm3, xmm0, 5"),
    ("max", "aesenc xmm3, xmm0"),
    ("max", "mpsadbw xmm3, xmm0, 5"),
    ("max", "pclmulqdq xmm3, xmm0, 0"),
)


@pytest.mark.parametrize(("model", "shuffle"), SHUFFLES)
def test_shuffles_leave_nothing_of_the_host_in_the_state(model: str, shuffle: str) -> None:
    program = f"mov rax, 0x0123456789abcdef\nmovq xmm0, rax\nmovq xmm3, rax\n{shuffle}\n"
    board = Board(assemble(LONG_MODE + program + END, CODE), model=model)
    board.run()
    context = board.cpu.state()["context"]
    for number in range(private.VECTOR_COUNT):
        start = private.VECTORS + private.VECTOR_SIZE * number
        assert not any(context[start + 16 : start + private.VECTOR_SIZE]), f"register {number}"


def test_a_restored_state_has_the_registers_themselves() -> None:
    program = "mov rax, 0x0123456789abcdef\nmovq xmm0, rax\npshufd xmm3, xmm0, 0x44\n"
    code = assemble(LONG_MODE + program + END, CODE)
    board, other = Board(code), Board(code)
    board.run()
    state = board.cpu.state()
    other.cpu.restore(state)
    assert other.cpu.state() == state
    start = private.VECTORS + 3 * private.VECTOR_SIZE
    assert state["context"][start : start + 16] == 2 * (0x0123456789ABCDEF).to_bytes(8, "little")


#: from registers, or from what DATA holds
FLOATS = ("fpatan", "fyl2x", "fxtract", "fprem", "fscale", "fxch", "fcmove st, st(1)", "fsin")
NOT_NUMBERS = (
    "fchs\nfsqrt",
    "fldz\nfdiv st, st",
    "fldz\nfldz\nfprem",
    "fchs\nfldz\nfyl2x",
    "fldz\nfchs\nfxtract\nfsub st, st(1)",
)
LOADS = ("fld tbyte ptr [rbx]", "fld qword ptr [rbx]", "fbld [rbx]", "fxrstor [rbx]", "frstor [rbx]")


@pytest.mark.parametrize("operation", FLOATS + NOT_NUMBERS + LOADS)
def test_x87_leaves_nothing_of_the_host_in_the_state(operation: str) -> None:
    program = f"fninit\nfld1\nfldl2e\nmov ebx, {DATA}\nfxsave [rbx]\n{operation}\n"
    board = Board(assemble(LONG_MODE + program + END, CODE))
    board.run()
    context = board.cpu.state()["context"]
    for start in (*(private.FLOATS + private.FLOAT_SIZE * n for n in range(8)), private.FLOAT_OPERAND):
        assert not any(context[start + 10 : start + private.FLOAT_SIZE]), f"offset {start}"
