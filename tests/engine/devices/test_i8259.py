"""The interrupt controllers against Intel 231468: a slow model of one chip, and the rules of the pair."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.wires import Wire
from timevm.engine.devices.base import Device
from timevm.engine.devices.i8259 import I8259, POLL_REQUEST
from timevm.engine.devices.i8259_pair import I8259Pair
from timevm.errors import InternalError

IRQS = [0, 1, *range(3, 16)]


class PairRig:
    def __init__(self) -> None:
        self.wire = Wire()
        self.device = I8259Pair("pic", self.wire)
        self.windows: list[Device] = [self.device.master, self.device.slave, self.device.edge_level]

    def outside(self, number: int) -> None:
        if number & 0x100:
            self.device.acknowledge()
        else:
            self.device.set_input(IRQS[number % len(IRQS)], bool(number >> 4 & 1))

    def calls(self) -> list[Any]:
        return list(self.wire.calls)

    def surroundings(self) -> None: ...

    def restore_surroundings(self, state: Any) -> None: ...

    def started(self) -> PairRig:
        """As every PC starts them: vectors 20h and 28h, nothing masked."""
        for window, base, wiring in ((self.windows[0], 0x20, 4), (self.windows[1], 0x28, 2)):
            window.write(0, 1, 0x11)
            for word in (base, wiring, 1):
                window.write(1, 1, word)
        return self


PAIR_STEPS = steps([0, 1], st.one_of(st.integers(0, 255), st.sampled_from([0x11, 0x20, 0x60, 0x0B, 0x0C, 0x68])))


@settings(deadline=None)
@given(PAIR_STEPS, PAIR_STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(PairRig, before, after)


@dataclass
class Slow:
    """One chip as a list of what is asked for and a list of what runs; priorities as a list of inputs."""

    order: list[int] = field(default_factory=lambda: list(range(8)))
    requests: set[int] = field(default_factory=set)
    running: set[int] = field(default_factory=set)
    masked: set[int] = field(default_factory=set)
    high: set[int] = field(default_factory=set)
    level: set[int] = field(default_factory=set)
    special_mask: bool = False
    auto_eoi: bool = False
    rotating: bool = False

    def asking(self) -> int | None:
        for number in self.order:
            if number in self.running and not (self.special_mask and number in self.masked):
                return None
            if number in self.requests and number not in self.masked:
                return number
        return None

    def lowest(self, number: int) -> None:
        self.order = [(number + distance) % 8 for distance in range(1, 9)]

    def wire(self, number: int, level: bool) -> None:
        if level and (number not in self.high or number in self.level):
            self.requests.add(number)
        if not level and number in self.level:
            self.requests.discard(number)
        (self.high.add if level else self.high.discard)(number)

    def acknowledge(self) -> int:
        number = self.asking()
        if number is None:
            return 7
        if number not in self.level:
            self.requests.discard(number)
        if not self.auto_eoi:
            self.running.add(number)
        elif self.rotating:
            self.lowest(number)
        return number

    def end(self, rotate: bool) -> None:
        for number in self.order:
            if number in self.running and not (self.special_mask and number in self.masked):
                self.running.discard(number)
                if rotate:
                    self.lowest(number)
                return


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["wire", "wire", "take", "take", "poll", "mask", "end", "end one", "lowest", "special"]),
        st.integers(0, 7),
        st.integers(0, 255),
    ),
    max_size=80,
)


@settings(max_examples=400, deadline=None)
@given(MOVES, st.integers(0, 255), st.booleans(), st.booleans())
def test_one_chip_agrees_with_the_slow_model(
    moves: list[tuple[str, int, int]], level: int, auto_eoi: bool, rotating: bool
) -> None:
    wire = Wire()
    chip = I8259("chip", wire.set)
    slow = Slow(level={n for n in range(8) if level >> n & 1}, auto_eoi=auto_eoi, rotating=rotating)
    chip.set_level_triggered(level)
    chip.write(0, 1, 0x13)
    chip.write(1, 1, 0x08)
    chip.write(1, 1, 3 if auto_eoi else 1)
    if rotating:
        chip.write(0, 1, 0x80)
    for move, number, value in moves:
        match move:
            case "wire":
                chip.set_input(number, bool(value & 1))
                slow.wire(number, bool(value & 1))
            case "take":
                assert chip.acknowledge() == slow.acknowledge()
            case "poll":
                chip.write(0, 1, 0x0C)
                asked = slow.asking() is not None
                assert chip.read(value & 1, 1) == (POLL_REQUEST | slow.acknowledge() if asked else 0)
            case "mask":
                chip.write(1, 1, value)
                slow.masked = {n for n in range(8) if value >> n & 1}
            case "end":
                chip.write(0, 1, 0xA0 if value & 1 else 0x20)
                slow.end(bool(value & 1))
            case "end one":
                chip.write(0, 1, (0xE0 if value & 1 else 0x60) | number)
                slow.running.discard(number)
                if value & 1:
                    slow.lowest(number)
            case "lowest":
                chip.write(0, 1, 0xC0 | number)
                slow.lowest(number)
            case "special":
                chip.write(0, 1, 0x68 if value & 1 else 0x48)
                slow.special_mask = bool(value & 1)
        assert wire.level == (slow.asking() is not None)
        chip.write(0, 1, 0x0A)
        assert chip.read(0, 1) == sum(1 << n for n in slow.requests)
        chip.write(0, 1, 0x0B)
        assert chip.read(0, 1) == sum(1 << n for n in slow.running)
        assert chip.read(1, 1) == sum(1 << n for n in slow.masked)


def test_vectors_of_the_pair() -> None:
    for number in IRQS:
        rig = PairRig().started()
        rig.device.line(number).set(True)
        assert rig.wire.level
        assert rig.device.acknowledge() == 0x20 + number
        assert not rig.wire.level


def test_no_request_is_a_spurious_one() -> None:
    rig = PairRig().started()
    assert rig.device.acknowledge() == 0x27
    rig.windows[2].write(1, 1, 0x02)  # IRQ 9 is level-triggered
    rig.device.set_input(9, True)
    rig.device.set_input(9, False)
    assert rig.wire.level and rig.device.acknowledge() == 0x2F
    rig.windows[0].write(0, 1, 0x0B)
    assert rig.windows[0].read(0, 1) == 4, "the cascade is in service, the slave has nothing"


def test_slave_requests_follow_one_another() -> None:
    rig = PairRig().started()
    for number in (8, 9, 10):
        rig.device.set_input(number, True)
    for number in (8, 9, 10):
        assert rig.wire.level and rig.device.acknowledge() == 0x20 + number
        assert not rig.wire.level
        rig.windows[1].write(0, 1, 0x20)
        rig.windows[0].write(0, 1, 0x20)
    assert not rig.wire.level


def test_slave_in_auto_eoi_mode_loses_nothing() -> None:
    rig = PairRig()
    for window, base, wiring in ((rig.windows[0], 0x20, 4), (rig.windows[1], 0x28, 2)):
        for offset, word in ((0, 0x11), (1, base), (1, wiring), (1, 3)):
            window.write(offset, 1, word)
    for number in (8, 9, 10):
        rig.device.set_input(number, True)
    assert [rig.device.acknowledge() for _ in range(3)] == [0x28, 0x29, 0x2A]


def test_special_fully_nested_mode() -> None:
    rig = PairRig()
    for window, base, wiring in ((rig.windows[0], 0x20, 4), (rig.windows[1], 0x28, 2)):
        for offset, word in ((0, 0x11), (1, base), (1, wiring), (1, 0x11)):
            window.write(offset, 1, word)
    rig.device.set_input(10, True)
    assert rig.device.acknowledge() == 0x2A
    rig.device.set_input(9, True)
    assert rig.wire.level, "a higher request of the slave comes in while a lower one is served"
    assert rig.device.acknowledge() == 0x29


def test_level_interrupt_comes_again_until_its_wire_falls() -> None:
    rig = PairRig().started()
    rig.windows[2].write(1, 1, 0xFF)
    assert rig.windows[2].read(0, 2) == 0xDE00
    rig.device.set_input(11, True)
    for _ in range(2):
        assert rig.device.acknowledge() == 0x2B
        rig.windows[1].write(0, 1, 0x20)
        rig.windows[0].write(0, 1, 0x20)
        assert rig.wire.level
    rig.device.set_input(11, False)
    rig.device.acknowledge()
    rig.windows[0].write(0, 1, 0x20)
    assert not rig.wire.level


def test_initialisation_forgets_edges_and_masks() -> None:
    rig = PairRig().started()
    rig.windows[0].write(1, 1, 0xFF)
    rig.device.set_input(4, True)
    rig.windows[0].write(1, 1, 0)
    assert rig.wire.level
    rig.started()
    assert not rig.wire.level and rig.windows[0].read(1, 1) == 0
    rig.device.set_input(4, False)
    rig.device.set_input(4, True)
    assert rig.wire.level


def test_wires_that_do_not_exist() -> None:
    for number in (-1, 2, 16):
        with pytest.raises(InternalError):
            PairRig().device.line(number)
