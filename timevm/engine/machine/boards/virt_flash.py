"""The ``virt`` board's two flash chips as firmware finds them: its own code in the first, the second erased.

They are read-only here: QEMU's take commands by writes (CFI), and the device tree has no node of them, so firmware like
U-Boot keeps its settings in memory only.  There are none without firmware, as nothing else looks for them.
"""

from __future__ import annotations

from timevm.engine.cpu.aarch64 import Aarch64Cpu
from timevm.engine.machine.images import File
from timevm.engine.machine.linux_arm64_boot import FLASH_BASE
from timevm.engine.machine.outcome import MemoryRegion
from timevm.engine.machine.ram import Ram
from timevm.engine.machine.spec import MIB
from timevm.errors import UserError

#: of each chip
CHIP = 64 * MIB
PAGE = 4096
ERASED = b"\xff"


class Flash:
    """Raises UserError for firmware that does not fit."""

    def __init__(self, firmware: File | None, cpu: Aarch64Cpu) -> None:
        self._contents: list[bytes] = []
        self.roms: tuple[Ram, ...] = ()
        if firmware is not None:
            if not 0 < len(firmware.data) <= CHIP:
                raise UserError(f"-bios: the firmware has {len(firmware.data)} bytes: there is room for {CHIP}")
            padding = ERASED * (-len(firmware.data) % PAGE)
            self._contents = [firmware.data + padding, ERASED * CHIP]
            self.roms = tuple(
                Ram(FLASH_BASE + number * CHIP, len(content)) for number, content in enumerate(self._contents)
            )
        for rom in self.roms:
            cpu.map_rom(rom.base, rom.host_address, rom.size)
        self.regions = [
            MemoryRegion(f"virt.flash{number}", rom.base, rom.size, "rom") for number, rom in enumerate(self.roms)
        ]

    def fill(self) -> None:
        """Before the first instruction."""
        for rom, content in zip(self.roms, self._contents, strict=True):
            rom.write(rom.base, content)
