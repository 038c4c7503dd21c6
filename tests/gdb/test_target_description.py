"""The documents about the target: what they say is what ``g`` and ``p`` give."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from tests.gdb.client import served
from tests.gdb.toy_guest import pc_at, toy
from tests.monitor.toy_vm import RAM
from timevm.engine.control.port import MemoryRegion
from timevm.engine.cpu import riscv64_registers
from timevm.engine.cpu.aarch64_registers import REGISTERS
from timevm.errors import InternalError
from timevm.gdb import aarch64_features, architectures
from timevm.gdb.target_description import memory_map_document

PC = 32


def test_aarch64_as_gdb_numbers_it() -> None:
    description = aarch64_features.describe(REGISTERS)
    names = [register.name for register in description.registers]
    assert names[:34] == [*(f"x{n}" for n in range(31)), "sp", "pc", "cpsr"]
    assert names[34:68] == [*(f"v{n}" for n in range(32)), "fpsr", "fpcr"]
    assert names[68:] == [register.name for register in REGISTERS if register.group == "system"]
    assert sum(register.size for register in description.general) == 268
    assert description.program_counter.name == "pc"


def test_the_document_is_xml_and_its_types_are_defined_before_use() -> None:
    description = aarch64_features.describe(REGISTERS)
    document = ElementTree.fromstring(description.document())
    assert document.findtext("architecture") == "aarch64"
    numbers = [int(register.attrib["regnum"]) for register in document.iter("reg")]
    assert numbers == list(range(len(REGISTERS)))
    predefined = {"int", "data_ptr", "code_ptr", "ieee_half", "ieee_single", "ieee_double"}
    predefined |= {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64, 128)}
    for feature in document.iter("feature"):
        known = set(predefined)
        for element in feature.iter():
            if "type" in element.attrib:
                assert element.attrib["type"] in known, element.attrib
            if "id" in element.attrib:
                known.add(element.attrib["id"])


def test_a_processor_without_some_registers_has_no_such_feature() -> None:
    general = [register for register in REGISTERS if register.group == "general"]
    assert [feature.name for feature in aarch64_features.describe(general).features] == ["org.gnu.gdb.aarch64.core"]


def test_an_architecture_that_nobody_described() -> None:
    with pytest.raises(InternalError, match="does not know the architecture 'z80'"):
        architectures.describe("z80", [])


def test_the_memory_map_leaves_nothing_out() -> None:
    regions = [MemoryRegion("uart", 0x09000000, 0x1000, "io"), MemoryRegion("ram", 0x40000000, 1 << 27, "ram")]
    document = ElementTree.fromstring(memory_map_document(regions))
    end = 0
    for memory in document.iter("memory"):
        assert int(memory.attrib["start"], 16) == end
        end += int(memory.attrib["length"], 16)
    assert end == 1 << 64
    assert {"type": "ram", "start": "0x40000000", "length": "0x8000000"} in [m.attrib for m in document.iter("memory")]


async def test_an_architecture_whose_watchpoints_stop_behind_the_access(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward gdb finds the new value, backward the old one; it does not step by itself."""
    after = replace(aarch64_features.describe(REGISTERS[:34]), watch_stops_before=False)
    monkeypatch.setitem(architectures.ARCHITECTURES, "aarch64", lambda registers: after)
    async with toy() as machine, served(machine.vm) as server:
        client = await server.connect()
        await client.ask(b"qSupported:qRelocInsn+")
        assert await client.ask(b"Z2,%x,1" % (RAM + 5)) == b"OK"
        for written in (5, 21, 37):
            assert await client.ask(b"c") == b"T05watch:%x;thread:01;" % (RAM + 5)
            assert await client.register(PC) == pc_at(written + 1)
            assert await client.ask(b"m%x,1" % (RAM + 5)) == b"%02x" % written
        for written in (37, 21):
            assert await client.ask(b"bc") == b"T05watch:%x;thread:01;" % (RAM + 5)
            assert await client.register(PC) == pc_at(written)
            assert await client.ask(b"m%x,1" % (RAM + 5)) == b"%02x" % (written - 16)
        assert await client.ask(b"z2,%x,1" % (RAM + 5)) == b"OK"
        assert await client.ask(b"bs") == b"T05thread:01;"
        assert await client.register(PC) == pc_at(20)
        client.close()


def test_riscv64_as_gdb_numbers_it() -> None:
    description = architectures.describe("riscv64", riscv64_registers.REGISTERS)
    names = [register.name for register in description.registers]
    assert names[:10] == ["zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "fp", "s1"]
    assert (names[31:33], len(description.general)) == (["t6", "pc"], 33)
    assert (names[33], names[41], names[43], names[64:68]) == ("ft0", "fs0", "fa0", ["ft11", "fflags", "frm", "fcsr"])
    assert [feature.name for feature in description.features] == [
        f"org.gnu.gdb.riscv.{name}" for name in ("cpu", "fpu", "csr", "virtual")
    ]
    assert description.program_counter.name == "pc" and names[-1] == "priv"
    document = ElementTree.fromstring(description.document())
    assert document.findtext("architecture") == "riscv:rv64"
    assert len(list(document.iter("reg"))) == len(riscv64_registers.REGISTERS)
