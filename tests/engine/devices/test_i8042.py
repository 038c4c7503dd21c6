"""The keyboard controller and its idle keyboard against IBM's technical reference."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.wires import Wire
from timevm.engine.devices.base import Device
from timevm.engine.devices.i8042 import I8042
from timevm.engine.devices.ps2_keyboard import Ps2Keyboard


class KeyboardRig:
    def __init__(self) -> None:
        self.log: list[Any] = []
        self.wire = Wire(self.log)
        self.gate = Wire()
        self.device = I8042("keyboard", self.wire, self.gate, lambda: self.log.append("reset"))
        self.windows: list[Device] = [self.device.data, self.device.command]

    def outside(self, number: int) -> None:
        """Nobody types."""

    def calls(self) -> list[Any]:
        return self.log

    def surroundings(self) -> None: ...

    def restore_surroundings(self, state: Any) -> None: ...

    def command(self, value: int, parameter: int | None = None) -> None:
        self.device.command.write(0, 1, value)
        if parameter is not None:
            self.device.data.write(0, 1, parameter)

    def status(self) -> int:
        return self.device.command.read(0, 1)

    def answers(self) -> list[int]:
        got = []
        while self.status() & 1:
            assert self.wire.level == bool(self.device.state()["ram"][0] & 1)
            got.append(self.device.data.read(0, 1))
        assert not self.wire.level
        return got


KEYBOARD_STEPS = steps([0], st.integers(0, 255))


@settings(deadline=None)
@given(KEYBOARD_STEPS, KEYBOARD_STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(KeyboardRig, before, after)


@settings(deadline=None)
@given(st.lists(st.integers(0, 255), max_size=30))
def test_the_keyboard_answers_every_byte(sent: list[int]) -> None:
    keyboard = Ps2Keyboard()
    for byte in sent:
        assert 1 <= len(keyboard.command(byte)) <= 3
    assert keyboard.command(0xFF) == (0xFA, 0xAA)


def test_self_test_sets_the_system_flag() -> None:
    rig = KeyboardRig()
    assert rig.status() == 0x10
    rig.command(0xAA)
    assert rig.status() == 0x1D and rig.answers() == [0x55]


def test_keyboard_test_and_identification() -> None:
    rig = KeyboardRig()
    rig.command(0xAB)
    assert rig.answers() == [0]
    rig.device.data.write(0, 1, 0xF2)
    assert rig.answers() == [0xFA, 0xAB, 0x41], "translated"
    rig.command(0x60, 0x01)
    rig.device.data.write(0, 1, 0xF2)
    assert rig.answers() == [0xFA, 0xAB, 0x83]
    rig.device.data.write(0, 1, 0xFF)
    assert rig.answers() == [0xFA, 0xAA]
    for byte in (0xED, 0x02, 0xF3, 0x00, 0xF4, 0xF0, 0x03):
        rig.device.data.write(0, 1, byte)
        assert rig.answers() == [0xFA]
    rig.device.data.write(0, 1, 0xF0)
    rig.device.data.write(0, 1, 0)
    assert rig.answers() == [0xFA, 0xFA, 3]
    rig.device.data.write(0, 1, 0x12)
    assert rig.answers() == [0xFE]


def test_command_byte() -> None:
    rig = KeyboardRig()
    rig.command(0x60, 0xFF)
    rig.command(0x20)
    assert rig.answers() == [0x5F], "no second port: its bit stays clear"
    rig.command(0xAD)
    rig.command(0x20)
    assert rig.answers() == [0x5F]
    rig.command(0xAE)
    rig.command(0x20)
    assert rig.answers() == [0x4F]


def test_a_disabled_keyboard_keeps_its_bytes() -> None:
    rig = KeyboardRig()
    rig.device.data.write(0, 1, 0xEE)
    rig.device.data.write(0, 1, 0xEE)
    assert rig.device.data.read(0, 1) == 0xEE
    rig.command(0xAD)
    rig.device.data.read(0, 1)
    assert not rig.status() & 1
    rig.device.data.write(0, 1, 0xF5)
    assert rig.answers() == [0xFA], "a byte for the keyboard enables it"


def test_there_is_no_second_port() -> None:
    """As Linux looks for one: loop back, then the port's own test."""
    rig = KeyboardRig()
    rig.command(0xD3, 0x5A)
    assert not rig.status() & 0x20 and rig.answers() == [0x5A]
    rig.command(0xA9)
    assert rig.answers() == [1]
    rig.command(0xA8)
    rig.command(0x20)
    assert not rig.answers()[0] & 0x20


def test_reset_lines() -> None:
    rig = KeyboardRig()
    rig.command(0xFF)
    assert "reset" not in rig.log
    rig.command(0xFE)
    assert rig.log.count("reset") == 1
    rig.command(0xD1, 0xCF)
    rig.command(0xD0)
    assert rig.answers() == [0xCF] and rig.log.count("reset") == 1
    rig.command(0xD1, 0xCE)
    assert rig.log.count("reset") == 2


def test_gate_a20() -> None:
    rig = KeyboardRig()
    for command, gate in ((0xDD, 0), (0xDF, 2)):
        rig.command(command)
        rig.command(0xD0)
        assert rig.answers()[0] & 2 == gate and rig.gate.level == bool(gate)


def test_interrupt_only_when_enabled() -> None:
    rig = KeyboardRig()
    rig.command(0x60, 0x40)
    rig.device.data.write(0, 1, 0xEE)
    assert rig.status() & 1 and not rig.wire.level
