"""The machine's memory as one takes it away: RAM first, ROMs above it, and which pages hold something."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guests import bare
from tests.peers import need_file
from timevm.engine.machine.boards import SEABIOS
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.ram import PAGE
from timevm.engine.machine.spec import MIB, MachineSpec


def machine(**what: object) -> Machine:
    spec = MachineSpec(ram_bytes=16 * MIB, shift=3, sleep=False, **what)  # type: ignore[arg-type]
    return build_machine(spec, lambda port, data: None)


@pytest.mark.parametrize("watched", [False, True])
def test_pages_that_are_not_named_are_zeroes(watched: bool) -> None:
    built = machine(kernel=bare("irq"))
    if watched:
        built.dirty.log()
    built.run(1000)
    built.ram.write(built.ram.end - 1, b"!")
    [block] = built.memory_image().blocks
    assert (block.base, block.end) == (built.ram.base, built.ram.end)
    named = set(block.pages.tolist())
    assert built.ram.page_count - 1 in named and len(named) < 100
    holding = {number for number, page in enumerate(built.ram.pages) if page.any()}
    assert holding <= named
    built.close()


def test_a_rom_behind_ram_is_part_of_it() -> None:
    need_file(str(SEABIOS))
    built = machine(architecture="x86_64", machine="pc", cpu="qemu64")
    ram, rom = built.memory_image().blocks
    assert (ram.base, ram.end, rom.end) == (0, 16 * MIB, 1 << 32)
    assert len(rom.pages) * PAGE == len(rom.view)
    assert bytes(rom.view[-16:]) == built.read_memory((1 << 32) - 16, 16, physical=True)
    built.close()


def test_flash_in_front_of_ram_is_not(tmp_path: Path) -> None:
    (tmp_path / "flash").write_bytes(bytes.fromhex("00000014"))
    built = machine(bios=tmp_path / "flash")
    assert [block.base for block in built.memory_image().blocks] == [built.ram.base]
    built.close()
