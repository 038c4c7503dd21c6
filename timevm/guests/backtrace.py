"""Who called whom, for a guest compiled for AArch64: without a debugger, from frame records and the source's lines.

Compilers keep frame records in a chain that begins at x29: the caller's x29, then the address to return to (AAPCS64,
"The Frame Pointer").  A function that has not made its record yet, has dropped it or needs none, has its return address
in x30.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from timevm.guests.source_places import Function, SourcePlace, SourcePlaces

#: frames at most, whatever a damaged stack says
DEEPEST = 64
#: where a program's own calls begin, as debuggers see it
_OUTERMOST = "main"
_RETURN = 0xD65F03C0


class Looked(Protocol):
    """What is needed of a machine that stands between two instructions."""

    def read_register(self, name: str) -> int: ...

    def read_memory(self, address: int, size: int, *, physical: bool = False) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Call:
    """``address``: where it stands, or will go on when what it called returns; ``is_inlined`` into the next one."""

    address: int
    place: SourcePlace
    is_inlined: bool = False


def backtrace(machine: Looked, places: SourcePlaces) -> list[Call]:
    """Innermost first, to ``main`` or to where the program says nothing about its code any more."""
    calls: list[Call] = []
    for depth, address in enumerate(_addresses(machine, places)):
        # the call itself is before the address to return to
        found = places.at(address if depth == 0 else address - 4)
        calls += [Call(address, place, place is not found[-1]) for place in found]
        if not found or found[-1].function == _OUTERMOST:
            break
    return calls


def _addresses(machine: Looked, places: SourcePlaces) -> Iterator[int]:
    """Of the instruction that is next, and to return to."""
    pc, frame = machine.read_register("pc"), machine.read_register("x29")
    yield pc
    function = places.function_at(pc)
    if function is None:
        return
    if not _has_record(machine, function, pc):
        yield machine.read_register("x30")
    for _ in range(DEEPEST):
        record = machine.read_memory(frame, 16)
        if len(record) < 16 or frame % 8:
            return
        outer, address = struct.unpack("<QQ", record)
        yield address
        if outer <= frame:  # the stack grows down
            return
        frame = outer


def _has_record(machine: Looked, function: Function, pc: int) -> bool:
    """Whether ``function``, at ``pc``, has made its frame record: from its instructions up to there."""
    code = machine.read_memory(function.start, pc - function.start)
    made = before_epilogue = False
    for (word,) in struct.iter_unpack("<I", code[: len(code) & ~3]):
        if word & 0xFFC003FF == 0x910003FD:  # ADD x29, sp, #...
            made = True
        elif word & 0xFE407C1F == 0xA840781D:  # LDP x29, x30, [...]
            before_epilogue, made = made, False
        elif word == _RETURN:
            made = before_epilogue or made
    return made
