"""A bare board for CPU tests: 2 MiB of RAM, one device whose writes drive the IRQ input."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from typing import Any

import xxhash

from tests.engine.cpu.device import Device
from timevm.engine.cpu.aarch64 import Aarch64Cpu

RAM = 0x4000_0000
RAM_SIZE = 2 << 20
DEVICE = 0x0900_0000
VECTORS = RAM + 0x2000
DATA = RAM + 0x10000
STACK = RAM + 0x20000


class Board:
    def __init__(self, program: bytes, *, vectors: bytes = b"", time_shift: int = 3, **settings: Any) -> None:
        self.memory = mmap.mmap(-1, RAM_SIZE)
        self._anchor = (ctypes.c_char * RAM_SIZE).from_buffer(self.memory)
        self.timer_log: list[tuple[str, bool, int]] = []
        self.on_timer: Callable[[str, bool], None] = lambda name, level: self.cpu.set_interrupt("irq", level)
        self.cpu = Aarch64Cpu("cortex-a57", time_shift=time_shift, seed=7, timer_line=self._timer, **settings)
        self.cpu.map_ram(RAM, ctypes.addressof(self._anchor), RAM_SIZE)
        self.device = Device(self.cpu, "irq")
        self.window = self.cpu.map_mmio(DEVICE, 0x1000, self.device)
        self.write(RAM, program)
        self.write(VECTORS, vectors)
        self.cpu.reset(RAM, [])

    def _timer(self, name: str, level: bool) -> None:
        self.timer_log.append((name, level, self.cpu.icount))
        self.on_timer(name, level)

    def write(self, address: int, data: bytes) -> None:
        self.memory[address - RAM : address - RAM + len(data)] = data

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.memory[address - RAM : address - RAM + size])

    def copy_to(self, other: Board) -> None:
        """As a checkpoint that is restored in another process."""
        other.memory[:] = self.memory[:]
        other.cpu.restore(self.cpu.state())
        other.device.reads, other.device.log = self.device.reads, self.device.log

    def fingerprint(self) -> tuple[Any, ...]:
        state = self.cpu.state()
        state["context"] = xxhash.xxh64_hexdigest(state["context"])
        return (repr(state), xxhash.xxh64_hexdigest(self.memory), tuple(self.device.log), tuple(self.timer_log))
