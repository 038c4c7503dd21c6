"""All of the machine's random numbers come from one seed, which the recording holds."""

from __future__ import annotations

import hashlib


def derive(seed: bytes, purpose: str, size: int) -> bytes:
    """``size`` bytes (at most 64) for one ``purpose``; different purposes have unrelated bytes (keyed BLAKE2b)."""
    return hashlib.blake2b(purpose.encode(), digest_size=size, key=seed[:64]).digest()


def derive_number(seed: bytes, purpose: str) -> int:
    """64 bits."""
    return int.from_bytes(derive(seed, purpose, 8), "little")
