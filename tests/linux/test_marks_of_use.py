"""Linux takes "accessed" marks from page table entries without an invalidation: a replay may be restored anywhere.

As under memory pressure, but asked for: ``/proc/PID/clear_refs``; ``smaps`` tells which pages were in use since.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.linux.harness import assert_same, linux, record, replay
from tests.linux.test_pc_debian import linux_pc
from tests.linux.test_riscv_debian import linux_riscv
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.spec import MachineSpec

pytestmark = [pytest.mark.linux, pytest.mark.timeout(600)]

PROMPT = b" # "
ROUNDS = (
    b"for i in 1 2 3 4 5 6 7 8 9; do echo 1 > /proc/$$/clear_refs; x=$i$x; md5sum /proc/$$/smaps; done; "
    b"echo $((6 * 7))\r"
)
SHELL = ((PROMPT, ROUNDS), (b"\n42", b""), (PROMPT, b"exit\r"))
#: instructions from the shell's first look to the end
LOOKED_AT = 60_000_000


def limits(begin: int) -> Iterator[int]:
    rng = random.Random(begin)
    while True:
        begin += rng.randrange(1000, 100_000)
        yield begin


def put_back(machine: Machine) -> None:
    """What a restored checkpoint does to the processor."""
    machine.cpu.restore(machine.cpu.state())


@pytest.mark.parametrize("guest", [linux, linux_pc, linux_riscv], ids=["arm64", "pc", "riscv64"])
def test_marks_of_use_are_the_same_in_a_replay_that_is_restored(
    guest: Callable[[str, Path], MachineSpec], tmp_path: Path
) -> None:
    spec = replace(guest("shell,off", tmp_path / "marks.rr"), sleep=False)
    recorded = record(spec, SHELL)
    assert recorded.console.count(b"/smaps\r\n") == 9, recorded.console
    assert_same(recorded, replay(spec))
    assert_same(recorded, replay(spec, limits(recorded.icount - LOOKED_AT), put_back))
