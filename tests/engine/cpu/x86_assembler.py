"""x86 programs from source text, by the GNU assembler (the package that compiles the native hooks needs it anyway)."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.peers import need


@cache
def assemble(source: str, origin: int = 0) -> bytes:
    """Intel syntax without prefixes; ``.code16``, ``.code32`` and ``.code64`` choose the mode (64 at the start)."""
    with tempfile.TemporaryDirectory() as folder:
        text, binary, image = (Path(folder) / name for name in ("x.s", "x.o", "x.bin"))
        text.write_text(".intel_syntax noprefix\n.code64\n" + source + "\n")
        for command in (
            [need("as"), "--64", "-o", binary, text],
            [need("ld"), "-m", "elf_x86_64", "-Ttext", hex(origin), "--oformat", "binary", "-o", image, binary],
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, f"{done.stderr}\n{source}"
        return image.read_bytes()
