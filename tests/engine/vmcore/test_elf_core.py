"""The head of a core file, read by pyelftools and by the binutils."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.engine.vmcore.cores import read_core
from tests.peers import need
from timevm.engine.cpu.core_image import EM_386, EM_X86_64, Note
from timevm.engine.vmcore.elf_core import ALIGNMENT, PN_XNUM, Load, core_head

NOTES = (Note("CORE", 1, b"abcde"), Note("VMCOREINFO", 0, b"OSRELEASE=6.1\n"), Note("QEMU", 0, b""))


def written(path: Path, machine: int, bits: int, loads: list[Load], memory: bytes) -> Path:
    head = core_head(machine, bits, NOTES, loads)
    assert len(head) % ALIGNMENT == 0
    path.write_bytes(head + memory)
    return path


@pytest.mark.parametrize(("machine", "bits", "name"), [(EM_386, 32, "EM_386"), (EM_X86_64, 64, "EM_X86_64")])
def test_what_goes_in_comes_out(machine: int, bits: int, name: str, tmp_path: Path) -> None:
    loads = [Load(0x1000, 0x1000, 3, 0), Load(0xC000_0000, 0x1001, 2, 1), Load(0xFFFF_F000, 0xFFFF_F000, 0x1000, 3)]
    core = read_core(written(tmp_path / "core", machine, bits, loads, b"abc" + bytes(0xFFF) + b"!"))
    assert (core.bits, core.machine) == (bits, name)
    assert core.notes == tuple((note.name, note.type, note.data) for note in NOTES)
    assert [(load.virtual, load.physical, load.data) for load in core.loads] == [
        (0x1000, 0x1000, b"abc"),
        (0xC000_0000, 0x1001, b"bc"),
        (0xFFFF_F000, 0xFFFF_F000, bytes(0xFFF) + b"!"),
    ]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("count", [PN_XNUM - 2, PN_XNUM - 1, PN_XNUM, PN_XNUM + 5])
def test_more_segments_than_the_head_can_count(count: int, bits: int, tmp_path: Path) -> None:
    path = written(tmp_path / "core", EM_386, bits, [Load(at * 16, 0, 1, 0) for at in range(count)], b"x")
    told = subprocess.run([need("readelf"), "-lW", path], capture_output=True, text=True, check=True, timeout=60)
    assert told.stderr == ""
    assert told.stdout.count("  LOAD ") == count
    assert f"There are {count + 1} program headers" in told.stdout


def test_the_binutils_find_nothing_wrong(tmp_path: Path) -> None:
    path = written(tmp_path / "core", EM_X86_64, 64, [Load(0, 0, 4, 0)], b"abcd")
    told = subprocess.run([need("readelf"), "-aW", path], capture_output=True, text=True, check=True, timeout=60)
    assert "Warning" not in told.stderr + told.stdout
    assert "CORE (Core file)" in told.stdout and "VMCOREINFO" in told.stdout
