"""F2XM1, FYL2X, FYL2XP1 and FPATAN have the precision of the x87: 64 bits, rounded as the control word says.

What they do with zeros, infinities and what is no number is QEMU's own test suite's to check (``tests/x86_suite``).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import mpmath
import pytest

from tests.engine.cpu.x86_assembler import assemble
from tests.engine.cpu.x86_board import CODE, END, LONG_MODE, Board
from timevm.engine.cpu.base import StopKind

COUNT = 300
INPUT, OUTPUT, RESULT = 0x20_0000, 0x28_0000, 16
BIAS = 16383
#: the field of the control word with all exceptions masked and all bits of precision
NEAREST, DOWN, UP, TOWARDS_ZERO = (0x37F | mode << 10 for mode in range(4))
INEXACT, UNDERFLOW, DENORMAL = 0x20, 0x10, 0x02
#: bits that mpmath computes with
PRECISION = 400

Operands = list[tuple[bytes, bytes]]


def value(data: bytes) -> Any:
    mantissa, field = struct.unpack("<QH", data)
    exponent = max(1, field & 0x7FFF) - BIAS - 63
    return mpmath.ldexp(mpmath.mpf(mantissa), exponent) * (-1 if field >> 15 else 1)


def unit(data: bytes) -> Any:
    """In the last place."""
    return mpmath.ldexp(1, max(1, struct.unpack("<H", data[8:])[0] & 0x7FFF) - BIAS - 63)


def operand(generator: random.Random, least: int, most: int, *, positive: bool = False) -> bytes:
    """With exponents of two from ``least`` to below ``most``."""
    sign = 0 if positive else generator.getrandbits(1) << 15
    return struct.pack("<QH", generator.getrandbits(63) | 1 << 63, generator.randrange(least, most) + BIAS | sign)


def near_1(generator: random.Random) -> bytes:
    distance = generator.getrandbits(generator.randrange(1, 60)) + 1
    above, below = struct.pack("<QH", (1 << 63) + distance, BIAS), struct.pack("<QH", (1 << 64) - distance, BIAS - 1)
    return generator.choice((above, below))


def run(instruction: str, operands: Operands, control: int = NEAREST) -> list[tuple[bytes, int]]:
    """Of pairs of ST(0) and ST(1): what is on the stack's top then, and the status word."""
    loop = f"""
    mov esi, {INPUT}
    mov edi, {OUTPUT}
    mov ebx, {len(operands)}
    push {control}
1:  fninit
    fldcw [rsp]
    fld tbyte ptr [rsi + 10]
    fld tbyte ptr [rsi]
    {instruction}
    fstp tbyte ptr [rdi]
    fnstsw [rdi + 10]
    add rdi, {RESULT}
    add rsi, 20
    dec ebx
    jnz 1b
    """
    board = Board(assemble(LONG_MODE + loop + END, CODE))
    board.write(INPUT, b"".join(first + second for first, second in operands))
    assert board.run().kind is StopKind.POWER_OFF
    rows = [board.read(OUTPUT + RESULT * number, 12) for number in range(len(operands))]
    return [(row[:10], int.from_bytes(row[10:], "little")) for row in rows]


def f2xm1(x: Any, y: Any) -> Any:
    return mpmath.expm1(x * mpmath.log(2))


def fyl2x(x: Any, y: Any) -> Any:
    return y * mpmath.log(x) / mpmath.log(2)


def fyl2xp1(x: Any, y: Any) -> Any:
    return y * mpmath.log1p(x) / mpmath.log(2)


def fpatan(x: Any, y: Any) -> Any:
    return mpmath.atan2(y, x)


Exact = Callable[[Any, Any], Any]


def operands_of(exact: Exact) -> Operands:
    generator = random.Random(exact.__name__)

    def some() -> tuple[bytes, bytes]:
        y = operand(generator, -60, 60)
        if exact is fyl2x:
            x = generator.choice((near_1(generator), operand(generator, -16000, 16000, positive=True)))
        elif exact is fpatan:
            far = generator.choice((3, 90))
            x, y = operand(generator, -far, far), operand(generator, -far, far)
        else:
            x = operand(generator, generator.choice((-90, -16000)), 0 if exact is f2xm1 else -2)
        return x, y

    return [some() for _ in range(COUNT)]


@pytest.mark.parametrize("exact", [f2xm1, fyl2x, fyl2xp1, fpatan])
def test_the_last_bit_is_right_in_all_directions_of_rounding(exact: Exact) -> None:
    operands = operands_of(exact)
    results = {control: run(exact.__name__, operands, control) for control in (NEAREST, DOWN, UP, TOWARDS_ZERO)}
    with mpmath.workprec(PRECISION):
        for number, (x, y) in enumerate(operands):
            right = exact(value(x), value(y))
            nearest, down, up, inward = (results[control][number][0] for control in results)
            shown = f"{x.hex()} {y.hex()}: {nearest.hex()} {down.hex()} {up.hex()} {inward.hex()}"
            assert abs(value(nearest) - right) <= 0.5001 * unit(nearest), shown
            assert value(down) < right < value(up), shown
            assert value(up) - value(down) <= unit(up) + unit(down), shown
            assert inward == (down if right > 0 else up), shown
            assert results[NEAREST][number][1] & 0x3F == INEXACT, shown


def test_powers_of_two_have_exact_logarithms() -> None:
    operands = [
        (struct.pack("<QH", 1 << 63, BIAS + power), struct.pack("<QH", 1 << 63, BIAS)) for power in (-700, 3, 64)
    ]
    found = run("fyl2x", operands)
    assert [(value(data), status & 0x3F) for data, status in found] == [(-700, 0), (3, 0), (64, 0)]


def test_denormal_operands_and_results() -> None:
    smallest, half = struct.pack("<QH", 1, 0), struct.pack("<QH", 1 << 63, BIAS - 1)
    ((data, status),) = run("f2xm1", [(smallest, half)])
    assert (data, status & 0x3F) == (smallest, INEXACT | UNDERFLOW | DENORMAL), "log 2 of the smallest is rounded to it"
    for control, times in ((NEAREST, 2), (DOWN, 1), (UP, 2)):
        ((data, status),) = run("fpatan", [(half, smallest)], control)
        assert (value(data), status & 0x3F) == (times * value(smallest), INEXACT | UNDERFLOW | DENORMAL)


def test_the_logarithm_of_nothing_is_infinite_and_leaves_the_stack() -> None:
    zero, one = bytes(10), struct.pack("<QH", 1 << 63, BIAS)
    ((data, status),) = run("fyl2x", [(zero, one)])
    assert (data, status & 0x3F) == (struct.pack("<QH", 1 << 63, 0xFFFF), 0x04)
    assert status >> 11 & 7 == 0, "one was loaded twice, popped once by the instruction and once behind it"
