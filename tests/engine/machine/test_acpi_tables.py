"""ACPI: encodings of AML against the specification's rules, the tables against iasl, both ways of placing them."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.peers import need
from timevm.engine.machine import acpi_aml as aml
from timevm.engine.machine.acpi_tables import (
    ADD_CHECKSUM,
    ADD_POINTER,
    ALLOCATE,
    COMMAND_BYTES,
    RSDP_FILE,
    SCRIPT_FILE,
    TABLES_FILE,
    Tables,
)
from timevm.engine.machine.boards.pc_acpi import SerialResource, tables
from timevm.errors import InternalError

HOLE = (0x8000_0000, 0xFEBF_FFFF)
BASE = 0xE_0000


def board() -> Tables:
    return tables(HOLE, [SerialResource(0x3F8, 4), SerialResource(0x2F8, 3)])


def by_signature(data: bytes, base: int, root: bytes) -> dict[bytes, bytes]:
    """All tables, found as an operating system finds them."""
    assert root[:8] == b"RSD PTR " and sum(root) & 0xFF == 0
    found: dict[bytes, bytes] = {}

    def follow(address: int) -> None:
        at = address - base
        signature, length = struct.unpack_from("<4sI", data, at)
        table = data[at : at + length]
        found[signature] = table
        if signature == b"FACS":
            return
        assert sum(table) & 0xFF == 0, signature
        if signature == b"RSDT":
            for (entry,) in struct.iter_unpack("<I", table[36:]):
                follow(entry)
        elif signature == b"FACP":
            for entry in struct.unpack_from("<II", table, 36):
                follow(entry)

    follow(struct.unpack_from("<I", root, 16)[0])
    return found


def test_tables_of_the_board_placed_by_the_loader() -> None:
    data, root = board().placed(BASE)
    found = by_signature(data, BASE, root)
    assert set(found) == {b"RSDT", b"FACP", b"FACS", b"DSDT"}
    fadt = found[b"FACP"]
    assert len(fadt) == 116 and struct.unpack_from("<H", fadt, 46) == (9,)
    assert struct.unpack_from("<I", fadt, 56) == (0x600,) and struct.unpack_from("<I", fadt, 64) == (0x604,)
    assert struct.unpack_from("<I", fadt, 76) == (0x608,) and fadt[108] == 0x32


def test_the_firmware_s_script_gives_the_same_tables() -> None:
    """A loader as the specification describes it, for two places of the tables."""
    made = board()
    files = made.files()
    for base in (BASE, 0x1FFF_F000):
        memory = {name: bytearray(data) for name, data in files.items() if name != SCRIPT_FILE}
        places = {TABLES_FILE: base, RSDP_FILE: 0xF_5000}
        allocated = set()
        script = files[SCRIPT_FILE]
        assert len(script) % COMMAND_BYTES == 0
        for at in range(0, len(script), COMMAND_BYTES):
            command, name = struct.unpack_from("<I56s", script, at)
            file = name.rstrip(b"\0").decode()
            if command == ALLOCATE:
                allocated.add(file)
            elif command == ADD_POINTER:
                source, offset, size = struct.unpack_from("<56sIB", script, at + 60)
                target = source.rstrip(b"\0").decode()
                assert {file, target} <= allocated and size == 4
                (value,) = struct.unpack_from("<I", memory[file], offset)
                struct.pack_into("<I", memory[file], offset, value + places[target])
            else:
                assert command == ADD_CHECKSUM
                offset, start, length = struct.unpack_from("<III", script, at + 60)
                memory[file][offset] = (memory[file][offset] - sum(memory[file][start : start + length])) & 0xFF
        assert (bytes(memory[TABLES_FILE]), bytes(memory[RSDP_FILE])) == made.placed(base)


def test_iasl_reads_the_tables_and_compiles_them_again(tmp_path: Path) -> None:
    iasl = need("iasl")
    data, root = board().placed(BASE)
    for signature, table in by_signature(data, BASE, root).items():
        if signature in (b"FACS", b"RSDT"):
            continue
        (tmp_path / "table.aml").write_bytes(table)
        done = subprocess.run(
            [iasl, "-d", "table.aml"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0 and "Error" not in done.stderr, done.stderr
        text = (tmp_path / "table.dsl").read_text()
        if signature == b"DSDT":
            done = subprocess.run(
                [iasl, "-p", "again", "table.dsl"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert "0 Errors, 0 Warnings" in done.stdout, done.stdout
            for expected in ("Device (PCI0)", "_PRT", "LNKD", "Device (COM2)", "_S5", "0xFEBFFFFF"):
                assert expected in text
        else:
            assert "PM1A Control Block Address : 00000604" in text


@settings(deadline=None)
@given(st.integers(0, 1 << 27))
def test_package_lengths(size: int) -> None:
    encoded = aml.package_length(size)
    extra = encoded[0] >> 6
    assert len(encoded) == 1 + extra
    value = encoded[0] & 0x3F if not extra else encoded[0] & 0xF | int.from_bytes(encoded[1:], "little") << 4
    assert value == size + len(encoded)


@settings(deadline=None)
@given(st.integers(0, (1 << 64) - 1))
def test_integers(value: int) -> None:
    encoded = aml.integer(value)
    sizes = {0x0A: 1, 0x0B: 2, 0x0C: 4, 0x0E: 8}
    if value < 2:
        assert encoded == bytes([value])
    else:
        assert int.from_bytes(encoded[1:], "little") == value and len(encoded) == 1 + sizes[encoded[0]]


def test_names_and_identifiers() -> None:
    assert aml.name("_ADR") == b"_ADR"
    assert aml.name("\\_SB.PCI0") == b"\\\x2e_SB_PCI0"
    assert aml.name("^A.BC.DEF") == b"^\x2f\x03A___BC__DEF_"
    assert aml.name("\\") == b"\\\x00"
    assert aml.eisa("PNP0A03") == b"\x0c\x41\xd0\x0a\x03"
    assert aml.string("abc") == b"\x0dabc\0"
    with pytest.raises(InternalError):
        aml.segment("TOOLONG")
