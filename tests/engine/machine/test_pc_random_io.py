"""A guest that writes nonsense into every device of the PC: nothing breaks, and the replay is the same.

The guest is a loop over a table of port accesses, drawn at random, with disks, a CD-ROM and virtio devices there.
"""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.machine.pc_guests import kernel
from tests.engine.machine.test_pc import pc
from tests.linux.harness import Terminal, build
from timevm.engine.machine.outcome import RunEnd
from timevm.engine.machine.spec import DeviceOption, Drive, LoaderData, MachineSpec
from timevm.engine.replay.events import Digest

#: where the table of accesses lies: port, operation (0 to 2 read 1, 2, 4 bytes; 3 to 5 write them), value
TABLE, ACCESSES = 0x40_0000, 1500
LIMIT = 2_000_000

LOOP = """
    mov esi, 0x400000
.next:
    movzx edx, word [esi]
    movzx ecx, word [esi + 2]
    mov eax, [esi + 4]
    add esi, 8
    jmp [operations + ecx * 4]
in8: in al, dx
    jmp mix
in16: in ax, dx
    jmp mix
in32: in eax, dx
mix:
    rol ebx, 5
    xor ebx, eax            ; what was read shows in the digests
    jmp next
out8: out dx, al
    jmp next
out16: out dx, ax
    jmp next
out32: out dx, eax
next:
    cmp esi, 0x400000 + 8 * 1500
    jb start.next
.done:
    jmp .done
align 4
operations: dd in8, in16, in32, out8, out16, out32
"""

PORTS = [
    *(0x20, 0x21, 0xA0, 0xA1, 0x40, 0x41, 0x42, 0x43, 0x60, 0x61, 0x70, 0x71, 0x4D0, 0x4D1),
    *range(0x1F0, 0x1F8),
    *range(0x1F0, 0x1F8),
    *range(0x170, 0x178),
    *(0x3F6, 0x376),
    *range(0x3F8, 0x400),
    *(0x510, 0x511, 0x514, 0x518, 0xCF8, 0xCFC, 0xCFD, 0xCFE),
    *(0x600, 0x602, 0x608),
    *range(0xC000, 0xC010),
    *range(0xC040, 0xC060),
    *range(0xC080, 0xC0A0),
]
VALUES = [0, 1, 2, 4, 8, 0x10, 0x20, 0x34, 0x36, 0x80, 0xA0, 0xB0, 0xE0, 0xEC, 0xA1, 0xC8, 0xCA, 0x25, 0x35, 0x20, 0xFF]
VALUES += [
    0x8000_0000 | function << 8 | offset for function in (0, 8, 9, 11, 16, 24) for offset in (4, 16, 32, 0x40, 0x60)
]


def table(seed: int) -> list[LoaderData]:
    generator = random.Random(seed)
    records = []
    for _ in range(ACCESSES):
        value = generator.choice(VALUES) if generator.random() < 0.8 else generator.getrandbits(32)
        records.append(struct.pack("<HHI", generator.choice(PORTS), generator.randrange(6), value))
    return [LoaderData(record, TABLE + 8 * number) for number, record in enumerate(records)]


def guest(seed: int, folder: Path) -> MachineSpec:
    drives, devices = [], []
    for number, driver in enumerate(("ide-hd", "ide-cd", "virtio-blk-pci")):
        image = folder / f"{number}.img"
        image.write_bytes(bytes(1 << 20))
        drives.append(Drive(f"direct{number}", image, format="raw", snapshot=True))
        drives.append(Drive(f"disk{number}", driver="blkreplay", image=f"direct{number}"))
        devices.append(DeviceOption(driver, None, (("drive", f"disk{number}"),)))
    devices.append(DeviceOption("virtio-rng-pci", None, ()))
    return pc(
        kernel(LOOP, folder / "k"),
        loaders=tuple(table(seed)),
        drives=tuple(drives),
        devices=tuple(devices),
        mode="record",
        rrfile=folder / "x.rr",
    )


def run(spec: MachineSpec, step: int) -> tuple[RunEnd, int, bytes, Digest]:
    """To LIMIT instructions, or where the guest broke its own machine."""
    terminal = Terminal()
    machine = build(spec, terminal)
    try:
        limit = 0
        while True:
            limit = min(limit + step, LIMIT)
            while (result := machine.run(limit)).end is RunEnd.KICKED:
                pass
            if result.end is not RunEnd.LIMIT or limit == LIMIT:
                return result.end, machine.icount, bytes(terminal.console), machine.digest()
    finally:
        machine.finish("quit")
        machine.close()


@pytest.mark.parametrize("seed", range(6))
def test_nonsense_is_survived_and_replayed(seed: int, tmp_path: Path) -> None:
    spec = guest(seed, tmp_path)
    recorded = run(spec, LIMIT)
    assert recorded[0] in (RunEnd.LIMIT, RunEnd.RESET, RunEnd.POWERED_OFF), recorded
    for step in (LIMIT, 4_999):
        assert run(replace(spec, mode="play"), step) == recorded
