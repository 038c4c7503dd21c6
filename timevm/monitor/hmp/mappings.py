"""``info mem`` and ``info tlb``: what the page tables map, in QEMU's columns where QEMU has some.

The look at the tables takes some ms between two instructions; the text is made beside the event loop, 1 us a line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import numpy as np

from timevm.engine.control.looks import Mappings
from timevm.monitor.hmp.table import Call

_MASK = (1 << 64) - 1
_ADDRESSES = "vaddr            paddr            size            "
_RULES = "---------------- ---------------- ----------------"


async def info_mem(call: Call) -> str:
    return await _show(call, range_lines)


async def info_tlb(call: Call) -> str:
    return await _show(call, page_lines)


async def _show(call: Call, lines: Callable[[Mappings], Iterator[str]]) -> str:
    found = await call.context.vm.inspect(lambda machine: machine.mappings())
    if found.absent:
        return f"{found.absent}\n"

    def text() -> str:
        return "".join(lines(found)) + _what_is_left_out(found)

    return await asyncio.to_thread(text)


def _what_is_left_out(found: Mappings) -> str:
    if found.more_from is None:
        return ""
    return f"there are more from {found.more_from:016x} on: these are the first {len(found.virtual)} pages\n"


def page_lines(found: Mappings) -> Iterator[str]:
    """Of ``info tlb``."""
    texts = found.flags.texts
    columns = found.virtual.tolist(), found.physical.tolist(), found.flags.index.tolist()
    for virtual, physical, flags in zip(*columns, strict=True):
        yield f"{virtual:016x}: {physical:016x} {texts[flags]}\n"


def range_lines(found: Mappings) -> Iterator[str]:
    """Of ``info mem``."""
    starts = found.range_starts()
    last = np.append(starts[1:], len(found.virtual)) - 1 if len(starts) else starts
    virtual, physical = found.virtual[starts].tolist(), found.physical[starts].tolist()
    end = (found.virtual[last] + found.size[last]).tolist()
    rights = [found.rights.texts[index] for index in found.rights.index[starts].tolist()]
    if found.heading:
        width = max(map(len, (found.heading, *rights)))
        yield f"{_ADDRESSES} {found.heading}\n{_RULES} {'-' * width}\n"
    for first, place, behind, right in zip(virtual, physical, end, rights, strict=True):
        size = behind - first & _MASK
        yield (
            f"{first:016x} {place:016x} {size:016x} {right}\n"
            if found.heading
            else f"{first:016x}-{behind:016x} {size:016x} {right}\n"
        )
