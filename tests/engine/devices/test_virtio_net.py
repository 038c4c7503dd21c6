"""virtio-net against section 5.1 of the specification, and against drivers that do not keep to it."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.virtio_driver import RAM_BASE, RAM_SIZE, Driver, Memory, VirtioRig
from tests.engine.devices.wires import Wire
from timevm.engine.devices import virtio_net
from timevm.engine.devices.network_port import BROADCAST, MOST_BYTES
from timevm.engine.devices.virtio import EVENT_IDX, INDIRECT_DESC
from timevm.engine.devices.virtio_mmio import Register, VirtioMmio
from timevm.engine.devices.virtio_net import (
    CONTROL,
    CTRL_MAC_ADDR,
    ERROR,
    MRG_RXBUF,
    OK,
    RECEIVE,
    TRANSMIT,
    VirtioNet,
)

OURS = bytes.fromhex("525400123456")
THEIRS = bytes.fromhex("52550a000202")
PROMISCUOUS, ALL_MULTICAST, ALL_UNICAST, NO_MULTICAST, NO_UNICAST, NO_BROADCAST = range(6)


def a_frame(size: int = 60, target: bytes = OURS) -> bytes:
    return (target + THEIRS + b"\x08\x00" + bytes(range(256)) * (size // 256 + 1))[:size]


class ManualCable:
    """The cable as the test holds it: ``sent`` is what came out of the card."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.accepts: Any = None
        self.received: Any = None

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    def bring(self, frame: bytes) -> bool:
        """As the gate does; False: it waits."""
        if not self.accepts(frame):
            return False
        self.received(frame)
        return True


class Rig:
    """A started card with its driver."""

    def __init__(self, *, modern: bool = True, features: int | None = None) -> None:
        self.memory, self.cable = Memory(), ManualCable()
        self.device = VirtioNet("card", self.memory, self.cable, OURS)
        self.mmio = VirtioMmio("virtio0", Wire(), self.device, modern=modern)
        self.driver = Driver(self.mmio, self.memory, modern=modern, features=features, size=64).start(queues=3)
        self.header = 12 if modern or self.driver.features & MRG_RXBUF else 10

    def give(self, *sizes: int) -> int:
        """A receive buffer with so many parts; its address (parts lie one behind the other)."""
        start = self.driver.place(bytes(sum(sizes)))
        places = []
        at = start
        for size in sizes:
            places.append((at, size))
            at += size
        self.driver.add([], places, queue=RECEIVE)
        return start

    def transmit(self, data: bytes, *, cut: int = 12, indirect: bool = False) -> None:
        whole = bytes(self.header) + data
        parts = [(self.driver.place(part), len(part)) for part in (whole[:cut], whole[cut:]) if part]
        self.driver.add(parts, [], queue=TRANSMIT, indirect=indirect)
        self.driver.kick(TRANSMIT)

    def control(self, group: int, command: int, data: bytes) -> bytes:
        request = self.driver.place(bytes((group, command)) + data)
        answer = self.driver.place(b"\xff")
        self.driver.add([(request, 2 + len(data))], [(answer, 1)], queue=CONTROL)
        self.driver.kick(CONTROL)
        assert len(self.driver.used(CONTROL)) == 1
        return self.memory.read(answer, 1)


@pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
@pytest.mark.parametrize("features", [None, 0, MRG_RXBUF, EVENT_IDX | INDIRECT_DESC])
def test_frames_go_both_ways(modern: bool, features: int | None) -> None:
    rig = Rig(modern=modern, features=features)
    assert rig.header == (10 if not modern and features in (0, EVENT_IDX | INDIRECT_DESC) else 12)
    for size in (14, 60, 1514, 9000):
        frame = a_frame(size)
        rig.transmit(frame, cut=rig.header)
        rig.transmit(frame, cut=20)
        assert rig.cable.sent[-2:] == [frame, frame]
        assert [written for _, written in rig.driver.used(TRANSMIT)] == [0, 0]
        where = rig.give(rig.header, 9000)
        assert rig.cable.bring(frame)
        assert rig.driver.used(RECEIVE) == [(0, rig.header + size)]
        got = rig.memory.read(where, rig.header + size)
        assert got[rig.header :] == frame
        assert got[: rig.header] == (bytes(10) + b"\1\0" if rig.header == 12 else bytes(10))
        assert rig.driver.interrupts() & 1


def test_its_address_and_link() -> None:
    rig = Rig()
    assert b"".join(rig.mmio.read(Register.CONFIG + at, 1).to_bytes(1, "little") for at in range(8)) == OURS + b"\1\0"


def test_an_old_driver_writes_its_address_and_a_new_one_asks_for_it() -> None:
    old, new = Rig(modern=False, features=0), Rig()
    old.mmio.write(Register.CONFIG + 5, 1, 0x99)
    assert old.device.configuration()[:6] == OURS[:5] + b"\x99"
    new.mmio.write(Register.CONFIG + 5, 1, 0x99)
    assert new.device.configuration()[:6] == OURS
    assert new.control(1, 1, THEIRS) == OK
    assert new.device.configuration()[:6] == THEIRS
    new.driver.start(queues=3)
    assert new.device.configuration()[:6] == OURS


def test_a_frame_is_spread_over_several_buffers() -> None:
    rig = Rig(features=MRG_RXBUF | CTRL_MAC_ADDR)
    places = [rig.give(100) for _ in range(5)]
    frame = a_frame(300)
    assert rig.cable.bring(frame)
    used = rig.driver.used(RECEIVE)
    assert [written for _, written in used] == [100, 100, 100, 12]
    got = b"".join(rig.memory.read(place, written) for place, (_, written) in zip(places, used, strict=False))
    assert got == bytes(10) + b"\4\0" + frame


@pytest.mark.parametrize("features", [None, EVENT_IDX])
def test_a_frame_waits_for_buffers(features: int | None) -> None:
    rig = Rig(features=features)
    before = rig.device.state()
    assert not rig.cable.bring(a_frame(1000))
    assert rig.device.state() == before, "asking changed the device"
    if features is None:  # buffers that are too few
        rig.give(500)
        assert not rig.cable.bring(a_frame(1000))
    rig.give(2000)
    assert rig.cable.bring(a_frame(1000))
    assert sum(written for _, written in rig.driver.used(RECEIVE)) == 1012


def test_a_frame_that_fits_no_buffer_is_lost() -> None:
    """A driver that takes whole frames only (no MRG_RXBUF)."""
    rig = Rig(features=0)
    rig.give(100)
    assert rig.cable.bring(a_frame(1000))
    assert rig.driver.used(RECEIVE) == []
    assert rig.cable.bring(a_frame(88))
    assert rig.driver.used(RECEIVE) == [(0, 100)]


def test_what_comes_while_there_is_no_driver_is_lost() -> None:
    cable = ManualCable()
    VirtioMmio("virtio0", Wire(), VirtioNet("card", Memory(), cable, OURS), modern=True)
    assert cable.bring(a_frame())
    rig = Rig()
    rig.give(2000)
    rig.driver.write(Register.STATUS, 0)
    assert rig.cable.bring(a_frame())
    rig.device.reset()
    assert rig.cable.bring(a_frame())


def test_the_filter() -> None:
    rig = Rig()
    group, other, listed = b"\x01\x00\x5e\0\0\1", b"\x52\0\0\0\0\1", b"\x52\0\0\0\0\2"

    def passes(target: bytes) -> bool:
        rig.give(2000)
        assert rig.cable.bring(a_frame(60, target))
        return bool(rig.driver.used(RECEIVE))

    assert all(map(passes, (OURS, BROADCAST, group, other)))
    assert rig.control(0, PROMISCUOUS, b"\0") == OK
    assert [passes(target) for target in (OURS, BROADCAST, group, other, listed)] == [True, True, False, False, False]
    table = struct.pack("<I", 1) + listed + struct.pack("<I", 1) + group
    assert rig.control(1, 0, table) == OK
    assert [passes(target) for target in (OURS, group, other, listed)] == [True, True, False, True]
    assert rig.control(0, NO_MULTICAST, b"\1") == OK
    assert rig.control(0, NO_BROADCAST, b"\1") == OK
    assert rig.control(0, ALL_UNICAST, b"\1") == OK
    assert [passes(target) for target in (OURS, BROADCAST, group, other)] == [True, False, False, True]
    many = struct.pack("<I", 0) + struct.pack("<I", 200) + bytes(1200)
    assert rig.control(1, 0, many) == OK
    assert rig.control(0, NO_MULTICAST, b"\0") == OK
    assert passes(group)
    for group_number, command, data in ((0, 9, b"\0"), (0, 0, b""), (1, 1, b"123"), (1, 0, table[:-1]), (7, 0, b"")):
        assert rig.control(group_number, command, data) == ERROR
    assert rig.control(1, 0, table + b"\0") == ERROR


@pytest.mark.parametrize("size", [0, 1, 13, MOST_BYTES + 1])
def test_what_is_no_frame_is_not_sent(size: int) -> None:
    rig = Rig()
    rig.transmit(bytes(size))
    assert rig.cable.sent == [] and len(rig.driver.used(TRANSMIT)) == 1 and not rig.device.is_broken


@pytest.mark.parametrize("outside", [0, RAM_BASE + RAM_SIZE - 8, (1 << 64) - 4])
def test_buffers_outside_of_ram_break_the_device_only(outside: int) -> None:
    rig = Rig()
    rig.driver.add([(outside, 1000)], [], queue=TRANSMIT)
    rig.driver.kick(TRANSMIT)
    assert rig.device.is_broken
    rig = Rig()
    rig.driver.add([], [(outside, 2000)], queue=RECEIVE)
    assert rig.cable.bring(a_frame())
    assert rig.device.is_broken
    assert rig.cable.bring(a_frame()) and rig.driver.used(RECEIVE) == []


def test_a_buffer_without_room_for_a_header_breaks_the_device() -> None:
    rig = Rig()
    rig.give(5)
    assert rig.cable.bring(a_frame())
    assert rig.device.is_broken
    rig = Rig()
    rig.driver.add([(rig.driver.place(bytes(5)), 5)], [], queue=TRANSMIT)
    rig.driver.kick(TRANSMIT)
    assert rig.device.is_broken


class CardRig(VirtioRig):
    """For the conformance suite; ``outside`` brings a frame."""

    def __init__(self, *, modern: bool) -> None:
        memory = Memory()
        self.cable = ManualCable()
        self.card = VirtioNet("card", memory, self.cable, OURS)
        super().__init__(self.card, memory, modern=modern)

    def outside(self, number: int) -> None:
        self.cable.bring(a_frame(14 + number % 3000, (OURS, BROADCAST, THEIRS)[number % 3]))

    def calls(self) -> list[Any]:
        return [*super().calls(), *self.cable.sent]

    def start(self) -> CardRig:
        """With a driver and a few buffers: what the guest does next is anything."""
        driver = Driver(self.device, self.memory, modern=self.device._modern, size=8).start(queues=3)
        for queue in (RECEIVE, RECEIVE, TRANSMIT, CONTROL):
            place = driver.place(bytes(200))
            driver.add([] if queue == RECEIVE else [(place, 100)], [(place + 100, 100)], queue=queue)
        return self


@pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_state_in_state_out(modern: bool, data: st.DataObject) -> None:
    offsets = [*map(int, Register), *range(0x100, 0x108)]
    values = st.one_of(st.integers(0, 16), st.integers(0, (1 << 64) - 1), st.sampled_from([RAM_BASE >> 12, 4096]))
    todo = [data.draw(steps(offsets, values)) for _ in range(2)]
    check_state_round_trip(lambda: CardRig(modern=modern), *todo)


@pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
@settings(max_examples=100, deadline=None)
@given(garbage=st.lists(st.tuples(st.integers(0, 3 * 2 * 4096 - 9), st.binary(min_size=1, max_size=8))), data=st.data())
def test_a_hostile_driver_does_no_harm(modern: bool, garbage: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """Rings of a started card are overwritten with anything, and everything is notified."""
    rig = CardRig(modern=modern).start()
    for offset, written in garbage:
        rig.memory.data[offset : offset + len(written)] = written
    todo = [Step("write", queue, 0, Register.QUEUE_NOTIFY) for queue in range(3)]
    todo += [Step("outside", data.draw(st.integers(0, 1 << 16))) for _ in range(5)]
    for step in data.draw(st.permutations(todo)):
        if step.kind == "outside":
            rig.outside(step.number)
        else:
            rig.device.write(step.offset, 4, step.number)
    assert all(len(frame) <= MOST_BYTES for frame in rig.cable.sent)
    rig.device.reset()
    assert rig.cable.bring(a_frame())


def test_features_that_were_taken_away_are_not_offered() -> None:
    device = VirtioNet("card", Memory(), ManualCable(), OURS, virtio_net.FEATURES & ~MRG_RXBUF)
    assert not device.offered & MRG_RXBUF and device.offered & CTRL_MAC_ADDR
