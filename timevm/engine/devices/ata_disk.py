"""An ATA hard disk (ATA/ATAPI-7) on a BlockPort, with QEMU's ide-hd as the model.

Data to write are taken from the guest when they are complete; data that were read reach the guest when the disk has
completed the request, between two instructions.  A request that the drive was reset away from is completed by nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from timevm.engine.devices.ata_identify import (
    HEADS,
    LBA28_SECTORS,
    MOST_MULTIPLE,
    SECTOR,
    TRACK,
    DiskNames,
    DiskSettings,
    identify,
)
from timevm.engine.devices.block_port import BlockPort
from timevm.engine.devices.ide_drive import (
    ABORTED,
    DEVICE_LBA,
    NOT_FOUND,
    UNCORRECTABLE,
    Channel,
    IdeDrive,
    Phase,
)

#: sectors that one request of a PIO command has at most
PIO_SECTORS: Final = 256

# transfer modes of SET FEATURES 03h: kind in bits 7 to 3
SET_MODE, WRITE_CACHE_ON, WRITE_CACHE_OFF = 0x03, 0x02, 0x82
#: features that may be switched and change nothing here: power management, look ahead, defaults, acoustics
NOTHING_TO_DO: Final = (0x05, 0x85, 0x42, 0xC2, 0x55, 0xAA, 0x66, 0xCC, 0x67, 0x69, 0x96, 0x9A)
CHECK_POWER_ACTIVE: Final = 0xFF

#: power management, recalibrate and the like: they end at once
NO_OPERATION: Final = (*range(0x10, 0x20), 0x70, 0xE0, 0xE1, 0xE2, 0xE3, 0xE6, 0x94, 0x95, 0x96, 0x97, 0x99)
READS: Final = {0x20, 0x21, 0x24, 0xC4, 0x29}
WRITES: Final = {0x30, 0x31, 0x34, 0xC5, 0x39}
VERIFIES: Final = {0x40, 0x41, 0x42}
DMA_READS: Final = {0xC8, 0xC9, 0x25}
DMA_WRITES: Final = {0xCA, 0xCB, 0x35}
WITH_48_BITS: Final = {0x24, 0x25, 0x27, 0x29, 0x34, 0x35, 0x39, 0x42, 0xEA}
MULTIPLE: Final = {0xC4, 0xC5, 0x29, 0x39}

_REGISTERS: Final = (
    "sector", "left", "block", "multiple", "heads", "track", "write_cache", "multiword_mode", "ultra_mode", "flushing",
)  # fmt: skip


class AtaDisk(IdeDrive):
    """``port.completed`` is set by the drive."""

    def __init__(self, name: str, channel: Channel, port: BlockPort, names: DiskNames | None = None) -> None:
        self._port = port
        self._names = names or DiskNames()
        port.completed = self._completed
        super().__init__(name, channel)
        self.reset()

    def signature(self) -> None:
        self.count = self.low = 1
        self.mid = self.high = 0

    def clear(self) -> None:
        super().clear()
        self._sector = 0  # of the disk, the next one
        self._left = 0  # sectors of the command that are still to come
        self._block = 1  # sectors of a DRQ block
        self._fetched = b""  # what was read and not shown yet
        self._flushing = False  # the request under way is the flush behind a write

    def reset(self) -> None:
        self.clear()
        self._multiple = MOST_MULTIPLE
        self._heads, self._track = HEADS, TRACK
        self._write_cache = True
        self._multiword_mode: int | None = None
        self._ultra_mode: int | None = 5

    def state(self) -> dict[str, Any]:
        own = {name: getattr(self, f"_{name}") for name in _REGISTERS}
        return {**super().state(), **own, "fetched": self._fetched}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        for name in _REGISTERS:
            setattr(self, f"_{name}", state[name])
        self._fetched = state["fetched"]

    # ---- commands

    def execute(self, command: int) -> None:
        self.command = command
        self.error = 0
        if command in READS | WRITES | VERIFIES | DMA_READS | DMA_WRITES:
            self._start_transfer(command)
        elif command in NO_OPERATION:
            self.done()
        else:
            simple: dict[int, Callable[[], None]] = {
                0x90: self._diagnose,
                0x91: self._set_geometry,
                0xC6: self._set_multiple,
                0xE5: self._check_power,
                0x98: self._check_power,
                0xE7: self._flush,
                0xEA: self._flush,
                0xEC: self._identify,
                0xEF: self._set_features,
                0xF8: self._native_size,
                0x27: self._native_size,
            }
            run = simple.get(command)
            if run is None:
                self.fail(ABORTED)
            else:
                run()

    def _diagnose(self) -> None:
        self.signature()
        self.done()
        self.error = 1

    def _set_geometry(self) -> None:
        self._heads, self._track = (self.device & 0xF) + 1, self.count
        self.done()

    def _set_multiple(self) -> None:
        if self.count > MOST_MULTIPLE or self.count & self.count - 1:
            self.fail(ABORTED)
            return
        self._multiple = self.count
        self.done()

    def _check_power(self) -> None:
        self.count = CHECK_POWER_ACTIVE
        self.done()

    def _flush(self) -> None:
        self.ask(self._port.flush())

    def _identify(self) -> None:
        settings = DiskSettings(self._multiple, self._write_cache, self._multiword_mode, self._ultra_mode)
        self._left = 0
        self._fetched = b""
        self.offer(identify(self._sectors(), self._names, settings))

    def _set_features(self) -> None:
        if self.features in (WRITE_CACHE_ON, WRITE_CACHE_OFF):
            self._write_cache = self.features == WRITE_CACHE_ON
            if not self._write_cache:
                self._flush()
                return
        elif self.features == SET_MODE:
            kind, mode = self.count >> 3, self.count & 7
            if kind in (0, 1):
                self._multiword_mode = self._ultra_mode = None
            elif kind == 4 and mode <= 2:
                self._multiword_mode, self._ultra_mode = mode, None
            elif kind == 8 and mode <= 5:
                self._multiword_mode, self._ultra_mode = None, mode
            else:
                self.fail(ABORTED)
                return
        elif self.features not in NOTHING_TO_DO:
            self.fail(ABORTED)
            return
        self.done()

    def _native_size(self) -> None:
        self._show_sector(self._sectors() - 1)
        self.done()

    # ---- sectors

    def _sectors(self) -> int:
        return self._port.size // SECTOR

    def _address(self, wide: bool) -> int | None:
        """The sector that the registers name; None for a cylinder, head and sector that do not exist."""
        if wide:
            high = self.old_high << 40 | self.old_mid << 32 | self.old_low << 24
            return high | self.high << 16 | self.mid << 8 | self.low
        if self.device & DEVICE_LBA:
            return (self.device & 0xF) << 24 | self.high << 16 | self.mid << 8 | self.low
        head, sector = self.device & 0xF, self.low
        if not self._track or not 1 <= sector <= self._track or head >= self._heads:
            return None
        return ((self.high << 8 | self.mid) * self._heads + head) * self._track + sector - 1

    def _show_sector(self, sector: int) -> None:
        """A sector goes into the registers, in the form that the command has."""
        if self.command in WITH_48_BITS:
            self.old_high, self.old_mid, self.old_low = sector >> 40 & 0xFF, sector >> 32 & 0xFF, sector >> 24 & 0xFF
        elif self.device & DEVICE_LBA:
            sector = min(sector, LBA28_SECTORS)
            self.device = self.device & ~0xF | sector >> 24 & 0xF
        elif self._track:
            cylinder, rest = divmod(sector, self._heads * self._track)
            self.device = self.device & ~0xF | rest // self._track
            self.high, self.mid, self.low = cylinder >> 8 & 0xFF, cylinder & 0xFF, rest % self._track + 1
            return
        self.high, self.mid, self.low = sector >> 16 & 0xFF, sector >> 8 & 0xFF, sector & 0xFF

    def _start_transfer(self, command: int) -> None:
        wide = command in WITH_48_BITS
        count = (self.old_count << 8 | self.count or 0x1_0000) if wide else self.count or 0x100
        sector = self._address(wide)
        if command in MULTIPLE and not self._multiple:
            self.fail(ABORTED)
            return
        if command in WRITES | DMA_WRITES and self._port.read_only:
            self.fail(ABORTED)
            return
        if sector is None or sector + count > self._sectors():
            self.fail(NOT_FOUND)
            return
        self._sector, self._left = sector, count
        self._block = self._multiple if command in MULTIPLE else 1
        self._fetched = b""
        self._flushing = False
        if command in DMA_READS:
            self.wait_for_bus_master(Phase.DMA_TO_HOST)
        elif command in DMA_WRITES:
            self.wait_for_bus_master(Phase.DMA_FROM_HOST)
        elif command in WRITES:
            self.want(min(self._block, self._left) * SECTOR, interrupt=False)
        elif command in READS:
            self._fetch()
        else:
            self._show_sector(sector + count - 1)
            self.done()

    # ---- through the data port

    def _fetch(self) -> None:
        self.ask(self._port.read(self._sector * SECTOR, min(self._left, PIO_SECTORS) * SECTOR))

    def _show_block(self) -> None:
        size = min(self._block * SECTOR, len(self._fetched))
        block, self._fetched = self._fetched[:size], self._fetched[size:]
        self._advance(size // SECTOR)
        self.offer(block)

    def _advance(self, sectors: int) -> None:
        self._sector += sectors
        self._left -= sectors
        self._show_sector(self._sector - 1)

    def block_taken(self) -> None:
        if self._fetched:
            self._show_block()
        elif self._left:
            self._fetch()
        else:
            self.done(interrupt=False)

    def block_given(self) -> None:
        self.ask(self._port.write(self._sector * SECTOR, bytes(self.buffer)))

    # ---- through the bus master

    def bus_master_started(self) -> None:
        where, size = self._sector * SECTOR, self._left * SECTOR
        if self.phase == Phase.DMA_TO_HOST:
            self.ask(self._port.read(where, size))
        elif self.phase == Phase.DMA_FROM_HOST:
            data = self.channel.bus_master.from_memory(size)
            if data is None:
                self.fail(ABORTED)
            else:
                self.ask(self._port.write(where, data))

    # ---- the disk

    def _completed(self, request: int, data: bytes | None) -> None:
        if request != self.request or self.phase != Phase.ASKED:
            return
        self.request = None
        if data is None:
            if self.command in DMA_READS | DMA_WRITES:
                self.channel.bus_master.fail()
            self.fail(UNCORRECTABLE if self.command in READS | DMA_READS else ABORTED)
        elif self.command in READS:
            self._fetched = data
            self._show_block()
        elif self.command in DMA_READS:
            fits = self.channel.bus_master.to_memory(data)
            self._advance(self._left)
            if fits:
                self.done()
            else:
                self.fail(ABORTED)
        elif self.command in WRITES | DMA_WRITES:
            self._written()
        else:
            self.done()

    def _written(self) -> None:
        by_port = self.command in WRITES
        if not self._flushing:
            self._advance(len(self.buffer) // SECTOR if by_port else self._left)
            if not self._write_cache and not self._left:
                self._flushing = True
                self.ask(self._port.flush())
                return
        if self._left:
            self.want(min(self._block, self._left) * SECTOR, interrupt=True)
            return
        if not by_port:
            self.channel.bus_master.finish_write()
        self.done()
