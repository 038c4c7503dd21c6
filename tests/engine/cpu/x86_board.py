"""A bare board for x86 CPU tests: 4 MiB of RAM at 0, a ROM at the reset vector, a device in memory and at ports.

The device's writes drive INTR; acknowledging gives VECTOR and lowers the line.  A write to port OFF ends the run.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import xxhash

from tests.engine.cpu.device import OFF, Device
from timevm.engine.cpu.base import Stop, StopKind
from timevm.engine.cpu.x86_64 import X86Cpu

RAM_SIZE = 4 << 20
CODE, DATA, STACK = 0x10_0000, 0x20_0000, 0x30_0000
#: the device, in memory and at ports
DEVICE = 0xE000_0000
ROM = 0xFFFF_F000
PORTS = 0x500
VECTOR = 0x40
FOREVER = 1 << 60

#: Enters 64-bit mode with everything mapped one to one (2 MiB pages, user accessible); GDT: 8 code, 16 data,
#: 0x1b code32 user, 0x23 data user, 0x2b code user, 0x30 TSS (rsp0 = STACK - 0x1000).  IDT at 0x8000, all gates absent.
LONG_MODE = """
.code32
    mov esp, 0x300000
    mov edi, 0x4000
    mov ecx, 0x1000
    xor eax, eax
    rep stosd
    mov dword ptr [0x4000], 0x5007
    mov dword ptr [0x5000], 0x6007
    mov dword ptr [0x5018], 0x7007
    mov edi, 0x6000
    mov eax, 0x87
1:  mov [edi], eax
    add eax, 0x200000
    add edi, 8
    cmp edi, 0x7000
    jne 1b
    mov dword ptr [0x7800], 0xe0000087
    mov eax, 0x4000
    mov cr3, eax
    mov eax, 0x620
    mov cr4, eax
    mov ecx, 0xc0000080
    mov eax, 0x901
    xor edx, edx
    wrmsr
    lgdt [gdt_pointer]
    lidt [idt_pointer]
    mov eax, 0x80010033
    mov cr0, eax
    ljmp 8, offset entered
.balign 8
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
    .quad 0x00cffb000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff
    .word 0x67, tss - 0x100000
    .byte 0x10, 0x89, 0, 0
    .quad 0
tss:
    .long 0
    .quad 0x2ff000
    .fill 90, 1, 0
    .word 0x68
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .quad gdt
idt_pointer:
    .word 0xfff
    .quad 0x8000
.code64
entered:
    mov ax, 16
    mov ss, eax
    mov ds, eax
    mov es, eax
    mov ax, 0x30
    ltr ax
"""


def gate(vector: int, handler: str, *, dpl: int = 0, kind: int = 0x8E) -> str:
    """Code that fills in an interrupt gate of the 64-bit IDT; uses rax."""
    at = 0x8000 + 16 * vector
    return f"""
    lea rax, [rip + {handler}]
    mov [{at}], ax
    mov word ptr [{at + 2}], 8
    mov word ptr [{at + 4}], {kind | dpl << 5} * 256
    shr rax, 16
    mov [{at + 6}], ax
    mov dword ptr [{at + 8}], 0
    mov dword ptr [{at + 12}], 0
"""


END = f"""
    mov dx, {PORTS + OFF}
    mov al, 0x31
    out dx, al
    nop
"""


class Board:
    def __init__(self, program: bytes, *, model: str = "qemu64", start: int = CODE, **settings: Any) -> None:
        self.memory = mmap.mmap(-1, RAM_SIZE)
        self._anchor = (ctypes.c_char * RAM_SIZE).from_buffer(self.memory)
        self.rom = mmap.mmap(-1, 0x1000)
        self._rom_anchor = (ctypes.c_char * 0x1000).from_buffer(self.rom)
        self.cpu = X86Cpu(model, time_shift=3, seed=7, acknowledge=self._acknowledge, **settings)
        self.cpu.map_ram(0, ctypes.addressof(self._anchor), RAM_SIZE)
        self.cpu.map_rom(ROM, ctypes.addressof(self._rom_anchor), 0x1000)
        self.device = Device(self.cpu, "intr", lambda value: self.cpu.ask_stop(StopKind.POWER_OFF))
        self.acknowledged: list[int] = []
        self.window = self.cpu.map_mmio(DEVICE, 0x1000, self.device)
        self.ports = self.cpu.map_ports(PORTS, 16, self.device)
        if start == CODE:
            self.write(CODE, program)
        else:
            self.rom[0x1000 - len(program) :] = program
        self.cpu.reset(start, [])

    def _acknowledge(self) -> int:
        self.acknowledged.append(self.cpu.icount)
        self.cpu.set_interrupt("intr", False)
        return VECTOR

    def write(self, address: int, data: bytes) -> None:
        self.memory[address : address + len(data)] = data

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.memory[address : address + size])

    def number(self, address: int, size: int = 8) -> int:
        return int.from_bytes(self.read(address, size), "little")

    def copy_to(self, other: Board) -> None:
        """As a checkpoint that is restored in another process."""
        other.memory[:] = self.memory[:]
        other.cpu.restore(self.cpu.state())
        other.device.reads, other.device.log = self.device.reads, self.device.log

    def run(self, limit: int = FOREVER) -> Stop:
        return self.cpu.run(limit)

    def run_stepwise(self, step: int) -> Stop:
        """To the end of the program, ``step`` instructions at a time."""
        while (stop := self.cpu.run(self.cpu.icount + step)).kind is StopKind.LIMIT:
            pass
        return stop

    def fingerprint(self) -> tuple[Any, ...]:
        state = self.cpu.state()
        state["context"] = xxhash.xxh64_hexdigest(state["context"])
        return (
            repr(state),
            xxhash.xxh64_hexdigest(self.memory),
            tuple(self.device.log),
            tuple(self.acknowledged),
        )
