"""Which of Unicorn's functions call the host's libm: only these may compute something else on another host.

Read from the library's machine code: a direct call or jump to the linkage table's entry of a function.
"""

from __future__ import annotations

import bisect
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from elftools.elf.elffile import ELFFile

from timevm.engine.cpu import unicorn_library
from timevm.engine.cpu.x86_64_interposed import HOST_FUNCTIONS

#: IEEE 754 leaves these no freedom
EXACT = {"fma", "fmaf", "sqrt", "sqrtf"}
#: what else of libm there is, as C11 has it
INEXACT = (
    *HOST_FUNCTIONS, "acos", "asin", "atan", "acosh", "asinh", "atanh", "cosh", "sinh", "tanh", "exp", "exp2", "expm1",
    "log10", "log1p", "log2", "cbrt", "hypot", "erf", "erfc", "lgamma", "tgamma", "powl", "expl", "logl", "sinl",
)  # fmt: skip


def numbers(code: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The signed 32-bit numbers that begin there."""
    at = places[:, None] + np.arange(4)
    return np.ascontiguousarray(code[at]).view("<i4").astype(np.int64).reshape(-1)


@cache
def callers() -> dict[str, set[str]]:
    """By function of another library: who calls it.  Half a second."""
    with Path(unicorn_library.library._name).open("rb") as file:
        elf = ELFFile(file)
        symbols = elf.get_section_by_name(".dynsym")
        slots = {
            relocation["r_offset"]: symbols.get_symbol(relocation["r_info_sym"]).name
            for relocation in elf.get_section_by_name(".rela.plt").iter_relocations()
        }
        own = sorted(
            (symbol["st_value"], symbol.name)
            for symbol in symbols.iter_symbols()
            if symbol["st_value"] and symbol["st_info"]["type"] == "STT_FUNC"
        )
        places = [place for place, _ in own]
        entries: dict[int, str] = {}
        for name in (".plt", ".plt.sec"):
            if (section := elf.get_section_by_name(name)) is not None:
                code = np.frombuffer(section.data(), dtype=np.uint8)
                jumps = np.flatnonzero((code[:-5] == 0xFF) & (code[1:-4] == 0x25))  # jmp [rip + displacement]
                for jump, slot in zip(jumps, section["sh_addr"] + jumps + 6 + numbers(code, jumps + 2), strict=True):
                    if int(slot) in slots:
                        entries[section["sh_addr"] + int(jump) // 16 * 16] = slots[int(slot)]
        text = elf.get_section_by_name(".text")
        code = np.frombuffer(text.data(), dtype=np.uint8)
        calls = np.flatnonzero((code[:-4] == 0xE8) | (code[:-4] == 0xE9))
        targets = text["sh_addr"] + calls + 5 + numbers(code, calls + 1)
        found: dict[str, set[str]] = {}
        for number in np.flatnonzero(np.isin(targets, list(entries))):
            caller = own[bisect.bisect_right(places, text["sh_addr"] + int(calls[number])) - 1][1]
            found.setdefault(entries[int(targets[number])], set()).add(caller)
    return found


@pytest.mark.parametrize("name", INEXACT)
def test_only_the_x87_calls_what_may_differ(name: str) -> None:
    called_by = callers().get(name, set())
    assert all(caller.startswith("helper_f") and caller.endswith("_x86_64") for caller in called_by), called_by
    assert bool(called_by) == (name in HOST_FUNCTIONS)


@pytest.mark.parametrize("name", sorted(EXACT))
def test_the_others_are_exact(name: str) -> None:
    assert any(caller.endswith("_aarch64") for caller in callers()[name])
