"""The GICv2 against IHI 0048B: a slow model that keeps each interrupt as an object, and single rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.wires import Wire
from timevm.engine.devices import gicv2_cpu_interface as gicc
from timevm.engine.devices import gicv2_distributor as gicd
from timevm.engine.devices.base import Device
from timevm.engine.devices.gicv2 import Gicv2
from timevm.errors import InternalError

SPIS = 40
COUNT = 32 + SPIS


class GicRig:
    def __init__(self, spi_count: int = SPIS) -> None:
        self.log: list[Any] = []
        self.irq, self.fiq = Wire(), Wire()
        self.device = Gicv2(spi_count, self.irq, self.fiq)
        self.windows: list[Device] = [self.device.distributor, self.device.cpu_interface]

    def outside(self, number: int) -> None:
        self.device.set_line(16 + number % (COUNT - 16), bool(number >> 8 & 1))

    def calls(self) -> list[Any]:
        return [*self.irq.calls, *self.fiq.calls]

    def surroundings(self) -> None: ...

    def restore_surroundings(self, state: Any) -> None: ...

    def distributor(self, offset: int, value: int | None = None, size: int = 4) -> int:
        return self._access(self.windows[0], offset, value, size)

    def cpu(self, offset: int, value: int | None = None, size: int = 4) -> int:
        return self._access(self.windows[1], offset, value, size)

    @staticmethod
    def _access(window: Any, offset: int, value: int | None, size: int) -> int:
        if value is None:
            return int(window.read(offset, size))
        window.write(offset, size, value)
        return value

    def enable(self, *interrupt_ids: int) -> None:
        for interrupt_id in interrupt_ids:
            self.distributor(gicd.ISENABLER + interrupt_id // 32 * 4, 1 << interrupt_id % 32)

    def start(self) -> None:
        self.distributor(gicd.CTLR, 3)
        self.cpu(gicc.CTLR, gicc.ENABLE_GROUP0 | gicc.ENABLE_GROUP1 | gicc.ACKNOWLEDGE_CONTROL)
        self.cpu(gicc.PMR, 0xFF)

    def priority(self, interrupt_id: int, priority: int) -> None:
        self.distributor(gicd.IPRIORITYR + interrupt_id, priority, size=1)


def started(*interrupt_ids: int) -> GicRig:
    rig = GicRig()
    rig.start()
    rig.enable(*interrupt_ids)
    return rig


GIC_OFFSETS = [
    *(gicd.CTLR, gicc.PMR, gicc.IAR, gicc.IAR, gicc.IAR, gicc.EOIR, gicc.EOIR, gicc.HPPIR, gicc.RPR, gicc.AIAR),
    *(gicc.AEOIR, gicc.DIR, gicc.BPR, gicc.ABPR, gicc.APR, gicc.NSAPR, gicd.SGIR, gicd.CPENDSGIR, gicd.SPENDSGIR),
    *(base + 4 * word for base in range(0x80, 0x400, 0x80) for word in range(3)),
    *(gicd.IPRIORITYR + 32, gicd.ITARGETSR + 32, gicd.ICFGR + 4, gicd.ICFGR + 8, 0xFE0),
]
GIC_STEPS = steps(GIC_OFFSETS, st.one_of(st.integers(0, 1023), st.integers(0, 0xFFFFFFFF), st.just(0x1F)))


def test_a_narrow_acknowledge_is_cut_and_a_wide_one_reads_on() -> None:
    interface = GicRig().device.cpu_interface
    assert interface.read(gicc.IAR, 4) == 1023
    assert interface.read(gicc.IAR, 1) == 0xFF and interface.read(gicc.IAR, 2) == 1023
    assert interface.read(gicc.IAR & ~7, 8) >> 32 == 1023 and interface.read(gicc.IAR, 8) & 0xFFFF_FFFF == 1023


@given(GIC_STEPS, GIC_STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(GicRig, before, after)


@dataclass
class Slow:
    """One interrupt of the model."""

    priority: int = 0
    enabled: bool = False
    latched: bool = False
    line: bool = False
    edge: bool = False
    active: bool = False
    group: int = 0

    @property
    def pending(self) -> bool:
        return self.latched or (self.line and not self.edge)


class SlowGic:
    """The rules of chapter 3 as directly as they can be said: lists, and a stack of running priorities."""

    def __init__(self) -> None:
        self.interrupts = [Slow(enabled=n < 16, edge=n < 16) for n in range(COUNT)]
        self.running: list[tuple[int, int]] = []  # (group priority, group), the most urgent one last
        self.mask, self.binary_point, self.eoi_mode = 0xFF, 0, False

    def group_priority(self, interrupt: Slow) -> int:
        # Table 3-2; the aliased binary point stays at its minimum here.
        dropped = 1 if interrupt.group else self.binary_point + 1
        return interrupt.priority >> dropped << dropped

    def highest(self) -> int:
        ready = [n for n, i in enumerate(self.interrupts) if i.pending and i.enabled and not i.active]
        return min(ready, key=lambda n: (self.interrupts[n].priority, n), default=1023)

    def signalled(self) -> int:
        best = self.highest()
        if best == 1023 or self.interrupts[best].priority >= self.mask:
            return 1023
        if self.running and self.group_priority(self.interrupts[best]) >= min(self.running)[0]:
            return 1023
        return best

    def acknowledge(self) -> int:
        best = self.signalled()
        if best != 1023:
            interrupt = self.interrupts[best]
            interrupt.latched, interrupt.active = False, True
            self.running.append((self.group_priority(interrupt), interrupt.group))
        return best

    def end(self, number: int) -> None:
        if self.running:
            group = self.interrupts[number].group
            mine = [entry for entry in self.running if entry[1] == group]
            if mine:
                self.running.remove(min(mine))
            if not self.eoi_mode:
                self.interrupts[number].active = False

    def line(self, number: int, level: bool) -> None:
        interrupt = self.interrupts[number]
        if level and not interrupt.line and interrupt.edge:
            interrupt.latched = True
        interrupt.line = level


NUMBERS = st.sampled_from([0, 1, 15, 16, 27, 31, 32, 33, 34, 63, 64, 65, COUNT - 1])
WIRES = st.sampled_from([16, 27, 31, 32, 33, 34, 63, 64, 65, COUNT - 1])
MOVES = st.one_of(
    st.tuples(st.just("line"), WIRES, st.integers(0, 1)),
    st.tuples(st.just("acknowledge"), st.just(0), st.just(0)),
    st.tuples(st.just("end"), NUMBERS, st.just(0)),
    st.tuples(st.just("end running"), st.just(0), st.just(0)),
    st.tuples(st.just("deactivate"), NUMBERS, st.just(0)),
    st.tuples(st.just("enable"), NUMBERS, st.integers(0, 1)),
    st.tuples(st.just("pend"), WIRES, st.integers(0, 1)),
    st.tuples(st.just("activate"), NUMBERS, st.integers(0, 1)),
    st.tuples(st.just("sgi"), st.integers(0, 15), st.integers(0, 3)),
    st.tuples(st.just("priority"), NUMBERS, st.sampled_from([0, 1, 0x10, 0x80, 0x81, 0xA0, 0xFE, 0xFF])),
    st.tuples(st.just("edge"), WIRES, st.integers(0, 1)),
    st.tuples(st.just("mask"), st.just(0), st.sampled_from([0xFF, 0xF0, 0x80, 0x10, 0])),
    st.tuples(st.just("binary point"), st.just(0), st.integers(0, 7)),
    st.tuples(st.just("eoi mode"), st.just(0), st.integers(0, 1)),
)


def play(rig: GicRig, slow: SlowGic, move: str, number: int, value: int) -> None:
    word, bit = number // 32 * 4, 1 << number % 32
    interrupt = slow.interrupts[number]
    match move:
        case "line":
            rig.device.line(number).set(bool(value))
            slow.line(number, bool(value))
        case "acknowledge":
            assert rig.cpu(gicc.IAR) == slow.acknowledge()
        case "end" | "end running":
            if move == "end running":
                number = next((n for n, i in enumerate(slow.interrupts) if i.active), 1023)
            rig.cpu(gicc.EOIR, number)
            if number < COUNT:
                slow.end(number)
        case "deactivate":
            rig.cpu(gicc.DIR, number)
            if slow.eoi_mode:
                interrupt.active = False
        case "enable":
            rig.distributor((gicd.ISENABLER if value else gicd.ICENABLER) + word, bit)
            interrupt.enabled = bool(value) or number < 16
        case "pend":
            rig.distributor((gicd.ISPENDR if value else gicd.ICPENDR) + word, bit)
            interrupt.latched = bool(value)
        case "activate":
            rig.distributor((gicd.ISACTIVER if value else gicd.ICACTIVER) + word, bit)
            interrupt.active = bool(value)
        case "sgi":
            rig.distributor(gicd.SGIR, value << 24 | 1 << 16 | number)
            interrupt.latched = interrupt.latched or value in (0, 2)
        case "priority":
            rig.priority(number, value)
            interrupt.priority = value
        case "edge":
            offset, shift = gicd.ICFGR + number // 16 * 4, number % 16 * 2
            old = rig.distributor(offset)
            rig.distributor(offset, old & ~(3 << shift) | value * 2 << shift)
            interrupt.edge = bool(value)
        case "mask":
            rig.cpu(gicc.PMR, value)
            slow.mask = value
        case "binary point":
            rig.cpu(gicc.BPR, value)
            slow.binary_point = value
        case "eoi mode":
            rig.cpu(gicc.CTLR, rig.cpu(gicc.CTLR) & ~gicc.EOI_MODE | value * gicc.EOI_MODE)
            slow.eoi_mode = bool(value)


@settings(max_examples=400, deadline=None)
@given(st.lists(MOVES, max_size=80), st.sets(NUMBERS), st.sets(NUMBERS))
def test_agrees_with_the_slow_model(moves: list[tuple[str, int, int]], group1: set[int], enabled: set[int]) -> None:
    rig, slow = GicRig(), SlowGic()
    rig.start()
    for number in group1:
        offset = gicd.IGROUPR + number // 32 * 4
        rig.distributor(offset, rig.distributor(offset) | 1 << number % 32)
        slow.interrupts[number].group = 1
    for number in enabled:
        rig.enable(number)
        slow.interrupts[number].enabled = True
    for move, number, value in moves:
        play(rig, slow, move, number, value)
        assert rig.irq.level == (slow.signalled() != 1023) and not rig.fiq.level
        assert rig.cpu(gicc.HPPIR) == slow.highest()
        assert rig.cpu(gicc.RPR) == min((entry[0] for entry in slow.running), default=0xFF)
        for array, name in ((gicd.ISPENDR, "pending"), (gicd.ICACTIVER, "active"), (gicd.ICENABLER, "enabled")):
            shown = sum(rig.distributor(array + 4 * word) << 32 * word for word in range(3))
            assert shown == sum(getattr(i, name) << n for n, i in enumerate(slow.interrupts)), name


def test_identification_and_size() -> None:
    rig = GicRig(256)
    assert rig.distributor(gicd.TYPER) == 8
    assert rig.cpu(gicc.IIDR) == 0x0002043B
    assert bytes(rig.distributor(offset) for offset in range(0xFE0, 0x1000, 4)) == bytes.fromhex("90B42B000DF005B1")
    with pytest.raises(InternalError):
        Gicv2(989, Wire(), Wire())
    with pytest.raises(InternalError):
        rig.device.line(15)


def test_reserved_offsets_read_as_zero_and_ignore_writes() -> None:
    rig = started(40)
    before = rig.device.state()
    for offset in (0x00C, 0x7FC, gicd.ITARGETSR, gicd.ITARGETSR + 32, 0xE00, 0x1000, 0xFFFC):
        rig.distributor(offset, 0xFFFFFFFF)
        assert rig.distributor(offset) == 0
    for offset in (0x2C, 0x40, 0x2000, 0xFFFC):
        rig.cpu(offset, 0xFFFFFFFF)
        assert rig.cpu(offset) == 0
    assert rig.device.state() == before


def test_level_interrupt_stays_pending_until_its_wire_falls() -> None:
    rig = started(40)
    wire = rig.device.line(40)
    wire.set(True)
    assert rig.irq.level and rig.cpu(gicc.IAR) == 40 and not rig.irq.level
    assert rig.distributor(gicd.ISPENDR + 4) == 1 << 8, "active and pending"
    rig.cpu(gicc.EOIR, 40)
    assert rig.irq.level
    wire.set(False)
    assert not rig.irq.level and rig.cpu(gicc.IAR) == 1023


def test_edge_interrupt_is_taken_once() -> None:
    rig = started(40)
    rig.distributor(gicd.ICFGR + 8, 2 << 16)
    wire = rig.device.line(40)
    wire.set(True)
    assert rig.cpu(gicc.IAR) == 40
    rig.cpu(gicc.EOIR, 40)
    assert rig.cpu(gicc.IAR) == 1023
    wire.set(False)
    wire.set(True)
    assert rig.cpu(gicc.IAR) == 40


def test_preemption_by_group_priority_only() -> None:
    rig = started(40, 41, 42)
    for interrupt_id, priority in ((40, 0x80), (41, 0x70), (42, 0x40)):
        rig.priority(interrupt_id, priority)
    rig.cpu(gicc.BPR, 5)  # two bits of group priority: 0x40 and 0x70 are the same
    rig.device.set_line(40, True)
    assert rig.cpu(gicc.IAR) == 40 and rig.cpu(gicc.RPR) == 0x80
    rig.device.set_line(41, True)
    assert rig.irq.level and rig.cpu(gicc.IAR) == 41 and rig.cpu(gicc.RPR) == 0x40
    rig.device.set_line(42, True)
    assert not rig.irq.level and rig.cpu(gicc.IAR) == 1023 and rig.cpu(gicc.HPPIR) == 42
    rig.cpu(gicc.EOIR, 41)
    assert rig.irq.level and rig.cpu(gicc.IAR) == 42


def test_eoi_mode_separates_drop_and_deactivation() -> None:
    rig = started(40)
    rig.cpu(gicc.CTLR, rig.cpu(gicc.CTLR) | gicc.EOI_MODE)
    rig.device.set_line(40, True)
    assert rig.cpu(gicc.IAR) == 40
    rig.cpu(gicc.EOIR, 40)
    assert rig.cpu(gicc.RPR) == 0xFF and not rig.irq.level
    rig.cpu(gicc.DIR, 40)
    assert rig.irq.level


def test_group_0_as_fiq() -> None:
    rig = started(40, 41)
    rig.cpu(gicc.CTLR, gicc.ENABLE_GROUP0 | gicc.ENABLE_GROUP1 | gicc.FIQ_ENABLE)
    rig.distributor(gicd.IGROUPR + 4, 1 << 9)
    rig.device.set_line(41, True)
    assert rig.irq.level and not rig.fiq.level
    assert rig.cpu(gicc.IAR) == 1022 and rig.cpu(gicc.HPPIR) == 1022, "group 1 without AckCtl"
    rig.device.set_line(40, True)
    assert rig.fiq.level and not rig.irq.level
    assert rig.cpu(gicc.AIAR) == 1023 and rig.cpu(gicc.IAR) == 40
    rig.cpu(gicc.EOIR, 40)
    rig.device.set_line(40, False)
    assert rig.cpu(gicc.AIAR) == 41
    rig.cpu(gicc.AEOIR, 41)
    assert rig.cpu(gicc.RPR) == 0xFF


def test_disabled_groups_are_not_signalled() -> None:
    rig = started(40)
    rig.device.set_line(40, True)
    rig.distributor(gicd.CTLR, 2)
    assert not rig.irq.level and rig.cpu(gicc.IAR) == 1023
    rig.distributor(gicd.CTLR, 1)
    assert rig.irq.level
    rig.cpu(gicc.CTLR, gicc.ENABLE_GROUP1)
    assert not rig.irq.level


def test_sgi_registers() -> None:
    rig = started()
    rig.distributor(gicd.SPENDSGIR + 4, 0x01FF0001)
    assert rig.distributor(gicd.CPENDSGIR + 4) == 0x00010001 | 0x01000000
    rig.distributor(gicd.CPENDSGIR + 4, 1)
    assert rig.cpu(gicc.IAR) == 6
    rig.distributor(gicd.SGIR, 1 << 24 | 3)
    assert rig.distributor(gicd.SPENDSGIR) == 0, "to all CPUs but the sender: nobody"


def test_narrow_accesses() -> None:
    rig = started()
    rig.priority(40, 0x12)
    rig.priority(41, 0x34)
    assert rig.distributor(gicd.IPRIORITYR + 40) == 0x3412
    assert rig.distributor(gicd.IPRIORITYR + 40, size=2) == 0x3412
    assert rig.distributor(gicd.IPRIORITYR + 36, size=8) == 0x3412 << 32
    rig.distributor(gicd.ISENABLER + 5, 1, size=1)
    assert rig.distributor(gicd.ISENABLER + 4) == 1 << 8
