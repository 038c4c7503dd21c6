"""The firmware configuration device against QEMU's specification."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.virtio_driver import RAM_BASE, Memory
from timevm.engine.devices.base import Device
from timevm.engine.devices.debug_ports import DebugConsole, DebugExit
from timevm.engine.devices.fw_cfg import FwCfg

ITEMS = {5: struct.pack("<H", 1)}
FILES = {"etc/b": b"second file", "bootorder": b"\0"}


class CfgRig:
    def __init__(self) -> None:
        self.memory = Memory(size=1 << 16)
        self.device = FwCfg("fw_cfg", self.memory, ITEMS, FILES)
        self.windows: list[Device] = [self.device.control, self.device.dma]

    def outside(self, number: int) -> None:
        """A command lies in memory."""
        command = struct.pack(">IIQ", number & 0x1F | (number >> 5 & 0x2F) << 16, number % 97, RAM_BASE + 0x100)
        self.memory.write(RAM_BASE, command)

    def calls(self) -> list[Any]:
        return self.memory.writes

    def surroundings(self) -> Any:
        return bytes(self.memory.data)

    def restore_surroundings(self, state: Any) -> None:
        self.memory.data = bytearray(state)

    def item(self, number: int, size: int) -> bytes:
        self.device.control.write(0, 2, number)
        return bytes(self.device.control.read(1, 1) for _ in range(size))

    def start(self, control: int, length: int, address: int, at: int = RAM_BASE) -> int:
        """Carry out a command; its control word afterwards."""
        self.memory.write(at, struct.pack(">IIQ", control, length, address))
        self.device.dma.write(0, 4, 0)
        self.device.dma.write(4, 4, int.from_bytes(at.to_bytes(4, "big"), "little"))
        return int.from_bytes(self.memory.read(at, 4), "big")


BASE_SWAPPED = int.from_bytes(RAM_BASE.to_bytes(4, "big"), "little")
CFG_STEPS = steps([0, 1, 4], st.one_of(st.integers(0, 0x30), st.just(BASE_SWAPPED), st.integers(0, 0xFFFFFFFF)))


@settings(deadline=None)
@given(CFG_STEPS, CFG_STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(CfgRig, before, after)


def test_items_at_the_data_port() -> None:
    rig = CfgRig()
    assert rig.item(0, 6) == b"QEMU\0\0"
    assert rig.item(1, 4) == b"\x03\0\0\0"
    assert rig.item(5, 2) == b"\x01\0"
    assert rig.item(0x77, 2) == b"\0\0", "there is no such item"


def test_directory_of_files() -> None:
    rig = CfgRig()
    (count,) = struct.unpack(">I", rig.item(0x19, 4))
    entries = [struct.unpack(">IHH56s", rig.item(0x19, 4 + 64 * count)[4 + 64 * n : 68 + 64 * n]) for n in range(count)]
    assert [(size, name.rstrip(b"\0")) for size, _, _, name in entries] == [(1, b"bootorder"), (11, b"etc/b")]
    assert rig.item(entries[1][1], 11) == b"second file"


def test_dma() -> None:
    rig = CfgRig()
    assert rig.device.dma.read(0, 4) == int.from_bytes(b"QEMU", "little")
    assert rig.device.dma.read(0, 8) == int.from_bytes(b"QEMU CFG", "little")
    assert rig.start(0x00210008 | 2, 6, RAM_BASE + 0x100) == 0
    assert rig.memory.read(RAM_BASE + 0x100, 6) == b"second"
    assert rig.start(4, 1, 0) == 0
    assert rig.start(2, 8, RAM_BASE + 0x100) == 0
    assert rig.memory.read(RAM_BASE + 0x100, 8) == b"file\0\0\0\0"
    assert rig.start(0x10, 1, RAM_BASE) == 1, "nothing can be written"
    assert rig.start(2, 8, 0x10) == 1, "not RAM"


def test_a_command_outside_ram_is_ignored() -> None:
    rig = CfgRig()
    writes = len(rig.memory.writes)
    rig.device.dma.write(0, 8, 0xFFFF_FFFF_FFFF_FFFF)
    assert len(rig.memory.writes) == writes


def test_debug_ports() -> None:
    seen: list[Any] = []
    console = DebugConsole("debugcon", seen.append)
    assert console.read(0, 1) == 0xE9
    console.write(0, 1, 0x41)
    leave = DebugExit("debug-exit", 4, seen.append)
    assert leave.read(0, 4) == 0
    leave.write(0, 4, 0x10)
    assert seen == [b"A", 0x10]
