"""MXCSR against the processor that runs the tests: exceptions as they add up, rounding, flushing to zero.

Left out: the exception of denormal operands, which Unicorn does not notice, and what MAX and MIN choose of two that are
flushed.
"""

from __future__ import annotations

import platform
import random

import pytest

from tests.engine.cpu.test_x86_64_arithmetic import features, is_known_difference, on_host, operands
from tests.engine.cpu.x86_assembler import assemble
from tests.engine.cpu.x86_board import CODE, DATA, END, LONG_MODE, STACK, Board
from timevm.engine.cpu.base import StopKind

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="compares with an x86-64 processor")

COUNT, RESULT = 120, 24
FUNCTION, OUTPUT = 0x11_0000, 0x28_0000
INSTRUCTIONS = (
    "addss", "addsd", "subps", "subpd", "mulss", "mulpd", "divss", "divsd", "sqrtss", "sqrtpd", "maxsd", "minps",
    "ucomisd", "comiss", "cvtsd2ss", "cvtss2sd", "cvtps2dq", "cvttpd2dq", "cmpltpd", "cmpeqps", "haddps",
)  # fmt: skip
#: all exceptions masked, and the four directions of rounding, flushing of results, of operands, of both
CONTROLS = (0x1F80, 0x3F80, 0x5F80, 0x7F80, 0x9F80, 0x1FC0, 0x9FC0)
DENORMAL, FLUSHES_OPERANDS = 0x02, 0x40


def code(instruction: str) -> str:
    """A function of the System V ABI: rdi output, rsi input, edx how many."""
    tries = "\n".join(
        f"mov dword ptr [rsp - 8], {control}\n ldmxcsr [rsp - 8]\n movdqu xmm0, [rsi]\n movdqu xmm1, [rsi + 16]\n"
        f"{instruction} xmm0, xmm1\n mov qword ptr [rdi], 0\n stmxcsr [rdi]\n movdqu [rdi + 8], xmm0\n"
        f"add rdi, {RESULT}"
        for control in CONTROLS
    )
    return f"""
    push rbx
    mov ebx, edx
1:  {tries}
    add rsi, 32
    dec ebx
    jnz 1b
    mov dword ptr [rsp - 8], 0x1f80
    ldmxcsr [rsp - 8]
    pop rbx
    ret
    """


def guest(machine_code: bytes, data: bytes, size: int) -> bytes:
    call = f"mov edi, {OUTPUT}\n mov esi, {DATA}\n mov edx, {COUNT}\n mov eax, {FUNCTION}\n call rax\n"
    board = Board(assemble(LONG_MODE + call + END, CODE), model="max")
    board.write(FUNCTION, machine_code)
    board.write(DATA, data)
    assert board.run().kind is StopKind.POWER_OFF
    return board.read(OUTPUT, size)


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_exceptions_and_results_are_the_hosts(instruction: str) -> None:
    if "pni" not in features():
        pytest.skip("the host has not these instructions")
    machine_code, data = assemble(code(instruction)), operands(random.Random(instruction))[: 32 * COUNT]
    size = COUNT * len(CONTROLS) * RESULT
    got, expected = guest(machine_code, data, size), on_host(machine_code, data, COUNT, size)
    for at in range(0, size, RESULT):
        number, control = divmod(at // RESULT, len(CONTROLS))
        ours, theirs = (int.from_bytes(row[at : at + 8], "little") & ~DENORMAL for row in (got, expected))
        shown = f"{CONTROLS[control]:#x} {data[32 * number : 32 * number + 32].hex()}"
        assert ours == theirs, f"{shown}: {ours:#x}, not {theirs:#x}"
        is_choice = instruction.startswith(("max", "min")) and CONTROLS[control] & FLUSHES_OPERANDS
        if not is_choice and not is_known_difference(instruction, data[32 * number : 32 * number + 32]):
            assert got[at + 8 : at + RESULT].hex() == expected[at + 8 : at + RESULT].hex(), shown


def test_they_add_up_until_they_are_cleared_and_go_with_fxsave() -> None:
    body = f"""
    mov edi, {DATA}
    mov eax, 1
    cvtsi2sd xmm1, eax
    pxor xmm0, xmm0
    divsd xmm1, xmm0
    mov eax, 3
    cvtsi2sd xmm0, eax
    mov eax, 1
    cvtsi2sd xmm1, eax
    divsd xmm1, xmm0
    stmxcsr [rdi]
    fxsave [rdi + 64]
    mov dword ptr [rdi + 4], 0x1f80
    ldmxcsr [rdi + 4]
    stmxcsr [rdi + 8]
    fxrstor [rdi + 64]
    stmxcsr [rdi + 12]
    """
    board = Board(assemble(LONG_MODE + body + END, CODE))
    assert board.run().kind is StopKind.POWER_OFF
    assert [board.number(DATA + at, 4) for at in (0, 64 + 24, 8, 12)] == [0x1FA4, 0x1FA4, 0x1F80, 0x1FA4]
    assert board.number(DATA + 64 + 24, 4) == board.cpu.read_register("mxcsr")
    assert STACK > DATA


def test_the_debugger_sees_what_was_not_stored_yet() -> None:
    body = "pxor xmm0, xmm0\n divsd xmm0, xmm0\n"
    board = Board(assemble(LONG_MODE + body + END, CODE))
    assert board.run().kind is StopKind.POWER_OFF
    assert board.cpu.read_register("mxcsr") == 0x1F81
    board.cpu.write_register("mxcsr", 0x1F80)
    assert board.cpu.read_register("mxcsr") == 0x1F80
