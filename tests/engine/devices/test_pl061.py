"""The PL061 against DDI 0190, and the button on one of its lines."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.wires import ManualTime, Wire
from timevm.engine.devices.gpio_key import HELD_NS, GpioKey
from timevm.engine.devices.pl061 import AFSEL, DIR, IBE, IC, IE, IEV, IS, MIS, RIS, Pl061
from timevm.errors import InternalError

DATA = 0x3FC  # GPIODATA with all lines addressed


class GpioRig:
    def __init__(self) -> None:
        self.wire = Wire()
        self.device = Pl061("gpio", self.wire)
        self.windows = [self.device]

    def outside(self, number: int) -> None:
        self.device.set_pin(number & 7, bool(number & 8))

    def calls(self) -> list[Any]:
        return list(self.wire.calls)

    def surroundings(self) -> Any:
        return None

    def restore_surroundings(self, state: Any) -> None:
        pass

    def read(self, offset: int) -> int:
        return self.device.read(offset, 4)

    def write(self, offset: int, value: int) -> None:
        self.device.write(offset, 4, value)


GPIO_STEPS = steps([0, 0x20, DATA, DIR, IS, IBE, IEV, IE, RIS, MIS, IC, AFSEL, 0xFE0], st.integers(0, 0xFFFFFFFF))


@given(GPIO_STEPS, GPIO_STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(GpioRig, before, after)


def test_identification() -> None:
    rig = GpioRig()
    assert [rig.read(0xFE0 + 4 * n) for n in range(8)] == [0x61, 0x10, 0x04, 0x00, 0x0D, 0xF0, 0x05, 0xB1]


def test_power_on_state() -> None:
    rig = GpioRig()
    assert [rig.read(offset) for offset in (DATA, DIR, IS, IBE, IEV, IE, RIS, MIS, AFSEL)] == [0] * 9


@given(st.integers(0, 0xFF), st.integers(0, 0xFF), st.integers(0, 0xFF), st.integers(0, 0xFF), st.integers(0, 0xFF))
def test_the_address_says_which_lines_are_meant(pins: int, direction: int, value: int, lines: int, look: int) -> None:
    rig = GpioRig()
    for number in range(8):
        rig.device.line(number).set(bool(pins >> number & 1))
    rig.write(DIR, direction)
    rig.write(lines << 2, value)
    written = value & lines & direction
    assert rig.read(look << 2) == (written | pins & ~direction) & look
    rig.write(DIR, 0)
    assert rig.read(DATA) == pins
    rig.write(DIR, 0xFF)
    assert rig.read(DATA) == 0, "what is written to an input is lost, and an input's outputs are forgotten"


class SlowModel:
    """Interrupts of one input line at a time, as section 2.3.1 tells them."""

    def __init__(self) -> None:
        self.seen = [False] * 8

    def change(self, number: int, before: bool, now: bool, both: int, event: int, level_sensitive: int) -> None:
        if before == now or level_sensitive >> number & 1:
            return
        rising = now
        if both >> number & 1 or rising == bool(event >> number & 1):
            self.seen[number] = True


@given(st.integers(0, 0xFF), st.integers(0, 0xFF), st.integers(0, 0xFF), st.integers(0, 0xFF), st.data())
def test_interrupts_against_a_slow_model(sense: int, both: int, event: int, enabled: int, data: st.DataObject) -> None:
    rig, model = GpioRig(), SlowModel()
    for offset, value in ((IS, sense), (IBE, both), (IEV, event), (IE, enabled)):
        rig.write(offset, value)
    pins = [False] * 8
    moves = st.tuples(st.sampled_from(["set", "clear"]), st.integers(0, 0xFF), st.booleans())
    for kind, number, level in data.draw(st.lists(moves, max_size=40)):
        if kind == "set":
            number &= 7
            model.change(number, pins[number], level, both, event, sense)
            pins[number] = level
            rig.device.set_pin(number, level)
        else:
            rig.write(IC, number)
            model.seen = [seen and not number >> line & 1 for line, seen in enumerate(model.seen)]
        raw = 0
        for line in range(8):
            is_level = sense >> line & 1
            wanted = bool(event >> line & 1)
            raw |= int(pins[line] == wanted if is_level else model.seen[line]) << line
        assert rig.read(RIS) == raw
        assert rig.read(MIS) == raw & enabled
        assert rig.wire.level == bool(raw & enabled)


def test_an_output_raises_no_interrupt() -> None:
    rig = GpioRig()
    rig.write(DIR, 0xFF)
    rig.write(IE, 0xFF)
    rig.write(IBE, 0x0F)
    rig.write(IS, 0xF0)
    rig.write(IEV, 0xFF)
    for number in range(8):
        rig.device.set_pin(number, True)
    assert rig.read(RIS) == 0 and not rig.wire.level


def test_lines_that_are_not_there() -> None:
    for number in (-1, 8):
        with pytest.raises(InternalError):
            GpioRig().device.line(number)


class KeyRig:
    def __init__(self) -> None:
        self.log: list[Any] = []
        self.wire = Wire(self.log)
        self.time = ManualTime(self.log)
        self.device = GpioKey("power-key", self.wire, self.time)
        self.timer = self.time.timers["power-key.release"]

    windows = (Pl061("not looked at", Wire()),)

    def outside(self, number: int) -> None:
        if number & 1:
            self.device.press()
        self.time.advance(number * 1_000_000)

    def calls(self) -> list[Any]:
        return list(self.log)

    def surroundings(self) -> Any:
        return self.time.now, self.timer.deadline

    def restore_surroundings(self, state: Any) -> None:
        self.time.now, self.timer.deadline = state


NUMBERS = st.lists(st.builds(Step, st.just("outside"), st.integers(0, 300)), max_size=20)


@given(NUMBERS, NUMBERS)
def test_key_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(KeyRig, before, after)


def test_a_key_is_released_by_itself() -> None:
    rig = KeyRig()
    rig.device.press()
    rig.time.advance(HELD_NS // 2)
    rig.device.press()
    rig.time.advance(HELD_NS - 1)
    assert rig.wire.calls == [True]
    rig.time.advance(1)
    assert rig.wire.calls == [True, False]
    rig.device.press()
    rig.device.reset()
    rig.time.advance(HELD_NS)
    assert rig.wire.calls == [True, False, True], "a key that was reset says nothing any more"
