"""A bare board for RISC-V CPU tests: 2 MiB of RAM, one device whose writes drive the machine's external interrupt."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import xxhash

from tests.engine.cpu import riscv64_assembler as a
from tests.engine.cpu.device import OFF, Device
from timevm.engine.cpu.base import Stop, StopKind
from timevm.engine.cpu.riscv64 import Riscv64Cpu

RAM = 0x8000_0000
RAM_SIZE = 2 << 20
DEVICE = 0x1000_0000
HOLE = 0x2000_0000
HANDLER = RAM + 0x2000
DATA = RAM + 0x10000
TABLES = RAM + 0x40000
FOREVER = 1 << 60


class RiscvBoard:
    def __init__(
        self, program: bytes, *, handler: bytes = b"", time_shift: int = 3, line: str = "meip", **settings: Any
    ) -> None:
        self.memory = mmap.mmap(-1, RAM_SIZE)
        self._anchor = (ctypes.c_char * RAM_SIZE).from_buffer(self.memory)
        self.cpu = Riscv64Cpu("rv64", time_shift=time_shift, seed=7, **settings)
        self.cpu.map_ram(RAM, ctypes.addressof(self._anchor), RAM_SIZE)
        self.device = Device(self.cpu, line, lambda value: self.cpu.ask_stop(StopKind.POWER_OFF, value))
        self.window = self.cpu.map_mmio(DEVICE, 0x1000, self.device)
        self.write(RAM, program)
        self.write(HANDLER, handler)
        self.cpu.reset(RAM, [])

    def write(self, address: int, data: bytes) -> None:
        self.memory[address - RAM : address - RAM + len(data)] = data

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.memory[address - RAM : address - RAM + size])

    def number(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")

    def x(self, number: int) -> int:
        return self.cpu.read_register(f"x{number}")

    def copy_to(self, other: RiscvBoard) -> None:
        """As a checkpoint that is restored in another process."""
        other.memory[:] = self.memory[:]
        other.cpu.restore(self.cpu.state())
        other.device.reads, other.device.log = self.device.reads, self.device.log

    def fingerprint(self) -> tuple[Any, ...]:
        state = self.cpu.state()
        state["context"] = xxhash.xxh64_hexdigest(state["context"])
        return (repr(state), xxhash.xxh64_hexdigest(self.memory), tuple(self.device.log))


def power_off() -> list[int]:
    """Uses x31."""
    return [*a.load_constant(31, DEVICE), a.store(0, 31, OFF, 2), a.jal(0, 0)]


def run_sliced(board: RiscvBoard, stops: list[int]) -> Stop:
    """Run to power-off with a stop at each of the icounts given."""
    for at in sorted(stops):
        stop = board.cpu.run(at)
        if stop.kind is not StopKind.LIMIT:
            return stop
        assert stop.icount == at
    return board.cpu.run(FOREVER)
