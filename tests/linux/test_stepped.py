"""A few windows of the comparison that ``tests/linux/stepped.py`` makes of whole boots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.linux.harness import record
from tests.linux.stepped import GUESTS, WINDOW, Comparison, Look
from timevm.engine.cpu.base import Cpu
from timevm.engine.cpu.riscv64 import Riscv64Cpu
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.snapshot.checkpoints import Checkpoint

pytestmark = [pytest.mark.linux, pytest.mark.timeout(900)]

#: spread over the boot
WINDOWS = 16


@pytest.fixture(scope="module", params=["disk", "i386", "riscv"])
def boot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MachineSpec, int]]:
    folder: Path = tmp_path_factory.mktemp("stepped")
    spec = replace(GUESTS[request.param](folder), sleep=False)
    yield spec, record(spec).icount


def test_blocks_are_as_good_as_single_steps(boot: tuple[MachineSpec, int]) -> None:
    spec, length = boot
    comparison = Comparison(spec)
    for number in range(WINDOWS):
        begin = length * number // WINDOWS
        assert comparison.window(begin, begin + WINDOW) == "", f"the window from {begin}"
    assert comparison.looks > WINDOWS * WINDOW, "these were not single steps"
    comparison.machine.close()


def unread_register(cpu: Cpu) -> str:
    return "mscratch" if isinstance(cpu, Riscv64Cpu) else "dr3"


class Spoilt(Comparison):
    """Its single steps change a register that nobody reads, before the instruction at ``guilty``."""

    guilty = 0

    def stepped(self, origin: Checkpoint, limit: int) -> Look:
        if limit <= self.guilty:
            return super().stepped(origin, limit)
        before = super().stepped(origin, self.guilty)
        self.machine.write_register(unread_register(self.machine.cpu), 0x1234)
        after = self._look(limit)
        return replace(after, console=before.console + after.console)


def test_a_difference_is_narrowed_down(boot: tuple[MachineSpec, int]) -> None:
    spec, length = boot
    comparison = Spoilt(spec)
    begin = length // 2
    comparison.guilty = begin + 31_007
    found = comparison.window(begin, begin + WINDOW)
    name = unread_register(comparison.machine.cpu)
    assert f"at {comparison.guilty} " in found and found.endswith(f"{name} 0x0 0x1234"), found
    comparison.machine.close()
