"""Arithmetic is what QEMU 7.2 makes of it, and floating point what its specification says where Unicorn's is older."""

from __future__ import annotations

import json

import pytest

from tests.engine.cpu import riscv64_assembler as a
from tests.engine.cpu.riscv64_arithmetic import DIGESTS, Bench, Program
from tests.engine.cpu.riscv64_board import RAM, RiscvBoard

EXPECTED = json.loads(DIGESTS.read_text())
SIGNALING, QUIET, ONE, BOX = 0x7FA0_0000, 0x7FC0_0000, 0x3F80_0000, 0xFFFF_FFFF << 32
SIGNALING_64, QUIET_64, ONE_64 = 0x7FF4 << 48, 0x7FF8 << 48, 0x3FF << 52
INVALID = 0x10


def test_random_programs_give_what_qemu_gives() -> None:
    """Some thousand have been compared by ``python -m tests.engine.cpu.riscv64_arithmetic``."""
    bench = Bench()
    for seed, digest in EXPECTED.items():
        program = Program(int(seed))
        assert program.digest(bench.run(program)) == digest, f"seed {seed}"


def floating(instruction: int, *operands: int) -> tuple[int, int]:
    """f3 and the flags, with operands in f1, f2 and f4."""
    board = RiscvBoard(a.code(instruction))
    board.cpu.write_register("mstatus", 1 << 13)
    for name, value in zip(("f1", "f2", "f4"), operands, strict=False):
        board.cpu.write_register(name, value)
    board.cpu.run(1)
    assert board.cpu.read_register("pc") == RAM + 4
    return board.cpu.read_register("f3"), board.cpu.read_register("fflags")


@pytest.mark.parametrize("larger", [0, 1], ids=["min", "max"])
def test_the_smaller_of_a_number_and_no_number_is_the_number(larger: int) -> None:
    for left, right, result, flags in (
        (SIGNALING, ONE, ONE, INVALID), (ONE, SIGNALING, ONE, INVALID), (QUIET, ONE, ONE, 0), (ONE, QUIET, ONE, 0),
        (SIGNALING, QUIET, QUIET, INVALID), (QUIET, QUIET, QUIET, 0),
    ):  # fmt: skip
        assert floating(a.floating(0x14, 3, 1, 2, larger), BOX | left, BOX | right) == (BOX | result, flags)
    for left, right, result, flags in (
        (SIGNALING_64, ONE_64, ONE_64, INVALID), (ONE_64, SIGNALING_64, ONE_64, INVALID), (QUIET_64, ONE_64, ONE_64, 0),
        (SIGNALING_64, QUIET_64, QUIET_64, INVALID),
    ):  # fmt: skip
        assert floating(a.floating(0x15, 3, 1, 2, larger), left, right) == (result, flags)


@pytest.mark.parametrize(
    "instruction",
    [*(a.floating(kind, 3, 1, 2, 0) for kind in (0x00, 0x04, 0x08, 0x0C, 0x14)), a.floating(0x2C, 3, 1, 0, 0),
     a.floating(0x20, 3, 1, 1, 0), *(a.floating(0x68, 3, 1, kind, 0) for kind in range(4)),
     *(4 << 27 | a.floating(0, 3, 1, 2, 0) & ~0x7F | kind for kind in (0x43, 0x47, 0x4B, 0x4F))],
    ids=hex,
)  # fmt: skip
def test_results_of_single_precision_fill_their_register(instruction: int) -> None:
    assert floating(instruction, BOX | ONE, BOX | ONE, BOX | ONE)[0] >> 32 == 0xFFFF_FFFF
