"""Code that is changed while it runs: by stores, with and without a fence, by devices."""

from __future__ import annotations

import pytest

from tests.engine.cpu import riscv64_assembler as a
from tests.engine.cpu.riscv64_board import (
    FOREVER,
    RAM,
    RiscvBoard,
    power_off,
)
from timevm.engine.cpu.base import StopKind


@pytest.mark.parametrize("step", [1, 3, FOREVER])
@pytest.mark.parametrize("fence", [a.FENCE_I, a.NOP], ids=["fence.i", "no fence"])
def test_code_that_was_changed_is_seen(step: int, fence: int) -> None:
    """A function is run, patched through a store, and run again (32 times, so that its block is hot)."""
    function = RAM + 0x800
    body = [a.jalr(1, 2), *a.load_constant(6, 1 << 20), a.add(3, 3, 6), a.store(3, 2, 0, 2), fence, a.addi(5, 5, -1)]
    program = a.code(
        *a.load_constant(2, function),
        *a.load_constant(3, a.addi(4, 4, 1)),
        a.addi(5, 0, 32),
        *body,
        a.bne(5, 0, -4 * len(body)),
        *power_off(),
    )
    board = RiscvBoard(program)
    board.write(function, a.code(a.addi(4, 4, 1), a.jalr(0, 1)))
    while (stop := board.cpu.run(board.cpu.icount + step)).kind is StopKind.LIMIT:
        pass
    assert stop.kind is StopKind.POWER_OFF
    assert board.x(4) == sum(range(1, 33))


@pytest.mark.parametrize("step", [1, 3, FOREVER])
def test_a_store_into_its_own_block(step: int) -> None:
    """The instruction behind the store is the new one."""
    target = 4 * (4 + 4 + 1 + 1)
    program = a.code(
        *a.load_constant(2, RAM + target),
        *a.load_constant(3, a.addi(4, 4, 100)),
        a.addi(6, 6, 1),
        a.store(3, 2, 0, 2),
        a.addi(4, 4, 1),
        a.addi(5, 5, 1),
        *power_off(),
    )
    board = RiscvBoard(program)
    while (stop := board.cpu.run(board.cpu.icount + step)).kind is StopKind.LIMIT:
        pass
    assert (board.x(4), board.x(5), board.x(6)) == (100, 1, 1)
    assert stop.icount == 12 + 5


def test_code_that_a_device_writes() -> None:
    board = RiscvBoard(a.code(a.addi(1, 1, 1), a.jal(0, -4)))
    board.cpu.run(1000)
    board.write(RAM, a.code(a.addi(2, 2, 1)))
    board.cpu.code_changed(RAM, 4)
    board.cpu.run(2000)
    assert (board.x(1), board.x(2)) == (500, 500)
