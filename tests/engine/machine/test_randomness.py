"""One seed, many purposes; and the values are for ever, since recordings hold the seed only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timevm.engine.machine.randomness import derive, derive_number

SEED = bytes(range(32))


def test_values_are_those_of_earlier_versions() -> None:
    assert derive(SEED, "kaslr-seed", 8).hex() == "d921833b4fbaea45"
    assert derive_number(SEED, "RNDR") == 0x5DEB1A8613107A1B


@given(st.binary(min_size=32, max_size=32), st.text(max_size=40), st.integers(1, 64))
def test_sizes(seed: bytes, purpose: str, size: int) -> None:
    found = derive(seed, purpose, size)
    assert len(found) == size and found == derive(seed, purpose, size)
    assert derive_number(seed, purpose) == int.from_bytes(derive(seed, purpose, 8), "little")


def test_purposes_and_seeds_are_unrelated() -> None:
    found = [derive(seed, purpose, 32) for seed in (SEED, SEED[::-1]) for purpose in ("rng-seed", "kaslr-seed", "RNDR")]
    assert len(set(found)) == len(found)
    changed = [
        bin(one ^ other).count("1") for one, other in zip(derive(SEED, "a", 64), derive(SEED, "b", 64), strict=True)
    ]
    assert 200 < sum(changed) < 312, "about half of the bits"


def test_more_than_it_has() -> None:
    with pytest.raises(ValueError, match="digest_size"):
        derive(SEED, "x", 65)
