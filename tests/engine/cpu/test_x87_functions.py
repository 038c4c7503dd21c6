"""The x87's transcendental functions are our own: right to the last place, and the same on every host.

Unicorn computes FSIN and its relatives in double precision with the host's libm.  Of 300 000 arguments each, glibc 2.36
gives another sine for 210, cosine for 195, arc tangent for 84 and power of two for 209 when the processor has no FMA.
"""

from __future__ import annotations

import ctypes
import math
import os
import random
import struct
import subprocess
import sys
from ctypes import c_double
from pathlib import Path
from typing import Any

import mpmath
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.cpu.x86_assembler import assemble
from tests.engine.cpu.x86_board import CODE, DATA, END, LONG_MODE, Board
from timevm.engine.cpu.base import StopKind
from timevm.engine.cpu.native import x86_64 as hooks

#: the x87 takes no greater angles
FARTHEST = 2.0**63
#: units in the last place
WITHIN = 0.5001

angles = st.one_of(
    st.floats(-FARTHEST, FARTHEST),
    st.floats(-10, 10),
    st.integers(-(2**52), 2**52).map(lambda quarters: quarters * (math.pi / 2)),
)
numbers = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=5e-324, allow_infinity=False)


def function(name: str, arguments: int) -> Any:
    found = getattr(hooks.load(), f"timevm_x87_{name}")
    found.restype, found.argtypes = c_double, [c_double] * arguments
    return found


def is_right(value: float, exact: Any) -> bool:
    """A denormal result is rounded twice."""
    within = WITHIN if abs(value) >= sys.float_info.min else 1
    return bool(abs(mpmath.mpf(value) - exact) <= within * math.ulp(value))


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
@given(angle=angles)
def test_of_an_angle(name: str, angle: float) -> None:
    with mpmath.workprec(300):
        assert is_right(function(name, 1)(angle), getattr(mpmath, name)(mpmath.mpf(angle)))


@given(angle=angles)
def test_sine_and_cosine_at_once_are_the_two(angle: float) -> None:
    both = hooks.load().timevm_x87_sincos
    both.restype, both.argtypes = None, [c_double, ctypes.c_void_p, ctypes.c_void_p]
    sine, cosine = c_double(), c_double()
    both(angle, ctypes.byref(sine), ctypes.byref(cosine))
    assert (sine.value, cosine.value) == (function("sin", 1)(angle), function("cos", 1)(angle))


@given(y=numbers, x=numbers)
def test_arc_tangent(y: float, x: float) -> None:
    with mpmath.workprec(1400):
        got = function("atan2", 2)(y, x)
        if y == 0:  # mpmath knows no negative zero
            assert struct.pack("<d", got) == struct.pack("<d", math.atan2(y, x))
        else:
            assert is_right(got, mpmath.atan2(mpmath.mpf(y), mpmath.mpf(x)))


@given(x=st.one_of(positive, st.floats(0.5, 2)))
def test_logarithm(x: float) -> None:
    with mpmath.workprec(300):
        assert is_right(function("log", 1)(x), mpmath.log(mpmath.mpf(x)))


@given(x=st.one_of(st.floats(-1, 1), st.floats(-1074, 1023.9999)))
def test_powers_of_two(x: float) -> None:
    with mpmath.workprec(300):
        assert is_right(function("pow", 2)(2.0, x), mpmath.mpf(2) ** mpmath.mpf(x))


SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 5e-324, -5e-324, sys.float_info.max, -2000.0)


@pytest.mark.parametrize("y", SPECIAL)
@pytest.mark.parametrize("x", SPECIAL)
def test_special_values(y: float, x: float) -> None:
    """As ISO C, annex F, has them; so has Python, but for errors."""
    same = [(function("atan2", 2)(y, x), math.atan2(y, x))]
    if x == 0 or math.isnan(x):
        same += [(function("sin", 1)(x), math.sin(x)), (function("tan", 1)(x), math.tan(x))]
        same += [(function("cos", 1)(x), math.cos(x))]
    power = math.inf if x > 1024 else 0.0 if x <= -2000 else 2.0**x
    same += [(function("pow", 2)(2.0, x), power)]
    logarithm = -math.inf if x == 0 else math.nan if x < 0 else math.log(x)
    same += [(function("log", 1)(x), logarithm)]
    for got, expected in same:
        assert math.isnan(got) if math.isnan(expected) else struct.pack("<d", got) == struct.pack("<d", expected)


def results() -> bytes:
    generator = random.Random(6)
    found = b""
    for _ in range(5000):
        angle = math.ldexp(generator.uniform(-1, 1), generator.randrange(-30, 63))
        y, x = (math.ldexp(generator.uniform(-1, 1), generator.randrange(-30, 30)) for _ in range(2))
        found += struct.pack(
            "<6d",
            *(function(name, 1)(angle) for name in ("sin", "cos", "tan")),
            function("log", 1)(abs(x) or 1.0),
            function("atan2", 2)(y, x),
            function("pow", 2)(2.0, generator.uniform(-1, 1)),
        )
    return found


def test_the_same_on_every_host() -> None:
    """The number was found on one; another compiler, processor or C library must find it too."""
    assert xxhash.xxh3_64_hexdigest(results()) == "fb9271ab7615934c"


COUNT = 500
OUTPUT = DATA + 0x1_0000
INSTRUCTIONS = ("fsin", "fcos", "fsincos", "fptan", "fpatan", "fyl2x", "fyl2xp1", "f2xm1", "fprem")


def of_a_guest() -> str:
    """Digest of what these instructions leave on the stack, of the same operands always."""
    generator = random.Random(7)
    one = "\n".join(
        f"fninit\n fld qword ptr [rsi + 8]\n fld qword ptr [rsi]\n {name}\n"
        "fstp tbyte ptr [rdi]\n fstp tbyte ptr [rdi + 10]\n add rdi, 20"
        for name in INSTRUCTIONS
    )
    loop = f"mov esi, {DATA}\n mov edi, {OUTPUT}\n mov ebx, {COUNT}\n1: {one}\n add esi, 16\n dec ebx\n jnz 1b\n"
    board = Board(assemble(LONG_MODE + loop + END, CODE))
    board.write(DATA, struct.pack(f"<{2 * COUNT}d", *(generator.uniform(-1, 3) for _ in range(2 * COUNT))))
    assert board.run().kind is StopKind.POWER_OFF
    return xxhash.xxh3_64_hexdigest(board.read(OUTPUT, 20 * COUNT * len(INSTRUCTIONS)))


def test_a_guest_does_not_see_the_processor_of_the_host() -> None:
    """The C library chooses its functions by the processor, and can be told to leave a feature out."""
    code = "from tests.engine.cpu.test_x87_functions import of_a_guest; print(of_a_guest())"
    without = "glibc.cpu.hwcaps=-FMA,-FMA_Usable,-AVX2,-AVX2_Usable,-FMA4"
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | tunables,
            cwd=Path(__file__).parents[3],
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        ).stdout
        for tunables in ({}, {"GLIBC_TUNABLES": without})
    ]
    assert found[0] == found[1] == of_a_guest() + "\n"
