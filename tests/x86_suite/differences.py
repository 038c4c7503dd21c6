"""Where results are known to differ, and why: the whole list.  All else must be the same, line by line.

``TEXTS``: parts of what ``test-i386`` and ``test-mmx`` print that are taken away on both sides before comparing.
``FAILING``: programs in which the emulated CPU fails tests that the host passes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Peer = Literal["host", "qemu"]


@dataclass(frozen=True, slots=True)
class Difference:
    """``hide`` takes away from a text what may differ from these peers; the number of lines stays."""

    hide: Callable[[str], str]
    peers: tuple[Peer, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Failing:
    """At most so many lines of failures, in either width (counted with Unicorn 2.1.4)."""

    lines: int
    reason: str


def replaced(pattern: str, replacement: str) -> Callable[[str], str]:
    """``^`` and ``$`` are the ends of lines."""
    compiled = re.compile(pattern, re.MULTILINE)
    return lambda text: compiled.sub(replacement, text)


def without_c1(text: str) -> str:
    """fpus without bit 9."""
    return re.sub(r"\bfpus=([0-9a-f]{4})", lambda found: f"fpus={int(found[1], 16) & ~0x200:04x}", text)


TEXTS = (
    Difference(
        replaced(r"^(sh[lr]dw .* C=[0-9a-f]*[13579bdf][1-9a-f]) .*", r"\1"),
        ("host",),
        "SHLD and SHRD of 16 bits by more than 16 (modulo 32): result and flags are undefined (SDM 2, SHLD, SHRD)",
    ),
    Difference(
        without_c1,
        ("host",),
        "C1 after loads and stores that did not round up: QEMU and Unicorn leave it as it was, processors clear it",
    ),
    Difference(
        replaced(r"^(trapno=0000000d err=)[0-9a-f]*[2a] ", r"\1of-a-gate "),
        ("host",),
        "the error code of INT n that the gate forbids, in long mode: 16 n + 2 from QEMU and Unicorn, 8 n + 2 is right",
    ),
    Difference(
        replaced(r"^(cmpxchgl .*\bC=)[0-9a-f]{8}([0-9a-f]{8})$", r"\1\2"),
        ("host", "qemu"),
        "CMPXCHG of 32 bits that does not exchange: Unicorn clears the upper half of a register destination",
    ),
)

BEFORE_51 = (
    "Unicorn's x87 is QEMU's before 5.1, which does not raise all exceptions, and treats encodings that are no numbers "
    "as if they were"
)
FAILING = {
    "test-i386-fbstp": Failing(16, BEFORE_51),
    "test-i386-fisttp": Failing(8, BEFORE_51),
    "test-i386-fldcst": Failing(9, BEFORE_51),
    "test-i386-fp-exceptions": Failing(99, BEFORE_51),
    "test-i386-fscale": Failing(10, BEFORE_51),
    "test-i386-fxam": Failing(8, BEFORE_51),
    "test-i386-fxtract": Failing(10, BEFORE_51),
    "test-i386-pseudo-denormal": Failing(3, BEFORE_51),
    "test-i386-snan-convert": Failing(4, BEFORE_51),
    "test-i386-sse-exceptions": Failing(
        4, "ROUNDSS and ROUNDSD told to say nothing of what is inexact, RCPSS and RSQRTSS of a signaling NaN"
    ),
}


def comparable(text: str, peer: Peer) -> list[str]:
    """The lines of a program's text without what is known to differ from ``peer``."""
    for difference in TEXTS:
        if peer in difference.peers:
            text = difference.hide(text)
    return text.splitlines()
