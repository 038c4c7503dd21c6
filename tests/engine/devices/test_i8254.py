"""The interval timer against Intel 231164: a model that counts every tick, and single rules."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.wires import ManualTime, Wire
from timevm.engine.devices.i8254 import CONTROL, FREQUENCY, I8254, SECOND_NS
from timevm.engine.devices.i8254_counter import Counter
from timevm.engine.devices.system_control import Port61, Port92


class TimerRig:
    def __init__(self) -> None:
        self.log: list[Any] = []
        self.wire = Wire(self.log)
        self.time = ManualTime(self.log)
        self.device = I8254("pit", self.wire, self.time)
        self.port = Port61("port61", self.device, self.time)
        self.windows = [self.device]
        self.timer = self.time.timers["pit.rise"]

    def outside(self, number: int) -> None:
        if number & 0x8000:
            self.device.set_speaker_gate(bool(number & 1))
        else:
            self.time.advance(number * 400)

    def calls(self) -> list[Any]:
        return self.log

    def surroundings(self) -> Any:
        return self.time.now, self.timer.deadline

    def restore_surroundings(self, state: Any) -> None:
        self.time.now, self.timer.deadline = state

    def ticks(self, count: int) -> None:
        """Until the ``count``-th tick from now has just come."""
        tick = self.time.now * FREQUENCY // SECOND_NS + count
        self.time.advance(-(-tick * SECOND_NS // FREQUENCY) - self.time.now)

    def program(self, number: int, mode: int, count: int) -> None:
        self.device.write(CONTROL, 1, number << 6 | 0x30 | mode << 1)
        self.device.write(number, 1, count & 0xFF)
        self.device.write(number, 1, count >> 8)

    def count(self, number: int) -> int:
        self.device.write(CONTROL, 1, number << 6)
        return self.device.read(number, 1) | self.device.read(number, 1) << 8


TIMER_STEPS = steps([0, 1, 2, 3], st.one_of(st.integers(0, 255), st.sampled_from([0x34, 0x36, 0x30, 0x38, 0xB6, 0xE2])))


@settings(deadline=None)
@given(TIMER_STEPS, TIMER_STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(TimerRig, before, after)


class Ticking:
    """A counter that counts, tick by tick, as chapter "mode definitions" tells it; counts in binary."""

    def __init__(self, mode: int, gate: bool) -> None:
        self.mode, self.gate = mode, gate
        self.out = mode != 0
        self.value: int | None = None
        self.register: int | None = None  # CR: the count as it was written
        self.load_next = False
        self.left: int | None = None  # ticks until the end of the cycle, half cycle or one-shot

    def write(self, count: int) -> None:
        self.register = count or 0x10000
        if self.mode in (0, 4) or (self.mode in (2, 3) and self.left is None):
            self.load_next = True
            self.out = self.mode != 0
            self.left = None

    def edge(self, gate: bool) -> None:
        rising, self.gate = gate and not self.gate, gate
        if rising and self.mode in (1, 2, 3, 5) and self.register is not None:
            self.load_next = True
            self.left = None
        if not gate and self.mode in (2, 3):
            self.out = True

    def tick(self) -> None:
        if self.load_next:
            if self.mode in (2, 3) and not self.gate:
                return
            self.load_next = False
            assert self.register is not None
            self.left = self.register
            if self.mode in (1, 5):
                self.out = self.mode == 5
            if self.mode in (3,):
                self.out = True
                self.left = (self.register + 1) // 2
            return
        if self.left is None or (not self.gate and self.mode in (0, 2, 3, 4)):
            return
        self.left -= 1
        if self.mode in (4, 5):
            self.out = self.left != 0
        elif self.mode == 2:
            self.out = self.left != 1
            if self.left == 0:
                assert self.register is not None
                self.left, self.out = self.register, self.register != 1
        elif self.mode == 3 and self.left == 0:
            assert self.register is not None
            self.out = not self.out
            self.left = (self.register + 1) // 2 if self.out else self.register // 2
        elif self.mode in (0, 1) and self.left == 0:
            self.out = True


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(2, 9)),
        st.tuples(st.just("gate"), st.integers(0, 1)),
        st.tuples(st.just("wait"), st.integers(1, 12)),
        st.tuples(st.just("wait"), st.integers(1, 12)),
    ),
    max_size=25,
)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 5), MOVES, st.booleans())
def test_output_agrees_with_a_counter_that_ticks(mode: int, moves: list[tuple[str, int]], gate: bool) -> None:
    counter, model, tick = Counter(gate), Ticking(mode, gate), 100
    counter.control(0x10 | mode << 1)
    for move, value in moves:
        if move == "write":
            counter.write(value, tick)
            model.write(value)
        elif move == "gate":
            counter.set_gate(bool(value), tick)
            model.edge(bool(value))
        else:
            rise = counter.next_rise(tick)
            for _ in range(value):
                before = model.out
                model.tick()
                tick += 1
                if model.out and not before and not model.load_next:
                    assert rise == tick
                    rise = counter.next_rise(tick)
                assert rise is None or rise > tick
                assert counter.output(tick) == model.out, tick
        assert counter.output(tick) == model.out


@settings(deadline=None)
@given(st.sampled_from([2, 3]), st.integers(2, 0xFFFF), st.integers(0, 5))
def test_periodic_interrupts_keep_their_rate(mode: int, count: int, shift: int) -> None:
    rig = TimerRig()
    rig.program(0, mode, count)
    begin, rises = rig.time.now, []
    for _ in range(20):
        assert rig.timer.deadline is not None
        # a machine sees the deadline at an instruction: up to 2**shift ns later
        deadline = -(-rig.timer.deadline >> shift) << shift
        rig.time.advance(deadline - rig.time.now)
        rises.append(rig.time.now)
    period = count * SECOND_NS / FREQUENCY
    for number, at in enumerate(rises):
        assert abs(at - begin - (number + 1) * period) <= SECOND_NS / FREQUENCY * 2 + (1 << shift)
    assert rig.wire.calls == [True, *[False, True] * 20]


def test_linux_one_shot_rings_once() -> None:
    """Mode 4: OUT is high, and comes up again one tick after terminal count."""
    rig = TimerRig()
    rig.program(0, 4, 1000)
    assert rig.wire.level
    rig.ticks(1001)
    assert rig.wire.calls == [True]
    rig.ticks(1)
    assert rig.wire.calls == [True, False, True]
    assert rig.timer.deadline is None


def test_mode_0_goes_low_at_once_and_high_at_the_end() -> None:
    rig = TimerRig()
    rig.device.write(CONTROL, 1, 0x30)
    assert not rig.wire.level
    rig.device.write(0, 1, 10)
    rig.device.write(0, 1, 0)
    rig.ticks(10)
    assert not rig.wire.level
    rig.ticks(1)
    assert rig.wire.level


@settings(deadline=None)
@given(st.integers(1, 0xFFFF), st.integers(0, 70_000))
def test_latched_count(count: int, waited: int) -> None:
    rig = TimerRig()
    rig.program(1, 0, count)
    rig.ticks(1 + waited)
    assert rig.count(1) == (count - waited) & 0xFFFF


def test_a_latch_holds_until_it_is_read() -> None:
    rig = TimerRig()
    rig.program(1, 2, 1000)
    rig.ticks(101)
    rig.device.write(CONTROL, 1, 0x40)
    rig.ticks(50)
    rig.device.write(CONTROL, 1, 0x40)
    assert rig.device.read(1, 1) | rig.device.read(1, 1) << 8 == 900
    assert rig.device.read(1, 1) | rig.device.read(1, 1) << 8 == 850


def test_square_wave_counts_by_two() -> None:
    rig = TimerRig()
    rig.program(1, 3, 10)
    rig.ticks(1)
    seen = []
    for _ in range(10):
        seen.append(rig.count(1))
        rig.ticks(1)
    assert seen == [10, 8, 6, 4, 2, 10, 8, 6, 4, 2]


def test_decimal_counts() -> None:
    rig = TimerRig()
    rig.device.write(CONTROL, 1, 0x71)
    rig.device.write(1, 1, 0x00)
    rig.device.write(1, 1, 0x10)
    rig.ticks(2)
    assert rig.count(1) == 0x0999
    rig.ticks(1000)
    assert rig.count(1) == 0x9999


def test_read_back_status() -> None:
    rig = TimerRig()
    rig.device.write(CONTROL, 1, 0x36)
    rig.device.write(CONTROL, 1, 0xE2)
    assert rig.device.read(0, 1) == 0xC0 | 0x36
    rig.program(0, 3, 100)
    rig.ticks(61)
    rig.device.write(CONTROL, 1, 0xC2)
    assert rig.device.read(0, 1) == 0x36
    assert rig.device.read(0, 1) | rig.device.read(0, 1) << 8 == 80


def test_speaker_gate_as_linux_calibrates_with_it() -> None:
    rig = TimerRig()
    rig.port.write(0, 1, 0)
    rig.program(2, 0, 500)
    rig.ticks(1000)
    assert not rig.port.read(0, 1) & 0x20
    rig.port.write(0, 1, 1)
    rig.ticks(499)
    assert not rig.port.read(0, 1) & 0x20
    rig.ticks(1)
    assert rig.port.read(0, 1) & 0x21 == 0x21


def test_refresh_bit_toggles_with_time() -> None:
    rig = TimerRig()
    seen = set()
    for _ in range(4):
        seen.add(rig.port.read(0, 1) & 0x10)
        rig.time.advance(15_085)
    assert seen == {0, 0x10}
    rig.port.write(0, 1, 0xFF)
    assert rig.port.state() == {"stored": 0x0E}


def test_port_92_resets_at_a_rising_bit() -> None:
    resets: list[None] = []
    gate = Wire()
    port = Port92("port92", gate, lambda: resets.append(None))
    port.write(0, 1, 2)
    port.write(0, 1, 3)
    port.write(0, 1, 3)
    assert len(resets) == 1 and port.read(0, 1) == 3 and gate.level
    port.write(0, 1, 0)
    assert not gate.level


def test_a_timer_armed_before_a_reset_does_not_ring() -> None:
    rig = TimerRig()
    rig.program(0, 2, 100)
    rig.device.reset()
    rig.ticks(1000)
    assert rig.wire.calls == [True]
