"""What is taken away from the suite's texts before they are compared, and what is not.  (The lines are ours.)"""

from __future__ import annotations

import pytest

from tests.x86_suite.differences import FAILING, Peer, comparable
from tests.x86_suite.programs import RECIPES

SHIFT = "shldw      A=00000001 B=00000002 C=000000{count} R={result} CCIN=0000 CC=0000"
EXCHANGE = "cmpxchgl   EAX=0000000000000001 A=0000000000000002 C={high}{low}"
GATE = "trapno=0000000d err={error} EIP=08050000"
ADDITION = "  1 PHADDD mm5,mm{source}\nMM5 = {result}"
NUMBER = "fpuc=037f fpus={status} fptag=0000"

HIDDEN: list[tuple[Peer, str, str]] = [
    ("host", SHIFT.format(count="11", result="00000001"), SHIFT.format(count="11", result="00000002")),
    ("host", SHIFT.format(count="3f", result="00000001"), SHIFT.format(count="3f", result="00000002")),
    ("host", NUMBER.format(status="1e00"), NUMBER.format(status="1c00")),
    ("host", GATE.format(error="00000012"), GATE.format(error="0000000a")),
    ("qemu", EXCHANGE.format(high="00000000", low="12345678"), EXCHANGE.format(high="9abcdef0", low="12345678")),
]
SHOWN: list[tuple[Peer, str, str]] = [
    ("host", SHIFT.format(count="10", result="00000001"), SHIFT.format(count="10", result="00000002")),
    ("host", SHIFT.format(count="20", result="00000001"), SHIFT.format(count="20", result="00000002")),
    ("qemu", SHIFT.format(count="11", result="00000001"), SHIFT.format(count="11", result="00000002")),
    ("host", NUMBER.format(status="1e00"), NUMBER.format(status="1a00")),
    ("host", GATE.format(error="00000010"), GATE.format(error="00000008")),
    ("qemu", GATE.format(error="00000012"), GATE.format(error="0000000a")),
    ("host", EXCHANGE.format(high="00000000", low="12345678"), EXCHANGE.format(high="00000000", low="12345679")),
    ("host", ADDITION.format(source=5, result="01"), ADDITION.format(source=5, result="02")),
    ("host", "addl A=1 B=2 R=3", "addl A=1 B=2 R=4"),
]


@pytest.mark.parametrize(("peer", "left", "right"), HIDDEN)
def test_a_known_difference_is_hidden(peer: Peer, left: str, right: str) -> None:
    assert comparable(left, peer) == comparable(right, peer)
    assert len(comparable(left, peer)) == len(left.splitlines())


@pytest.mark.parametrize(("peer", "left", "right"), SHOWN)
def test_what_is_near_a_known_difference_is_compared(peer: Peer, left: str, right: str) -> None:
    assert comparable(left, peer) != comparable(right, peer)


def test_the_programs_that_fail_are_programs_of_the_suite() -> None:
    assert set(FAILING) <= set(RECIPES)
