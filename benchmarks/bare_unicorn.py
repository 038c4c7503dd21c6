"""The bare loop on Unicorn alone, without a single hook in its way: the limit that timevm is compared with.

``python -m benchmarks.bare_unicorn GUEST.elf [flat]`` prints the million instructions per second between the guest's
``S`` and ``E``.  ``flat``: addresses are answered by a TLB hook (two calls), so that data pages are not executable.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import unicorn
from elftools.elf.elffile import ELFFile
from unicorn import arm64_const as arm64
from unicorn import unicorn_const as const

RAM, RAM_SIZE, UART = 0x4000_0000, 16 << 20, 0x0900_0000
#: what firmware would have set (crn, crm, op0, op1, op2, value): EL1 is non-secure AArch64
SCR_EL3, HCR_EL2, ELR_EL1 = (1, 1, 3, 6, 0, 0x531), (1, 1, 3, 4, 0, 1 << 31), (4, 0, 3, 0, 1, 0)
EL1H_MASKED = 0x3C5
LOOP_INSTRUCTIONS = 1_001_000_000
FETCH = 18  # UC_MEM_FETCH


def measure(guest: Path, flat: bool) -> float:
    """Million instructions per second."""
    engine = unicorn.Uc(const.UC_ARCH_ARM64, const.UC_MODE_ARM, arm64.UC_CPU_ARM64_A57)
    engine.ctl_set_page_size(4096)
    engine.mem_map(RAM, RAM_SIZE)
    with guest.open("rb") as file:
        elf = ELFFile(file)
        entry = elf.header["e_entry"]
        for segment in elf.iter_segments():
            if segment["p_type"] == "PT_LOAD":
                engine.mem_write(segment["p_paddr"], segment.data())
    moments: dict[str, float] = {}

    def write(uc: unicorn.Uc, offset: int, size: int, value: int, user: object) -> None:
        moments[chr(value)] = time.perf_counter()

    def fill(uc: unicorn.Uc, address: int, kind: int, answer: unicorn.UcTLBEntry, user: object) -> bool:
        answer.paddr = address & ~0xFFF
        answer.perms = const.UC_PROT_READ | (const.UC_PROT_EXEC if kind == FETCH else const.UC_PROT_WRITE)
        return True

    engine.mmio_map(UART, 0x1000, None, None, write, None)
    if flat:
        engine.ctl_set_tlb_mode(const.UC_TLB_VIRTUAL)
        engine.hook_add(const.UC_HOOK_TLB_FILL, fill)
    engine.reg_write(arm64.UC_ARM64_REG_CP_REG, SCR_EL3)
    engine.reg_write(arm64.UC_ARM64_REG_CP_REG, HCR_EL2)
    engine.reg_write(arm64.UC_ARM64_REG_PSTATE, EL1H_MASKED)
    engine.reg_write(arm64.UC_ARM64_REG_CP_REG, ELR_EL1)  # rebuilds what translated code takes for the level
    try:
        engine.emu_start(entry, 0)
    except unicorn.UcError:
        # the guest's last instruction asks the firmware, which is not there, to switch off
        if "\n" not in moments:
            raise
    return LOOP_INSTRUCTIONS / (moments["E"] - moments["S"]) / 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare_unicorn", description=__doc__)
    parser.add_argument("program", type=Path, metavar="PROGRAM", help="tests/data/arm64.elf, or arm64_mmu.elf (built)")
    parser.add_argument("flat", nargs="?", choices=["flat"], help="with timevm's own translation of addresses")
    options = parser.parse_args()
    print(measure(options.program, options.flat is not None))
