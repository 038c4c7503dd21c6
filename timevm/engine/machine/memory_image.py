"""The machine's memory as somebody reads it who takes all of it away: where it is, and which pages hold something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from timevm.engine.cpu.base import Cpu
from timevm.engine.cpu.core_image import CoreImage
from timevm.engine.machine.dirty_pages import DirtyPages, PageNumbers
from timevm.engine.machine.ram import PAGE, Ram


@dataclass(frozen=True, slots=True)
class MemoryBlock:
    """Memory at guest physical ``base``, itself and no copy.  Pages (of 4 KiB) that are not in ``pages`` are zeroes."""

    base: int
    view: memoryview
    pages: PageNumbers

    @property
    def end(self) -> int:
        return self.base + len(self.view)


@dataclass(frozen=True, slots=True)
class MemoryImage:
    """``blocks`` ascend.  True as long as the machine stands."""

    blocks: tuple[MemoryBlock, ...]
    processor: CoreImage


def take_image(cpu: Cpu, ram: Ram, roms: Sequence[Ram], dirty: DirtyPages) -> MemoryImage:
    """RAM, and ROMs above its beginning: tools take the lowest address of an image to be where RAM begins."""
    blocks = [MemoryBlock(ram.base, ram.view, dirty.held())]
    blocks += [
        MemoryBlock(rom.base, rom.view, np.arange(rom.size // PAGE, dtype=np.int64))
        for rom in roms
        if rom.base > ram.base
    ]
    return MemoryImage(tuple(sorted(blocks, key=lambda block: block.base)), cpu.core_image())
