"""Registers and memory as gdb's packets have them.  Each function is one look on the CPU thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from timevm.engine.control.port import MachinePort
from timevm.gdb.target_description import GdbRegister

TOP = (1 << 64) - 1


def read_registers(registers: Sequence[GdbRegister]) -> Callable[[MachinePort], bytes]:
    """All of them in a row.  About 3 us each."""

    def look(machine: MachinePort) -> bytes:
        return b"".join(_value(machine, register) for register in registers)

    return look


def _value(machine: MachinePort, register: GdbRegister) -> bytes:
    value = 0 if register.source is None else machine.read_register(register.source) & (1 << 8 * register.size) - 1
    return value.to_bytes(register.size, "little")


def write_registers(registers: Sequence[GdbRegister], data: bytes) -> Callable[[MachinePort], None]:
    """As many as ``data`` holds, in a row; those that stay as they are are not touched."""

    def change(machine: MachinePort) -> None:
        rest = data
        for register in registers:
            value, rest = rest[: register.size], rest[register.size :]
            if register.source is None or len(value) < register.size:
                continue
            if value != _value(machine, register):
                machine.write_register(register.source, int.from_bytes(value, "little"))

    return change


def read_memory(address: int, length: int, *, physical: bool) -> Callable[[MachinePort], bytes]:
    """What is there: shorter than ``length`` where it ends; the address space does not go round."""

    def look(machine: MachinePort) -> bytes:
        return machine.read_memory(address, min(length, TOP + 1 - address), physical=physical)

    return look


def write_memory(address: int, data: bytes, *, physical: bool) -> Callable[[MachinePort], int]:
    """Bytes written."""

    def change(machine: MachinePort) -> int:
        return machine.write_memory(address, data[: TOP + 1 - address], physical=physical)

    return change
