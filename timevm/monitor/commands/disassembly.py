"""Instructions as text, in QEMU's columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from timevm.engine.control.port import MachinePort

if TYPE_CHECKING:
    import capstone

#: EFER.LMA; of the code segment: 64 bits, 32 bits
_LONG_ACTIVE, _LONG, _BIG = 1 << 10, 1 << 21, 1 << 22


@dataclass(frozen=True, slots=True)
class _Encoding:
    """Instructions have ``shortest`` to ``longest`` bytes; shown as one number or byte by byte, in ``columns``.

    ``address_digits``: at least so many; QEMU writes addresses in full where it does not use capstone.
    """

    shortest: int
    longest: int
    columns: int
    is_number: bool = True
    address_digits: int = 8

    def length_of_none(self, code: bytes) -> int:
        """Of what is no instruction: where the next one may begin."""
        if self.longest == 2 * self.shortest and code[0] & 3 == 3:  # RISC-V: the length is in the first bits
            return min(self.longest, len(code))
        return self.shortest


_ENCODINGS = {"aarch64": _Encoding(4, 4, 8), "riscv64": _Encoding(2, 4, 16, address_digits=16)}
_BYTES = _Encoding(1, 16, 23, is_number=False)


@dataclass(frozen=True, slots=True)
class Disassembly:
    """Of what one processor executes in one mode."""

    _decoder: capstone.Cs
    _encoding: _Encoding

    @property
    def shortest(self) -> int:
        """Bytes of an instruction."""
        return self._encoding.shortest

    @property
    def longest(self) -> int:
        return self._encoding.longest

    def first(self, window: bytes, address: int) -> tuple[bytes, str]:
        """The instruction at the beginning of ``window`` (at least ``shortest`` bytes), and its text.  10 us."""
        found = next(self._decoder.disasm_lite(window, address, 1), None)
        if found is None:
            code = window[: self._encoding.length_of_none(window)]
            return code, f"{'.byte':<8} " + ", ".join(f"0x{byte:02x}" for byte in code)
        _, size, mnemonic, operands = found
        return window[:size], f"{mnemonic:<8} {operands}"

    def place(self, address: int) -> str:
        return f"0x{address:0{self._encoding.address_digits}x}"

    def line(self, address: int, code: bytes, text: str) -> str:
        """As the monitor's ``x/i`` shows it."""
        shown = f"{int.from_bytes(code, 'little'):0{2 * len(code)}x}" if self._encoding.is_number else code.hex(" ")
        return f"{self.place(address)}:  {shown.ljust(self._encoding.columns)}  {text}"


def disassembly(architecture: str, machine: MachinePort) -> Disassembly | None:
    """For what the CPU executes now, None if capstone does not know it.  Runs on the CPU thread."""
    bits = 64
    if architecture in ("x86_64", "i386"):
        flags = machine.read_register("cs_flags")
        if not (machine.read_register("efer") & _LONG_ACTIVE and flags & _LONG):
            bits = 32 if flags & _BIG else 16
    return _disassembly(architecture, bits)


@cache
def _disassembly(architecture: str, bits: int) -> Disassembly | None:
    import capstone  # 15 ms that a monitor need not wait for

    if architecture == "aarch64":
        decoder = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    elif architecture == "riscv64":
        decoder = capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV64 | capstone.CS_MODE_RISCVC)
    elif architecture in ("x86_64", "i386"):
        modes = {64: capstone.CS_MODE_64, 32: capstone.CS_MODE_32, 16: capstone.CS_MODE_16}
        decoder = capstone.Cs(capstone.CS_ARCH_X86, modes[bits])
        decoder.syntax = capstone.CS_OPT_SYNTAX_ATT  # as QEMU's
    else:
        return None
    return Disassembly(decoder, _ENCODINGS.get(architecture, _BYTES))
