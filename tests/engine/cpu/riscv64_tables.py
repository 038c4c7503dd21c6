"""Page tables in a RISC-V test board's RAM (Privileged specification 4.3 to 4.5)."""

from __future__ import annotations

from tests.engine.cpu.riscv64_board import DEVICE, RAM, RAM_SIZE, TABLES, RiscvBoard

VALID, READ, WRITE, EXECUTE, ACCESSED, DIRTY = 1, 2, 4, 8, 0x40, 0x80
#: number of levels of each mode of satp (Privileged specification 4.4)
LEVELS = {8: 3, 9: 4, 10: 5}
#: where tests map what they want; the high half
VIRTUAL = 0xFFFF_FFFF_C000_0000


class Tables:
    """Page tables in the board's RAM.  RAM and the device are mapped one to one."""

    def __init__(self, board: RiscvBoard, mode: int = 8) -> None:
        self.board = board
        self.levels = LEVELS[mode]
        self.next = TABLES + 0x1000
        self.satp = mode << 60 | TABLES >> 12
        for address in range(RAM, RAM + RAM_SIZE, 0x1000):
            self.map(address, address, READ | WRITE | EXECUTE | ACCESSED | DIRTY)
        self.map(DEVICE, DEVICE, READ | WRITE | ACCESSED | DIRTY)

    def entry(self, virtual: int) -> int:
        """Address of the last level's entry; tables on the way are made."""
        table = TABLES
        for level in range(self.levels - 1, 0, -1):
            at = table + 8 * (virtual >> 12 + 9 * level & 511)
            if not self.board.number(at):
                self.board.write(at, (self.next >> 12 << 10 | VALID).to_bytes(8, "little"))
                self.next += 0x1000
            table = self.board.number(at) >> 10 << 12
        return table + 8 * (virtual >> 12 & 511)

    def map(self, virtual: int, physical: int, rights: int) -> None:
        entry = physical >> 12 << 10 | rights | VALID if rights else 0
        self.board.write(self.entry(virtual), entry.to_bytes(8, "little"))

    def rights(self, virtual: int) -> int:
        return self.board.number(self.entry(virtual)) & 0xFF
