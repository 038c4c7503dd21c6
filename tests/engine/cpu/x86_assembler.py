"""x86 programs from source text, by the GNU assembler (the package that compiles the native hooks needs it anyway)."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.peers import need


@cache
def link(source: str, origin: int) -> tuple[bytes, dict[str, int]]:
    """The program and the addresses of its labels."""
    with tempfile.TemporaryDirectory() as folder:
        text, binary, linked, image = (Path(folder) / name for name in ("x.s", "x.o", "x.elf", "x.bin"))
        text.write_text(".intel_syntax noprefix\n.code64\n" + source + "\n")

        def call(*command: str | Path) -> str:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, f"{done.stderr}\n{source}"
            return done.stdout

        call(need("as"), "--64", "-o", binary, text)
        call(need("ld"), "-m", "elf_x86_64", "-e", "0", "-Ttext", hex(origin), "-o", linked, binary)
        call(need("objcopy"), "-O", "binary", "-j", ".text", linked, image)
        rows = [line.split() for line in call(need("nm"), linked).splitlines()]
        return image.read_bytes(), {name: int(address, 16) for address, _, name in rows}


def assemble(source: str, origin: int = 0) -> bytes:
    """Intel syntax without prefixes; ``.code16``, ``.code32`` and ``.code64`` choose the mode (64 at the start)."""
    return link(source, origin)[0]
