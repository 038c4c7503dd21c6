"""Watchpoints on AArch64: which physical pages hold what is watched, so that only their accesses take the slow path."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from timevm.engine.cpu import native
from timevm.engine.cpu.base import Watchpoint
from timevm.engine.cpu.unicorn_cpu import PAGE, TOP
from timevm.engine.cpu.unicorn_stops import EVERYWHERE


def watched_ranges(
    watchpoints: Iterable[Watchpoint], cpu: native.Aarch64, translate_page: Callable[[int], int]
) -> list[tuple[int, int]]:
    """Physical addresses, both ends included.  ``cpu`` notes the pages, and so whether one of them moves later.

    ``translate_page`` gives the physical address of a virtual page; TOP: it is not mapped.
    """
    cpu.watched_pages = 0
    ranges = [_physical_range(watch) for watch in watchpoints if watch.physical]
    watched = [watch for watch in watchpoints if not watch.physical]
    spans = [
        (max(0, watch.address - native.WATCH_REACH) // PAGE, (watch.address + watch.length - 1) // PAGE + 1)
        for watch in watched
    ]
    if sum(end - first for first, end in spans) > native.MAX_WATCHED_PAGES:
        return [EVERYWHERE]
    # into these an instruction may reach from the page before, which nobody needs to be mapped
    needed = {
        number for watch, (_, end) in zip(watched, spans, strict=True) for number in range(watch.address // PAGE, end)
    }
    numbers = sorted({number for first, end in spans for number in range(first, end)})
    for place, number in enumerate(numbers):
        page = translate_page(number * PAGE & TOP)
        cpu.watched_page[place], cpu.watched_place[place] = number * PAGE & TOP, page
        if page != TOP:
            ranges.append((page, page + PAGE - 1))
        elif number in needed:
            # it may be mapped without anybody being told: what was not valid needs no maintenance (Arm ARM D5.10)
            ranges.append(EVERYWHERE)
    cpu.watched_pages = len(numbers)
    return [EVERYWHERE] if EVERYWHERE in ranges else sorted(set(ranges))


def _physical_range(watch: Watchpoint) -> tuple[int, int]:
    return max(0, watch.address - native.WATCH_REACH) & ~(PAGE - 1), watch.address + watch.length - 1 | PAGE - 1
