"""PCI configuration, windows that move, and the PIIX3's interrupt routing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from timevm.engine.devices.base import Device
from timevm.engine.devices.pci_bus import PciBus
from timevm.engine.devices.pci_function import (
    BARS,
    COMMAND,
    COMMAND_IO,
    COMMAND_MEMORY,
    Bar,
    Identity,
    PciFunction,
)
from timevm.engine.devices.pci_i440fx import I440fx
from timevm.engine.devices.pci_piix3 import ROUTES, Piix3Isa
from timevm.engine.devices.shared_lines import SharedLines
from timevm.errors import InternalError


class Registers:
    """What is behind a base address register: remembers writes, reads as its offset."""

    def __init__(self) -> None:
        self.writes: list[tuple[int, int, int]] = []

    def read(self, offset: int, size: int) -> int:
        return offset

    def write(self, offset: int, size: int, value: int) -> None:
        self.writes.append((offset, size, value))


class BusRig:
    """A host bridge, an ISA bridge with its lines, and a function with ports and memory in slot 3."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.levels: dict[int, bool] = {}
        self.lines = SharedLines("lines", 16, self.line_changed)
        self.bus = PciBus("pci", lambda: self.log.append("reset"))
        self.registers = Registers()
        self.isa = Piix3Isa("isa", self.lines)
        self.card = PciFunction(
            "card",
            Identity(0x1AF4, 0x1000, 0x010000),
            [Bar(0, 32, True, self.registers), Bar(1, 4096, False, self.registers)],
            pin=1,
        )
        self.wires = [self.isa.interrupt(slot, 1) for slot in range(1, 5)]
        for slot, function in ((0, I440fx("bridge")), (1, self.isa), (3, self.card)):
            self.bus.add(slot, 0, function)
        self.device = self
        self.windows: list[Device] = [self.bus.address, self.bus.data]

    def line_changed(self, number: int, level: bool) -> None:
        self.levels[number] = level
        self.log.append((number, level))

    # Rig and Stateful

    def outside(self, number: int) -> None:
        self.wires[number % 4].set(bool(number >> 2 & 1))

    def calls(self) -> list[Any]:
        return self.log

    def surroundings(self) -> None: ...

    def restore_surroundings(self, state: Any) -> None: ...

    def _parts(self) -> list[Any]:
        return [self.bus, self.lines, *self.bus.functions.values()]

    def reset(self) -> None:
        for part in self._parts():
            part.reset()

    def state(self) -> dict[str, Any]:
        return {part.name: part.state() for part in self._parts()}

    def restore(self, state: dict[str, Any]) -> None:
        for part in self._parts():
            part.restore(state[part.name])

    # the guest

    def config(self, slot: int, offset: int, size: int = 4, value: int | None = None) -> int:
        self.bus.address.write(0, 4, 0x8000_0000 | slot << 11 | offset & 0xFC)
        if value is None:
            return self.bus.data.read(offset & 3, size)
        self.bus.data.write(offset & 3, size, value)
        return value


PCI_STEPS = steps(
    [0, 1, 2, 3],
    st.one_of(
        st.integers(0, 0xFFFFFFFF),
        st.builds(
            lambda slot, offset: 0x8000_0000 | slot << 11 | offset,
            st.sampled_from([0, 1, 2, 3]),
            st.sampled_from([0x00, 0x04, 0x10, 0x14, 0x3C, 0x60, 0x58]),
        ),
    ),
)


@settings(deadline=None)
@given(PCI_STEPS, PCI_STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(BusRig, before, after)


def test_identification_and_empty_slots() -> None:
    rig = BusRig()
    assert rig.config(0, 0) == 0x1237_8086 and rig.config(0, 0x2C) == 0x1100_1AF4
    assert rig.config(1, 0) == 0x7000_8086 and rig.config(1, 0x0E, 1) == 0x80
    assert rig.config(2, 0) == 0xFFFF_FFFF and rig.config(31, 0, 2) == 0xFFFF
    rig.bus.address.write(0, 4, 0x8001_0000)
    assert rig.bus.data.read(0, 4) == 0xFFFF_FFFF, "there is only bus 0"
    rig.bus.address.write(0, 4, 0)
    assert rig.bus.data.read(0, 4) == 0xFFFF_FFFF, "not enabled"


def test_mechanism_1_is_found_as_linux_looks_for_it() -> None:
    rig = BusRig()
    rig.bus.address.write(0, 4, 0x8000_0000)
    assert rig.bus.address.read(0, 4) == 0x8000_0000
    rig.bus.address.write(3, 1, 1)
    assert rig.bus.address.read(0, 4) == 0x8000_0000, "bytes are not for the address register"


def test_sizes_of_base_address_registers() -> None:
    rig = BusRig()
    for index, size, flag in ((0, 32, 1), (1, 4096, 0)):
        offset = BARS + 4 * index
        assert rig.config(3, offset) == flag
        rig.config(3, offset, 4, 0xFFFF_FFFF)
        assert rig.config(3, offset) == 0x1_0000_0000 - size | flag
    rig.config(3, BARS + 8, 4, 0xFFFF_FFFF)
    assert rig.config(3, BARS + 8) == 0


def test_windows_follow_the_registers() -> None:
    rig = BusRig()
    rig.config(3, BARS, 4, 0xC040)
    rig.config(3, BARS + 4, 4, 0xFEB0_0000)
    assert rig.bus.ports.read(0xC044, 1) == 0xFF
    rig.config(3, COMMAND, 2, COMMAND_IO)
    assert rig.bus.ports.read(0xC044, 1) == 4 and rig.bus.memory.read(0xFEB0_0010, 4) == 0xFFFF_FFFF
    rig.config(3, COMMAND, 2, COMMAND_IO | COMMAND_MEMORY)
    assert rig.bus.memory.read(0xFEB0_0010, 4) == 0x10
    rig.config(3, BARS, 4, 0xD000)
    rig.bus.ports.write(0xD001, 2, 0x1234)
    assert rig.registers.writes == [(1, 2, 0x1234)] and rig.bus.ports.read(0xC040, 2) == 0xFFFF
    saved = rig.state()
    rig.reset()
    assert rig.bus.ports.read(0xD000, 1) == 0xFF
    rig.restore(saved)
    assert rig.bus.ports.read(0xD004, 1) == 4


def test_configuration_by_bytes() -> None:
    rig = BusRig()
    for index in range(4):
        rig.config(3, BARS + 4 + index, 1, 0xAA)
    assert rig.config(3, BARS + 4) == 0xAAAA_A000
    assert rig.config(3, BARS + 6, 2) == 0xAAAA


def test_capabilities_are_a_list() -> None:
    function = PciFunction("card", Identity(1, 2, 3))
    first = function.add_capability(9, b"\x06abc")
    second = function.add_capability(5, b"xy")
    assert function.config_read(6, 2) & 0x10
    assert function.config_read(0x34, 1) == first == 0x40
    assert function.config_read(first + 1, 1) == second == 0x48
    assert function.config_read(second, 4) == 0x7978_0005


def test_reset_control() -> None:
    rig = BusRig()
    rig.bus.address.write(1, 1, 2)
    assert rig.log == [] and rig.bus.address.read(1, 1) == 2
    rig.bus.address.write(1, 1, 6)
    assert rig.log == ["reset"]


def test_interrupt_routing() -> None:
    rig = BusRig()
    rig.wires[2].set(True)  # slot 3, INTA: wire C
    assert rig.log == [], "wires lead nowhere at power-on"
    rig.config(1, ROUTES, 4, 0x0B0B0A0A)
    assert rig.levels == {11: True}
    rig.wires[3].set(True)
    rig.wires[2].set(False)
    assert rig.levels[11], "another wire is still up"
    rig.config(1, ROUTES + 3, 1, 0x85)
    assert not rig.levels[11]
    rig.config(1, ROUTES + 3, 1, 0x05)
    assert rig.levels[5]
    rig.config(1, ROUTES + 3, 1, 0x0D)
    assert not rig.levels[5], "IRQ 13 cannot be chosen"


def test_pins_rotate_over_slots() -> None:
    rig = BusRig()
    rig.config(1, ROUTES, 4, 0x0A09_0605)
    seen = {}
    for slot, wire in zip(range(1, 5), rig.wires, strict=True):
        wire.set(True)
        seen[slot] = next(number for number, level in rig.levels.items() if level)
        wire.set(False)
    assert seen == {1: 5, 2: 6, 3: 9, 4: 10}


def test_impossible_boards() -> None:
    rig = BusRig()
    with pytest.raises(InternalError):
        rig.bus.add(3, 0, rig.card)
    with pytest.raises(InternalError):
        PciFunction("odd", Identity(1, 1, 0), [Bar(0, 48, True, rig.registers)])
    assert rig.bus.free_slot(2) == 2 and rig.bus.free_slot(3) == 4


def test_shared_lines() -> None:
    calls: list[tuple[int, bool]] = []
    lines = SharedLines("lines", 4, lambda number, level: calls.append((number, level)))
    first, second, other = lines.source(1), lines.source(1), lines.source(2)
    for source, level in ((first, True), (second, True), (first, False), (first, False), (second, False)):
        source.set(level)
    other.set(True)
    assert calls == [(1, True), (1, False), (2, True)]
