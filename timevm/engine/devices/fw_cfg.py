"""QEMU's firmware configuration device (QEMU, docs/specs/fw_cfg.rst): what the board tells its firmware.

Items are bytes by number or by file name; nothing can be written.  They are read byte by byte at the data port, or by
DMA, which takes no time.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

from timevm.engine.devices.base import DmaError, GuestMemory

SIGNATURE, IDENTIFIER, FILE_DIRECTORY, FIRST_FILE = 0x0000, 0x0001, 0x0019, 0x0020
#: of IDENTIFIER: the data port exists, DMA exists
HAS_PORTS, HAS_DMA = 1, 2
DMA_SIGNATURE: Final = int.from_bytes(b"QEMU CFG", "big")

DMA_ERROR, DMA_READ, DMA_SKIP, DMA_SELECT, DMA_WRITE = 0x01, 0x02, 0x04, 0x08, 0x10
#: control, length, address; big-endian like everything of the DMA interface
DMA_COMMAND: Final = struct.Struct(">IIQ")
NAME_BYTES: Final = 56
#: of one DMA transfer; more than any item has
CHUNK: Final = 1 << 20


class FwCfg:
    """Stateful; its windows are ``control`` (selector and data, 2 ports) and ``dma`` (8 ports)."""

    def __init__(self, name: str, memory: GuestMemory, items: Mapping[int, bytes], files: Mapping[str, bytes]) -> None:
        self.name = name
        self._memory = memory
        self._items = {SIGNATURE: b"QEMU", IDENTIFIER: struct.pack("<I", HAS_PORTS | HAS_DMA), **items}
        directory = [struct.pack(">I", len(files))]
        for number, (file, data) in enumerate(sorted(files.items())):
            self._items[FIRST_FILE + number] = data
            directory.append(struct.pack(f">IHH{NAME_BYTES}s", len(data), FIRST_FILE + number, 0, file.encode()))
        self._items[FILE_DIRECTORY] = b"".join(directory)
        self.control = _Control(self)
        self.dma = _Dma(self)
        self.reset()

    def reset(self) -> None:
        self._selected = SIGNATURE
        self._offset = 0
        self._dma_high = 0

    def traits(self) -> dict[str, Any]:
        return {f"{number:#06x}": data for number, data in self._items.items()}

    def state(self) -> dict[str, Any]:
        return {"selected": self._selected, "offset": self._offset, "dma_high": self._dma_high}

    def restore(self, state: dict[str, Any]) -> None:
        self._selected = state["selected"]
        self._offset = state["offset"]
        self._dma_high = state["dma_high"]

    # what the windows do

    def select(self, number: int) -> None:
        self._selected = number
        self._offset = 0

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes of the selected item; zeroes behind its end."""
        data = self._items.get(self._selected, b"")[self._offset : self._offset + size]
        self._offset = min(self._offset + size, 0xFFFFFFFF)
        return data.ljust(size, b"\0")

    def set_dma_high(self, value: int) -> None:
        self._dma_high = value

    def start_dma(self, low: int) -> None:
        address = self._dma_high << 32 | low
        self._dma_high = 0
        try:
            control, length, target = DMA_COMMAND.unpack(self._memory.read(address, DMA_COMMAND.size))
            if control & DMA_SELECT:
                self.select(control >> 16)
            error = self._transfer(control, length, target)
            self._memory.write(address, struct.pack(">I", DMA_ERROR if error else 0))
        except DmaError:
            # There is nowhere to say so.
            return

    def _transfer(self, control: int, length: int, target: int) -> bool:
        """True if it failed."""
        if control & DMA_READ:
            try:
                # Zeroes behind the item's end are written too, but not from more memory than it takes.
                for done in range(0, length, CHUNK):
                    part = min(CHUNK, length - done)
                    self._memory.write(target + done, self.take(part))
            except DmaError:
                return True
        elif control & DMA_WRITE:
            return True
        elif control & DMA_SKIP:
            self._offset = min(self._offset + length, 0xFFFFFFFF)
        return False


class _Control:
    """Selector (16 bits, write-only, at offset 0) and data (8 bits, read-only, at offset 1)."""

    window = 2

    def __init__(self, owner: FwCfg) -> None:
        self.name = f"{owner.name}-control"
        self._owner = owner

    def read(self, offset: int, size: int) -> int:
        if offset == 1 and size == 1:
            return self._owner.take(1)[0]
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == 0 and size == 2:
            self._owner.select(value)


class _Dma:
    """The address of a command: big-endian, its low word starts it."""

    window = 8

    def __init__(self, owner: FwCfg) -> None:
        self.name = f"{owner.name}-dma"
        self._owner = owner

    def read(self, offset: int, size: int) -> int:
        shown = DMA_SIGNATURE.to_bytes(8, "big")[offset : offset + size]
        return int.from_bytes(shown.ljust(size, b"\0"), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        swapped = int.from_bytes(value.to_bytes(size, "little"), "big")
        if size == 4 and offset == 0:
            self._owner.set_dma_high(swapped)
        elif size == 4 and offset == 4:
            self._owner.start_dma(swapped)
        elif size == 8 and offset == 0:
            self._owner.set_dma_high(swapped >> 32)
            self._owner.start_dma(swapped & 0xFFFFFFFF)
