"""Guests that fill their registers, switch paging on and stay: what a core file of them must have is known."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.engine.cpu import assembler as arm
from tests.engine.cpu import riscv64_assembler as riscv
from tests.engine.machine.elf import EM_RISCV, Segment, elf64
from tests.engine.machine.pc_guests import KERNEL, assemble
from timevm.engine.machine.spec import MIB, NO_FIRMWARE, MachineSpec, Properties

RAM_BYTES = 16 * MIB
#: after which all of them are there, many times over
ENOUGH = 10_000
TEXT = b"a moment before the crash\0"


@dataclass(frozen=True, slots=True)
class CoreGuest:
    """``image`` is an ELF file or a multiboot kernel.  ``high``: where TEXT is mapped, ``physical``: where it is.

    ``general``: registers that the guest has set, by timevm's names.  ``options``: of the command line, both here and
    with QEMU (``qemu`` False: not to be compared with it).
    """

    architecture: str
    image: Callable[[], bytes]
    cpu: str
    high: int
    physical: int
    general: dict[str, int]
    options: tuple[str, ...]
    machine_properties: Properties = ()
    qemu: bool = True

    @property
    def ram_end(self) -> int:
        return RAM_BYTES + (0x4000_0000 if self.architecture == "aarch64" else 0)

    def kernel(self, folder: Path) -> Path:
        path = folder / f"{self.architecture}.image"
        path.write_bytes(self.image())
        return path

    def spec(self, folder: Path) -> MachineSpec:
        is_pc = self.architecture in ("x86_64", "i386")
        return MachineSpec(
            architecture=self.architecture,
            machine="pc" if is_pc else "virt",
            cpu=self.cpu,
            kernel=self.kernel(folder),
            ram_bytes=RAM_BYTES,
            shift=3,
            sleep=False,
            machine_properties=self.machine_properties,
        )


def pattern(number: int) -> int:
    """64 bits that no other register has."""
    return (0x0101_0101_0101_0101 * (number + 1)) ^ 0x8000_7000_6000_5000


# ---- AArch64

_ARM_BASE = 0x4020_0000
_ARM_TABLES, _ARM_TEXT = _ARM_BASE + 0x1_0000, _ARM_BASE + 0x2_0000
_ARM_HIGH = 0xFFFF_FF80_0000_0000
_TTBR1_EL1, _CPACR_EL1 = (3, 0, 2, 0, 1), (3, 0, 1, 0, 2)
_FMOV_D, _FMOV_HIGH, _FMOV_FPCR = 0x9E67_0000, 0x9EAF_0000, 0xD51B_4400


def _constant(register: int, value: int) -> list[int]:
    later = (arm.movk(register, value >> shift & 0xFFFF, shift) for shift in (16, 32, 48))
    return [arm.movz(register, value & 0xFFFF), *later]


def _arm() -> bytes:
    blocks = 0x725
    low = struct.pack("<2Q", blocks, 0x4000_0000 | blocks).ljust(0x1000, b"\0")
    high = struct.pack("<1Q", 0x4000_0000 | blocks).ljust(0x1000, b"\0")
    program: list[int] = []
    for register, value in (
        (_CPACR_EL1, 3 << 20),
        (arm.MAIR_EL1, 0xFF),
        (arm.TCR_EL1, 25 | 25 << 16 | 2 << 30 | 2 << 32),
        (arm.TTBR0_EL1, _ARM_TABLES),
        (_TTBR1_EL1, _ARM_TABLES + 0x1000),
        (arm.SCTLR_EL1, 0x30D0_0801),
    ):
        program += [*_constant(0, value), arm.msr(0, *register), arm.ISB]
    for number in range(32):
        program += _constant(1, pattern(100 + number))
        program += [_FMOV_D | 1 << 5 | number, _FMOV_HIGH | 1 << 5 | number]
    program += [*_constant(1, 3 << 22), _FMOV_FPCR | 1]
    program += [*_constant(1, _ARM_BASE + 0x8000), arm.add(31, 1, 0)]
    program += [arm.movz(0, 1), arm.subs(0, 0, 1)]
    for number in range(31):
        program += _constant(number, pattern(number))
    program += [arm.b(0)]
    code = arm.code(*program)
    assert len(code) < 0x4000
    return elf64(
        [Segment(_ARM_BASE, code), Segment(_ARM_TABLES, low + high), Segment(_ARM_TEXT, TEXT)], entry=_ARM_BASE
    )


# ---- x86

_TABLES = 0x22_0000
_PC_TEXT = 0x24_0000
_PC_HALF = """
times 0x20000 - ($ - $$) db 0
"""
_LONG = """
align 8
segments: dq 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00AFFB000000FFFF
      dq 0x0000892A00000067, 0, 0x0000822B00000037, 0
segments_pointer: dw 63
    dd segments
start:
    mov eax, 0x620
    mov cr4, eax
    mov eax, 0x220000
    mov cr3, eax
    mov ecx, 0xC0000080
    mov eax, 0x100
    xor edx, edx
    wrmsr
    mov eax, 0x80000011
    mov cr0, eax
    lgdt [segments_pointer]
    jmp 8:wide
bits 64
wide:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov ax, 32
    ltr ax
    mov ax, 48
    lldt ax
    lidt [idt_pointer]
%macro msr 2
    mov ecx, %1
    mov rax, %2
    mov rdx, rax
    shr rdx, 32
    wrmsr
%endmacro
    msr 0xC0000100, 0x00007F1234567000
    msr 0xC0000101, 0xFFFF888011223000
    msr 0xC0000102, 0x0000555544443000
    mov rax, 0xFFFF800000001234
    mov cr2, rax
{registers}
    cli
stay: jmp stay
"""
_PROTECTED = """
start:
    lgdt [gdt_pointer]
    lidt [idt_pointer]
    mov eax, 0x10
    mov cr4, eax
    mov eax, 0x220000
    mov cr3, eax
    mov eax, 0x80000011
    mov cr0, eax
    jmp 0x10:behind
behind:
    mov ax, 0x18
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
{registers}
    cli
stay: jmp stay
"""
_NAMES_64 = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
_NAMES_32 = ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp")
_LONG_REGISTERS = {name: pattern(number) for number, name in enumerate(_NAMES_64)}
_SHORT_REGISTERS = {name: pattern(number) & 0xFFFF_FFFF for number, name in enumerate(_NAMES_32)}


def _pc(source: str, registers: dict[str, int], tables: list[bytes]) -> bytes:
    loads = "\n".join(f"    mov {name}, {value:#x}" for name, value in registers.items())
    text = KERNEL + "on_timer:\non_serial:\n" + source.format(registers=loads) + _PC_HALF
    with tempfile.TemporaryDirectory() as folder:
        code = assemble(text, Path(folder) / "guest").read_bytes()
    assert len(code) == 0x2_0000
    return (code + b"".join(tables)).ljust(_PC_TEXT - 0x20_0000, b"\0") + TEXT


def _table(entries: dict[int, int], size: int) -> bytes:
    data = bytearray(4096)
    for number, entry in entries.items():
        data[number * size : (number + 1) * size] = entry.to_bytes(size, "little")
    return bytes(data)


def _long() -> bytes:
    top = _table({0: _TABLES + 0x1003, 511: _TABLES + 0x2003}, 8)
    low = _table({0: _TABLES + 0x3003}, 8)
    high = _table({510: _TABLES + 0x3003}, 8)
    large = _table({number: number << 21 | 0x83 for number in range(8)}, 8)
    return _pc(_LONG, _LONG_REGISTERS, [top, low, high, large])


def _protected() -> bytes:
    top = {number: number << 22 | 0x83 for number in range(4)} | {768: 0x83}
    return _pc(_PROTECTED, _SHORT_REGISTERS, [_table(top, 4)])


# ---- RISC-V

_RISCV_BASE = 0x8000_0000
_RISCV_TABLES, _RISCV_TEXT = _RISCV_BASE + 0x1000, _RISCV_BASE + 0x2000
_RISCV_HIGH = 0xFFFF_FFFF_8000_0000


def _riscv() -> bytes:
    """From M-mode, which translates nothing."""
    leaf = _RISCV_BASE >> 2 | 0xCF
    table = _table({2: leaf, 510: leaf}, 8)
    # auipc sp, 3: the address of the data
    program = [0x3 << 12 | 2 << 7 | 0x17, riscv.load(5, 2), riscv.csrw("satp", 5)]
    program += [riscv.load(number, 2, 8 * number) for number in range(1, 32) if number != 2]
    code = riscv.code(*program, riscv.load(2, 2, 16), riscv.jal(0, 0))
    values = (8 << 60 | _RISCV_TABLES >> 12, *(pattern(number) for number in range(1, 32)))
    data = struct.pack("<32Q", *values)
    segments = [
        Segment(_RISCV_BASE, code),
        Segment(_RISCV_TABLES, table),
        Segment(_RISCV_TEXT, TEXT.ljust(0x1000, b"\0") + data),
    ]
    return elf64(segments, _RISCV_BASE, EM_RISCV)


GUESTS = (
    CoreGuest(
        "aarch64",
        _arm,
        "cortex-a57",
        _ARM_HIGH + _ARM_TEXT - 0x4000_0000,
        _ARM_TEXT,
        {f"x{number}": pattern(number) for number in range(31)} | {"sp": _ARM_BASE + 0x8000},
        ("-M", "virt", "-cpu", "cortex-a57"),
    ),
    CoreGuest(
        "x86_64",
        _long,
        "qemu64",
        0xFFFF_FFFF_8000_0000 + _PC_TEXT,
        _PC_TEXT,
        _LONG_REGISTERS,
        ("-M", "pc", "-cpu", "qemu64"),
    ),
    CoreGuest(
        "i386",
        _protected,
        "qemu32",
        0xC000_0000 + _PC_TEXT,
        _PC_TEXT,
        {f"r{name[1:]}": value for name, value in _SHORT_REGISTERS.items()},
        ("-M", "pc", "-cpu", "qemu32"),
    ),
    CoreGuest(
        "riscv64",
        _riscv,
        "rv64",
        _RISCV_HIGH + _RISCV_TEXT - _RISCV_BASE,
        _RISCV_TEXT,
        {f"x{number}": pattern(number) for number in range(1, 32)},
        ("-M", "virt", "-bios", "none"),
        (NO_FIRMWARE,),
        qemu=False,
    ),
)
