"""The size of a page as people say it."""

from __future__ import annotations


def page_size(size: int) -> str:
    """``  4K``, ``  2M``, ``512G``: of a power of two from 4 KiB on, in four columns."""
    unit = max(unit for unit in range(1, 6) if size >> 10 * unit)
    return f"{size >> 10 * unit}{' KMGTP'[unit]}".rjust(4)
