"""Random programs: at full speed, by single instructions, and in uneven slices, all alike.

Some ten thousand have been run by ``python -m tests.engine.cpu.riscv64_random``; here are a hundred.
"""

from __future__ import annotations

from tests.engine.cpu.riscv64_random import LENGTH, Bench, check, differences


def test_random_programs_do_not_depend_on_where_they_are_stopped() -> None:
    bench = Bench()
    for seed in range(100):
        assert check(bench, seed) == ""


def test_two_runs_are_alike_and_two_programs_are_not() -> None:
    bench = Bench()
    first = bench.whole(1)
    assert first[0]["icount"] == LENGTH
    assert differences(first, bench.whole(2)) != ""
    assert differences(first, bench.whole(1)) == ""
