"""Guests that switch paging on, with one page of each kind, and stay there: for comparison with QEMU.

``python -m tests.monitor.hmp.paging_guests`` asks the QEMU of this machine what it says of them, and writes SAID.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.engine.cpu import riscv64_assembler as riscv
from tests.engine.machine.elf import EM_RISCV, Segment, elf64
from tests.engine.machine.pc_guests import KERNEL, assemble
from timevm.engine.machine.spec import MIB, NO_FIRMWARE, MachineSpec, Properties

#: by guest, what QEMU 7.2 prints
SAID = Path(__file__).with_name("paging_said_by_qemu.json")
COMMANDS = ("info mem", "info tlb")
#: seconds until a guest has done so in QEMU, many times over
_PATIENCE = 10
#: page tables of the PC's guests, behind their code
TABLES = 0x22_0000
_ENTER = """
start:
    mov eax, {control}
    mov cr4, eax
    mov eax, 0x220000
    mov cr3, eax
    mov ecx, 0xC0000080
    mov eax, {extended}
    xor edx, edx
    wrmsr
    mov eax, 0x80000011
    mov cr0, eax
    jmp here
here:
    jmp here
times 0x20000 - ($ - $$) db 0
"""
WRITE, USER, THROUGH, UNCACHED, ACCESSED, DIRTY, LARGE, GLOBAL = 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x100
NX = 1 << 63
#: of the smallest pages, by the number of the page: everything that an entry can say, and neighbours that agree
SMALL = {
    0: 0x30_0000,
    1: 0x30_1000,
    2: 0x50_2000 | WRITE,
    3: 0x30_3000 | WRITE,
    4: 0x30_4000 | WRITE | USER,
    5: 0x30_5000 | WRITE | USER | ACCESSED,
    6: 0x30_6000 | USER | ACCESSED | DIRTY | GLOBAL,
    8: 0x30_8000 | WRITE | THROUGH | UNCACHED | LARGE,
    9: 0x30_9000 | WRITE | DIRTY,
    100: 0xFEC0_0000 | WRITE | UNCACHED,
}


def _table(entries: dict[int, int], size: int) -> bytes:
    """A page of entries, each present."""
    data = bytearray(4096)
    for number, entry in entries.items():
        data[number * size : (number + 1) * size] = (entry | 1).to_bytes(size, "little")
    return bytes(data)


def _pc(control: int, extended: int, tables: list[bytes]) -> bytes:
    source = KERNEL + "on_timer:\non_serial:\n" + _ENTER.format(control=control, extended=extended)
    with tempfile.TemporaryDirectory() as folder:
        return assemble(source, Path(folder) / "guest").read_bytes() + b"".join(tables)


def _legacy() -> bytes:
    all_small = TABLES + 0x1000
    top = {0: WRITE | LARGE, 1: all_small | WRITE | USER, 2: 0x80_0000 | USER | LARGE | GLOBAL, 3: all_small | USER}
    top |= {768: WRITE | LARGE | ACCESSED, 1022: (TABLES + 0x2000) | WRITE, 1023: (TABLES + 0x2000) | WRITE}
    return _pc(0x10, 0, [_table(top, 4), _table(SMALL, 4), _table({1022: 0x30_0000, 1023: 0x30_1000}, 4)])


def _extended() -> bytes:
    roots = _table({0: TABLES + 0x1000, 3: TABLES + 0x2000}, 8)
    low = {0: WRITE | LARGE, 1: 0x20_0000 | WRITE | LARGE, 2: (TABLES + 0x3000) | WRITE | USER, 3: TABLES + 0x3000}
    high = {0: (TABLES + 0x3000) | WRITE, 511: 0x40_0000 | USER | WRITE | LARGE | GLOBAL}
    return _pc(0x20, 0, [roots, _table(low, 8), _table(high, 8), _table(SMALL, 8)])


def _long() -> bytes:
    at = [TABLES + 0x1000 * number for number in range(6)]
    top = {0: at[1] | WRITE | USER, 256: at[1] | WRITE, 510: at[5] | WRITE, 511: at[5] | USER}
    middle = {0: at[2] | WRITE | USER, 2: 0x4000_0000 | WRITE | LARGE | NX, 3: 0x4000_0000 | USER | LARGE}
    low = {0: WRITE | LARGE, 1: 0x20_0000 | WRITE | LARGE | ACCESSED, 2: at[3] | WRITE | USER, 4: at[4] | USER}
    more = {number: entry | NX for number, entry in SMALL.items()}
    high = {510: at[2] | WRITE | USER}
    tables = [_table(entries, 8) for entries in (top, middle, low, SMALL, more, high)]
    return _pc(0x20, 0x900, tables)


_BASE = 0x8000_0000
_RISCV_TABLES = _BASE + 0x1000


def _riscv(mode: int) -> bytes:
    """From M-mode, which translates nothing."""
    levels = {8: 3, 9: 4, 10: 5}[mode]
    at = [_RISCV_TABLES + 0x1000 * number for number in range(levels)]

    def entry(address: int, bits: int) -> int:
        return address >> 12 << 10 | bits

    # the same at each level, and a table of the next one
    tables = []
    for number in range(levels):
        size = 1 << 12 + 9 * (levels - 1 - number)
        entries = {2: entry(2 * size, 0xCE), 3: entry(3 * size, 0xCE), 4: entry(5 * size, 0xCE), 6: entry(0, 0x0A)}
        entries |= {7: entry(0, 0x5A), 9: entry(9 * size, 0x62), 511: entry(size, 0xE6)}
        if number < levels - 1:
            entries |= {0: entry(at[number + 1], 0), 256: entry(at[number + 1], 0x20), 510: entry(at[number + 1], 0)}
        tables.append(_table(entries, 8))
    mode_field = [riscv.addi(6, 0, mode), riscv.slli(6, 6, 60)]
    program = [*riscv.load_constant(5, _RISCV_TABLES >> 12), *mode_field, riscv.add(5, 5, 6), riscv.csrw("satp", 5)]
    code = riscv.code(*program, riscv.jal(0, 0)).ljust(0x1000, b"\0")
    return elf64([Segment(_BASE, code + b"".join(tables))], _BASE, EM_RISCV)


@dataclass(frozen=True, slots=True)
class PagingGuest:
    architecture: str
    image: Callable[[], bytes]
    #: of QEMU beyond ``-kernel``
    options: tuple[str, ...] = ()
    machine_properties: Properties = ()

    def spec(self, kernel: Path) -> MachineSpec:
        is_pc = self.architecture == "x86_64"
        return MachineSpec(
            architecture=self.architecture,
            machine="pc" if is_pc else "virt",
            cpu="qemu64" if is_pc else "rv64",
            ram_bytes=64 * MIB,
            kernel=kernel,
            machine_properties=self.machine_properties,
            shift=2,
            sleep=False,
            seed=1,
            rtc_base=0,
        )


GUESTS = {
    "pc-32-bit": PagingGuest("x86_64", _legacy, ("-M", "pc")),
    "pc-pae": PagingGuest("x86_64", _extended, ("-M", "pc")),
    "pc-long": PagingGuest("x86_64", _long, ("-M", "pc")),
    **{
        f"riscv-sv{bits}": PagingGuest(
            "riscv64", partial(_riscv, mode), ("-M", "virt", "-bios", "none"), (NO_FIRMWARE,)
        )
        for mode, bits in ((8, 39), (9, 48), (10, 57))
    },
}


def _ask_qemu(name: str, guest: PagingGuest) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder) / "kernel"
        kernel.write_bytes(guest.image())
        program = f"qemu-system-{guest.architecture}"
        process = subprocess.Popen(
            [
                program,
                *guest.options,
                "-m",
                "64",
                "-kernel",
                kernel,
                "-net",
                "none",
                "-display",
                "none",
                "-qmp",
                "stdio",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None and process.stdout is not None
        to, answers = process.stdin, process.stdout
        answers.readline()

        def execute(command: str, **arguments: str) -> str:
            to.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            to.flush()
            while "event" in (answer := json.loads(answers.readline())):
                pass
            return str(answer["return"])

        execute("qmp_capabilities")
        try:
            for _ in range(_PATIENCE):
                said = {
                    line: execute("human-monitor-command", **{"command-line": line}).replace("\r\n", "\n")
                    for line in COMMANDS
                }
                if said["info mem"] not in ("PG disabled\n", "No translation or protection\n"):
                    return {line: text for line, text in said.items() if not text.startswith("unknown command")}
                subprocess.run(["sleep", "1"], check=True)
            raise RuntimeError(f"{name} did not switch paging on: {said}")
        finally:
            execute("quit")
            process.wait(timeout=_PATIENCE)


if __name__ == "__main__":
    SAID.write_text(json.dumps({name: _ask_qemu(name, guest) for name, guest in GUESTS.items()}, indent=1) + "\n")
