"""Random programs of 64, 32 and 16 bits: at full speed, by single instructions, and in uneven slices, all alike.

10^5 of each mode have been run by ``python -m tests.engine.cpu.x86_random``; here are a few hundred.
"""

from __future__ import annotations

import pytest

from tests.engine.cpu import x86_random
from tests.engine.cpu.x86_random import CHUNK, CHUNKS, LENGTH, MODES, Bench, differences, faults_are_clean


@pytest.mark.parametrize("mode", MODES)
def test_random_programs_do_not_depend_on_where_they_are_stopped(mode: str) -> None:
    bench = Bench(mode)
    for seed in range(60):
        whole = bench.whole(seed)
        assert whole[2]["icount"] == bench.start["icount"] + LENGTH
        for sizes in ((1,), (1, 2, 3, 7, 20)):
            assert differences(whole, bench.sliced(seed, sizes)) == "", f"seed {seed}, slices of {sizes}"


@pytest.mark.parametrize("mode", MODES)
def test_single_steps_without_stops_are_the_same_too(mode: str) -> None:
    """What ``tests.linux.stepped`` compares whole boots with."""
    bench = Bench(mode)
    for seed in range(100, 160):
        whole = bench.whole(seed)
        for instructions in (1, 3):
            bench.board.cpu.limit_blocks(instructions)
            assert differences(whole, bench.whole(seed)) == "", f"seed {seed}, blocks of {instructions}"
        bench.board.cpu.limit_blocks(0)


@pytest.mark.parametrize("mode", MODES)
def test_faults_leave_flags_and_registers_as_they_were(mode: str) -> None:
    bench = Bench(mode)
    for seed in range(25):
        assert faults_are_clean(bench, seed) == "", f"seed {seed}"


def test_two_runs_are_alike_and_two_programs_are_not() -> None:
    bench = Bench("64")
    first = bench.whole(1)
    assert differences(first, bench.whole(2)) != ""
    assert differences(first, bench.whole(1)) == ""


@pytest.mark.parametrize("mode", MODES)
def test_a_locked_bit_instruction_on_a_register_is_undefined(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unicorn's translator ended the process over ``lock bts ecx, eax`` and ``lock bt``."""
    chunks = [b"\xf0\x0f\xab\xc1", b"\x90\xf0\x66\x0f\xba\xe1\x05", b"\x01\xc8\xf0\x0f\xa3\xd8"]
    text = b"".join(chunk.ljust(CHUNK, b"\x90") for chunk in chunks).ljust(CHUNK * CHUNKS, b"\x90")
    monkeypatch.setattr(x86_random, "program", lambda seed, mode: text)
    bench = Bench(mode)
    whole = bench.whole(1)
    assert [int.from_bytes(whole[3][64 * fault : 64 * fault + 8], "little") for fault in range(3)] == [6, 6, 6]
    assert differences(whole, bench.sliced(1, (1,))) == ""
