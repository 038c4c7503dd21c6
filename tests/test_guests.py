"""The pieces that make the test guests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.guests import DATA, ROOT, bare
from tests.initramfs import Entry, cpio

BUILD = ROOT / "examples" / "guests" / "bare" / "build.sh"


def test_a_cpio_archive_is_read_by_cpio(tmp_path: Path) -> None:
    tool = shutil.which("cpio") or shutil.which("bsdcpio")
    entries = [Entry.folder("bin"), Entry.file("bin/tool", b"#!/bin/sh\n", 0o755), Entry.symlink("sh", "bin/tool")]
    archive = cpio(entries)
    assert len(archive) % 512 == 0
    if tool is None:
        pytest.skip("no cpio is installed")
    subprocess.run([tool, "-idm"], input=archive, cwd=tmp_path, check=True, timeout=20, capture_output=True)
    assert (tmp_path / "sh").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "bin" / "tool").stat().st_mode & 0o777 == 0o755


def test_cpio_records_are_as_the_format_says() -> None:
    archive = cpio([Entry.file("a", b"xyz", 0o600)])
    assert archive[:6] == b"070701"
    assert int(archive[14:22], 16) == 0o100600
    assert int(archive[54:62], 16) == 3
    assert archive[110:112] == b"a\0"
    assert archive[112:116] == b"xyz\0"
    assert archive[116:122] == b"070701" and b"TRAILER!!!" in archive


@pytest.mark.parametrize("name", ["irq", "arm64", "arm64_mmu", "power"])
def test_the_bare_guests_are_what_the_sources_build(tmp_path: Path, name: str) -> None:
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("aarch64-linux-gnu-gcc is not installed")
    subprocess.run([BUILD, tmp_path], check=True, timeout=60)
    # another assembler may write other debugging information: what is loaded must be the same
    loaded = []
    for path in (tmp_path / f"{name}.elf", bare(name)):
        output = tmp_path / "loaded"
        subprocess.run(["aarch64-linux-gnu-objcopy", "-O", "binary", path, output], check=True, timeout=20)
        loaded.append(output.read_bytes())
    assert loaded[0] == loaded[1], f"rebuild {DATA}: examples/guests/bare/build.sh tests/data"
