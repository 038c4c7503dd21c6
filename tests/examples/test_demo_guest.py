"""The shipped demo guest: rebuilt from its sources to the same bytes, and right on another machine (QEMU)."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "examples" / "guests" / "demo"
SHIPPED = ROOT / "timevm" / "guests" / "demo-aarch64.elf"
COMPILER = "aarch64-linux-gnu-gcc"

needs_compiler = pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"{COMPILER} is not installed")
needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="qemu-system-aarch64 not installed")


def build(output: Path, *flags: str) -> Path:
    subprocess.run([SOURCES / "build.sh", output, *flags], check=True, timeout=60)
    return output


def producer(elf: Path) -> str:
    """The compiler that made ``elf``, from its DWARF."""
    with elf.open("rb") as file:
        for unit in ELFFile(file).get_dwarf_info().iter_CUs():
            attributes = unit.get_top_DIE().attributes
            if b"GNU C" in attributes["DW_AT_producer"].value:
                name: bytes = attributes["DW_AT_producer"].value
                return name.decode()
    pytest.fail(f"{elf} names no C compiler")


def converse(elf: Path, lines: list[str], seconds: float = 60.0) -> str:
    """Type ``lines`` at the guest's prompts under QEMU; the console until it powers off."""
    command = ["qemu-system-aarch64", "-M", "virt,gic-version=2", "-cpu", "cortex-a57", "-m", "128", "-nographic"]
    command += ["-nodefaults", "-nic", "none", "-serial", "stdio", "-monitor", "none", "-kernel", str(elf)]
    console, waiting, end = b"", list(lines), time.monotonic() + seconds
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as qemu:
        assert qemu.stdin is not None and qemu.stdout is not None
        try:
            while True:
                left = end - time.monotonic()
                assert left > 0, f"the guest did not power off within {seconds} s; so far: {console!r}"
                if not select.select([qemu.stdout], [], [], left)[0]:
                    continue
                data = os.read(qemu.stdout.fileno(), 4096)
                if not data:
                    break
                console += data
                if console.endswith(b"> ") and waiting:
                    qemu.stdin.write(waiting.pop(0).encode() + b"\r")
                    qemu.stdin.flush()
        finally:
            qemu.kill()
    return console.decode().replace("\r", "")


@needs_compiler
def test_the_shipped_elf_is_what_the_sources_build(tmp_path: Path) -> None:
    elf = build(tmp_path / "demo.elf")
    if producer(elf) != producer(SHIPPED):
        pytest.skip(f"another compiler: {producer(elf)} here, {producer(SHIPPED)} made the shipped one")
    assert elf.read_bytes() == SHIPPED.read_bytes(), "rebuild it: examples/guests/demo/build.sh"


@needs_compiler
def test_the_build_does_not_depend_on_the_place(tmp_path: Path) -> None:
    shutil.copytree(SOURCES, tmp_path / "elsewhere")
    first = build(tmp_path / "first.elf").read_bytes()
    subprocess.run([tmp_path / "elsewhere" / "build.sh", tmp_path / "second.elf"], check=True, timeout=60)
    assert (tmp_path / "second.elf").read_bytes() == first


def test_code_and_data_are_on_pages_of_their_own() -> None:
    with SHIPPED.open("rb") as file:
        segments = [segment.header for segment in ELFFile(file).iter_segments() if segment["p_type"] == "PT_LOAD"]
    assert [segment.p_flags for segment in segments] == [5, 6]
    assert segments[0].p_vaddr + segments[0].p_memsz <= segments[1].p_vaddr & ~0xFFF


SOUND = ["let a = 6 * 7", 'let b = "twelve chars"', "print a - 50", 'print b + "!"', "print a + b", "push a", "pop c"]
SOUND += ["list", "drop c", "print c", "primes 100", "check", "nonsense", "bye"]


@needs_qemu
@pytest.mark.parametrize("flags", [(), ("-DWITH_MMU",)], ids=["mmu-off", "mmu-on"])
def test_the_notebook_calculates(tmp_path: Path, flags: tuple[str, ...]) -> None:
    if flags and shutil.which(COMPILER) is None:
        pytest.skip(f"{COMPILER} is not installed")
    elf = build(tmp_path / "demo.elf", *flags) if flags else SHIPPED
    answers = [line for line in converse(elf, SOUND).splitlines() if line and not line.startswith("> ")]
    assert answers == [
        "notebook, ready",
        "-8",
        "twelve chars!",
        "? numbers and texts do not mix",
        "a = 42",
        'b = "twelve chars"',
        "c = 42",
        "48 bytes used, 65424 free",
        "? no such variable",
        "25",
        "the heap is sound",
        "? no such command; try help",
        "bye",
    ]


@needs_qemu
@pytest.mark.parametrize("length", [15, 16, 17, 32])
def test_the_bug_bites_only_at_multiples_of_sixteen(length: int) -> None:
    text = "x" * length
    lines = [f'let a = "{text}"', "let b = 7", f'let a = "{text}"', "check", "bye"]
    console = converse(SHIPPED, lines)
    corrupted = re.search(r"heap corrupted: cell 1 at 0x[0-9a-f]+: size 0x0, guard", console)
    assert (corrupted is not None) == (length % 16 == 0), console
