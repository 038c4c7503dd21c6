"""Symbol files out of ``/proc/kallsyms``: whatever surrounds its lines, gdb reads what comes out."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from tests.peers import need
from timevm.gdb.kernel_symbols import main, read_kallsyms, symbol_file

CONSOLE = """/ # grep -i ' t ' /proc/kallsyms\r
ffff800008010000 T _stext\r
ffff800008010000 t gic_handle_irq\r
ffff800008010090 T do_it_all\r
ffff8000080100d0 W weak\r
ffff800009828000 D init_task\r
ffff800000be24a0 t in_a_module\t[virtio_ring]\r
0000000000000000 T hidden\r
[    1.234567] noise ffff800008010000 T in a line\r
ffff80000801010 T short\r
"""


def test_only_functions_of_the_kernel() -> None:
    assert read_kallsyms(CONSOLE) == [
        (0xFFFF800008010000, "_stext", True),
        (0xFFFF800008010000, "gic_handle_irq", False),
        (0xFFFF800008010090, "do_it_all", True),
        (0xFFFF8000080100D0, "weak", True),
    ]


@pytest.mark.parametrize(("architecture", "gdbs"), [("aarch64", "aarch64"), ("riscv64", "riscv:rv64")])
def test_gdb_reads_it(tmp_path: Path, architecture: str, gdbs: str) -> None:
    console, target = tmp_path / "console.txt", tmp_path / "kernel.elf"
    console.write_text(CONSOLE)
    assert main([str(console), str(target), "--architecture", architecture]) == 0
    arguments = [need("gdb-multiarch"), "-nx", "-batch", str(target)]
    for command in ("info address weak", "info symbol 0xffff800008010094", "show architecture"):
        arguments += ["-ex", command]
    output = subprocess.run(arguments, capture_output=True, timeout=60, check=True, text=True)
    assert 'Symbol "weak" is at 0xffff8000080100d0' in output.stdout
    assert "do_it_all + 4 in section .text" in output.stdout
    assert gdbs in output.stdout and output.stderr == ""


def test_a_text_without_symbols(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = tmp_path / "console.txt"
    console.write_bytes(b"\xff nothing \x00 here")
    with pytest.raises(SystemExit):
        main([str(console), str(tmp_path / "kernel.elf")])
    assert "no symbols" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("console", "target", "message"),
    [
        ("nothing", "kernel.elf", "nothing: No such file or directory"),
        (".", "kernel.elf", "Is a directory"),
        ("console.txt", "no/kernel.elf", "no/kernel.elf: No such file or directory"),
    ],
)
def test_files_that_cannot_be(
    tmp_path: Path, console: str, target: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "console.txt").write_text(CONSOLE)
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / console), str(tmp_path / target)])
    assert message in capsys.readouterr().err


@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    for _, name, _ in read_kallsyms(text):
        assert name


@given(
    st.lists(
        st.tuples(st.integers(1, (1 << 64) - 8), st.from_regex(r"\A[\w.$]+\Z", fullmatch=True), st.booleans()),
        min_size=1,
        max_size=20,
    )
)
def test_what_is_written_is_an_elf_file(symbols: list[tuple[int, str, bool]]) -> None:
    symbols = sorted((address, name.encode("ascii", "ignore").decode() or "x", kind) for address, name, kind in symbols)
    elf = ELFFile(io.BytesIO(symbol_file(symbols)))
    table = elf.get_section_by_name(".symtab")
    assert table is not None
    read = sorted((symbol["st_value"], symbol.name) for symbol in table.iter_symbols() if symbol.name)
    assert read == sorted((address, name) for address, name, _ in symbols)
