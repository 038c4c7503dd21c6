"""PCMPxSTRx against the processor that runs the tests: every control byte, strings that match here and there."""

from __future__ import annotations

import platform
import random

import pytest

from tests.engine.cpu.test_x86_64_arithmetic import features, on_host
from tests.engine.cpu.x86_assembler import assemble
from tests.engine.cpu.x86_board import CODE, END, LONG_MODE, Board
from timevm.engine.cpu.base import StopKind

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="compares with an x86-64 processor")

COUNT, CONTROLS = 40, 128
RESULT = 24
FUNCTION, INPUT, OUTPUT = 0x11_0000, 0x20_0000, 0x28_0000
#: rax and rdx are told lengths, mostly from -20 to 20
LENGTHS = "mov rax, [rsi + 32]\n mov rdx, [rsi + 40]"


def code(instruction: str) -> str:
    """A function of the System V ABI: rdi output, rsi input, edx how many."""
    tries = "\n".join(
        f"movdqu xmm1, [rsi]\n movdqu xmm2, [rsi + 16]\n {LENGTHS}\n pxor xmm0, xmm0\n xor ecx, ecx\n"
        f"{instruction} xmm1, xmm2, {control}\n"
        "pushfq\n pop rax\n and eax, 0x8d5\n shl rcx, 16\n or rax, rcx\n mov [rdi], rax\n movdqu [rdi + 8], xmm0\n"
        f"add rdi, {RESULT}"
        for control in range(CONTROLS)
    )
    return f"push rbx\n mov ebx, edx\n1: {tries}\n add rsi, 48\n dec ebx\n jnz 1b\n pop rbx\n ret"


def strings(generator: random.Random) -> bytes:
    """The operands of one try: few different elements, so that they match, some zeros, and two lengths."""
    alphabet = generator.choice((b"ab", b"abc", b"ab\0", b"\x7f\x80\xff\0", bytes(range(256))))
    both = bytes(generator.choices(alphabet, k=32))
    if generator.random() < 0.5:  # elements of 16 bits
        both = b"".join(bytes((element, generator.choice((0, 0, 255)))) for element in both[:16])
    told = [generator.choice((generator.randrange(-20, 20), generator.getrandbits(64))) for _ in range(2)]
    return both + b"".join((length & (1 << 64) - 1).to_bytes(8, "little") for length in told)


@pytest.mark.parametrize("instruction", ["pcmpistri", "pcmpistrm", "pcmpestri", "pcmpestrm", "rex.w pcmpestri"])
def test_strings_are_compared_as_the_host_compares_them(instruction: str) -> None:
    if "sse4_2" not in features():
        pytest.skip("the host has not these instructions")
    generator = random.Random(instruction)
    data = b"".join(strings(generator) for _ in range(COUNT))
    machine_code = assemble(code(instruction))
    call = f"mov edi, {OUTPUT}\n mov esi, {INPUT}\n mov edx, {COUNT}\n mov eax, {FUNCTION}\n call rax\n"
    board = Board(assemble(LONG_MODE + call + END, CODE), model="max")
    board.write(FUNCTION, machine_code)
    board.write(INPUT, data)
    assert board.run().kind is StopKind.POWER_OFF
    size = COUNT * CONTROLS * RESULT
    got, expected = board.read(OUTPUT, size), on_host(machine_code, data, COUNT, size)
    for at in range(0, size, RESULT):
        number, control = divmod(at // RESULT, CONTROLS)
        operands = data[48 * number : 48 * number + 48].hex()
        assert got[at : at + RESULT].hex() == expected[at : at + RESULT].hex(), f"control {control:#x} of {operands}"
