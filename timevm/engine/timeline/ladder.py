"""Where to leave checkpoints on the way to a place, so that every way back from it is short.  Pure arithmetic."""

from __future__ import annotations

#: instructions before the place of arrival; the next way back starts at the nearest that is far enough
RUNGS = (1_000_000_000, 30_000_000, 1_000_000, 30_000, 1_000)


def rungs(origin: int, target: int) -> list[int]:
    """Icounts between ``origin`` and ``target``, ascending.

    A rung that ``origin`` nearly serves as (it is less than half a rung further away) is left out.
    """
    return [target - rung for rung in RUNGS if target - rung - origin >= rung // 2]
