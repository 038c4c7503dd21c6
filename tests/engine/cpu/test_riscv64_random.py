"""Random programs: at full speed, by single instructions, and in uneven slices, all alike.

Some thousand have been run by ``python -m tests.engine.cpu.riscv64_random``; here are some dozen.
"""

from __future__ import annotations

import pytest

from tests.engine.cpu.riscv64_random import LENGTH, MACHINE, SUPERVISOR, Bench, Mode, check, differences


@pytest.mark.parametrize("mode", [MACHINE, SUPERVISOR], ids=["machine", "supervisor"])
def test_random_programs_do_not_depend_on_where_they_are_stopped(mode: Mode) -> None:
    bench = Bench(mode)
    for seed in range(70):
        assert check(bench, seed) == ""


@pytest.mark.parametrize("mode", [MACHINE, SUPERVISOR], ids=["machine", "supervisor"])
def test_two_runs_are_alike_and_two_programs_are_not(mode: Mode) -> None:
    bench = Bench(mode)
    first = bench.whole(1)
    assert first[0]["icount"] == LENGTH
    assert differences(first, bench.whole(2)) != ""
    assert differences(first, bench.whole(1)) == ""
