"""What a core file says of a processor: its ELF machine, and notes with its registers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

#: ELF ``e_machine`` (System V ABI)
EM_386, EM_X86_64, EM_AARCH64, EM_RISCV = 3, 62, 183, 243
#: types of notes (Linux: ``include/uapi/linux/elf.h``)
NT_PRSTATUS, NT_PRFPREG = 1, 2
#: ``struct elf_prstatus`` (Linux: ``include/linux/elfcore.h``) by the bits of a long: where its pid and registers are
_STATUS = {64: (32, 112), 32: (24, 72)}
#: debuggers name threads by it, and 0 is none
_FIRST_CPU = 1

#: value of the register of this name
ReadRegister = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Note:
    """An ELF note: who defines its type, the type, what it says."""

    name: str
    type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class CoreImage:
    """``machine`` is ELF's number of the architecture, ``bits`` are those of its addresses."""

    machine: int
    bits: int
    notes: tuple[Note, ...]


def process_status(bits: int, registers: bytes, rest: bytes) -> Note:
    """``registers`` as the architecture's ``elf_gregset_t``; ``rest`` is ``pr_fpvalid`` and what fills up behind it."""
    pid_at, registers_at = _STATUS[bits]
    head = bytearray(registers_at)
    struct.pack_into("<I", head, pid_at, _FIRST_CPU)
    return Note("CORE", NT_PRSTATUS, bytes(head) + registers + rest)


def packed(format_: str, read: ReadRegister, names: Iterable[str | None]) -> bytes:
    """Registers one after the other, each in the ``struct`` format, cut to its size; None is 0."""
    size = 8 * struct.calcsize(format_)
    values = (0 if name is None else read(name) & (1 << size) - 1 for name in names)
    return b"".join(struct.pack(format_, value) for value in values)
