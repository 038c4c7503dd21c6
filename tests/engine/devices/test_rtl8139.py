"""The RTL8139C+ as its drivers use it: descriptors and ring buffer, EEPROM, filter, timer; and drivers of no use."""

from __future__ import annotations

import struct
import zlib
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.test_frame_offloads import whole
from tests.engine.devices.test_virtio_net import OURS, THEIRS, ManualCable, a_frame
from tests.engine.devices.virtio_driver import RAM_BASE, RAM_SIZE, Memory
from tests.engine.devices.wires import ManualTime, Wire
from timevm.engine.devices.base import Device
from timevm.engine.devices.frame_offloads import UDP
from timevm.engine.devices.network_port import BROADCAST
from timevm.engine.devices.pci_function import COMMAND, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY
from timevm.engine.devices.rtl8139 import Rtl8139
from timevm.engine.devices.rtl8139_registers import Interrupt, Register
from timevm.engine.devices.rtl8139_rings import Descriptor

RX_RING, TX_RING, BUFFERS, PLAIN = RAM_BASE, RAM_BASE + 0x1000, RAM_BASE + 0x4000, RAM_BASE + 0x40000
RESET, RECEIVE, TRANSMIT = 0x10, 0x08, 0x04
ROOM = 1536


class Rig:
    def __init__(self) -> None:
        self.memory, self.cable, self.wire, self.clock = Memory(), ManualCable(), Wire(), ManualTime()
        self.device = Rtl8139("card", self.memory, self.cable, OURS, self.wire, self.clock)
        self.device.config_write(COMMAND, 2, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER)
        self.windows: list[Device] = [cast(Device, self.device)]
        self.device.window = 256  # type: ignore[attr-defined]  # for the conformance suite

    def outside(self, number: int) -> None:
        if number % 4 == 3:
            self.clock.advance(number * 1000)
        else:
            self.cable.bring(a_frame(14 + number % 3000, (OURS, BROADCAST, THEIRS)[number % 3]))

    def calls(self) -> list[Any]:
        return [*self.wire.calls, *self.memory.writes, *self.cable.sent]

    def surroundings(self) -> Any:
        [timer] = self.clock.timers.values()
        return bytes(self.memory.data), self.clock.now, timer.deadline

    def restore_surroundings(self, state: Any) -> None:
        self.memory.data[:] = state[0]
        [timer] = self.clock.timers.values()
        self.clock.now, timer.deadline = state[1:]

    # ---- a driver

    def read(self, register: int, size: int) -> int:
        return self.device.read(register, size)

    def write(self, register: int, size: int, value: int) -> None:
        self.device.write(register, size, value)

    def start_c_plus(self, count: int = 4) -> Rig:
        """As Linux's 8139cp does it."""
        self.write(Register.COMMAND, 1, RESET)
        assert not self.read(Register.COMMAND, 1) & RESET
        self.write(Register.C_PLUS_COMMAND, 2, 0x2B)
        for register, address in ((Register.RECEIVE_RING, RX_RING), (Register.NORMAL_RING, TX_RING)):
            self.write(register, 4, address)
            self.write(register + 4, 4, 0)
        self.count = count
        for index in range(count):
            self.give(index)
        self.write(Register.COMMAND, 1, RECEIVE | TRANSMIT)
        self.write(Register.RECEIVE_CONFIG, 4, 0xE70A)
        self.write(Register.INTERRUPT_MASK, 2, 0xFFFF)
        self.slot = 0
        return self

    def give(self, index: int) -> None:
        end = Descriptor.END if index == self.count - 1 else 0
        place = BUFFERS + ROOM * index
        self.memory.write(RX_RING + 16 * index, struct.pack("<IIQ", Descriptor.OWN | end | ROOM, 0, place))

    def got(self, index: int) -> tuple[int, int, bytes]:
        """Status words and frame of a descriptor."""
        status, second = struct.unpack("<II", self.memory.read(RX_RING + 16 * index, 8))
        assert not status & Descriptor.OWN
        size = status & 0x1FFF
        data = self.memory.read(BUFFERS + ROOM * index, size)
        assert data[-4:] == zlib.crc32(data[:-4]).to_bytes(4, "little")
        return status, second, data[:-4]

    def send(self, *parts: bytes, flags: int = 0, second: int = 0) -> None:
        for number, part in enumerate(parts):
            place = PLAIN + 0x4000 * number
            self.memory.write(place, part)
            word = Descriptor.OWN | len(part) | flags
            word |= Descriptor.FIRST if number == 0 else 0
            word |= Descriptor.LAST if number == len(parts) - 1 else 0
            word |= Descriptor.END if self.slot == 63 else 0
            self.memory.write(TX_RING + 16 * self.slot, struct.pack("<IIQ", word, second, place))
            self.slot = (self.slot + 1) % 64
        self.write(Register.POLL, 1, 0x40)

    def interrupts(self) -> int:
        reasons = self.read(Register.INTERRUPT_STATUS, 2)
        assert self.wire.level is bool(reasons)
        self.write(Register.INTERRUPT_STATUS, 2, reasons)
        assert not self.wire.level
        return reasons

    def eeprom(self, address: int, bits: int = 6) -> int:
        """A word, bit by bit, as Linux's driver reads it."""
        self.write(Register.EEPROM, 1, 0x80)
        self.write(Register.EEPROM, 1, 0x88)
        command = 6 << bits | address
        for bit in range(bits + 2, -1, -1):
            wire = 2 if command >> bit & 1 else 0
            self.write(Register.EEPROM, 1, 0x88 | wire)
            self.write(Register.EEPROM, 1, 0x8C | wire)
        self.write(Register.EEPROM, 1, 0x88)
        value = 0
        for _ in range(16):
            self.write(Register.EEPROM, 1, 0x8C)
            value = value << 1 | self.read(Register.EEPROM, 1) & 1
            self.write(Register.EEPROM, 1, 0x88)
        self.write(Register.EEPROM, 1, 0)
        return value


def test_who_it_is() -> None:
    rig = Rig()
    assert rig.device.config_read(0, 4) == 0x813910EC and rig.device.config_read(8, 4) == 0x02000020
    assert rig.read(Register.ADDRESS, 4) == 0x12005452 and rig.read(Register.ADDRESS + 4, 2) == 0x5634
    assert rig.read(Register.TRANSMIT_CONFIG, 4) & 0x7CC00000 == 0x74800000
    assert rig.read(Register.PHY_STATUS, 2) & 0x24 == 0x24  # up and negotiated
    assert not rig.read(Register.MEDIA_STATUS, 1) & 4


def test_the_eeprom_is_read_bit_by_bit() -> None:
    rig = Rig()
    assert rig.eeprom(0, bits=8) != 0x8129  # its addresses have six bits: that is how drivers find out
    assert [rig.eeprom(word) for word in (0, 1, 2)] == [0x8129, 0x10EC, 0x8139]
    assert struct.pack("<3H", *(rig.eeprom(word) for word in (7, 8, 9))) == OURS


def test_the_address_is_written_only_when_it_is_unlocked() -> None:
    rig = Rig()
    rig.write(Register.ADDRESS, 4, 0x11223344)
    assert rig.read(Register.ADDRESS, 4) == 0x12005452
    rig.write(Register.EEPROM, 1, 0xC0)
    rig.write(Register.ADDRESS, 4, 0x11223344)
    assert rig.read(Register.ADDRESS, 4) == 0x11223344
    rig.write(Register.EEPROM, 1, 0x40)  # from the EEPROM again
    assert rig.read(Register.ADDRESS, 4) == 0x12005452 and rig.read(Register.EEPROM, 1) & 0xC0 == 0


def test_descriptors_both_ways() -> None:
    rig = Rig().start_c_plus()
    for round_trip in range(9):
        frame = a_frame(60 + 100 * round_trip)
        assert rig.cable.bring(frame)
        index = round_trip % rig.count
        status, second, data = rig.got(index)
        assert data == frame and second == 0
        assert status & (Descriptor.FIRST | Descriptor.LAST) == Descriptor.FIRST | Descriptor.LAST
        assert status >> 24 & 7 == 2  # its own address
        rig.give(index)
        assert rig.interrupts() == Interrupt.RECEIVED
    for number in range(70):
        rig.send(a_frame(100), flags=0) if number % 2 else rig.send(a_frame(100)[:40], a_frame(100)[40:])
        assert rig.cable.sent == [a_frame(100)]
        rig.cable.sent.clear()
        assert rig.interrupts() == Interrupt.SENT


def test_a_frame_waits_for_a_descriptor_and_too_large_a_one_is_missed() -> None:
    rig = Rig().start_c_plus(count=2)
    assert rig.cable.bring(a_frame()) and rig.cable.bring(a_frame())
    before = rig.device.state()
    assert not rig.cable.bring(a_frame())
    assert rig.device.state() == before
    rig.give(0)
    rig.interrupts()
    assert rig.cable.bring(a_frame(3000))
    assert rig.interrupts() == Interrupt.OVERFLOW and rig.read(Register.MISSED, 4) == 1
    rig.write(Register.MISSED, 4, 0)
    assert rig.read(Register.MISSED, 4) == 0 and rig.cable.bring(a_frame())


def test_the_card_does_the_drivers_arithmetic() -> None:
    rig = Rig().start_c_plus()
    right = whole(UDP, b"payload")
    bare = right[:24] + b"\0\0" + right[26:40] + b"\0\0" + right[42:]
    rig.send(bare, flags=Descriptor.IP_CHECKSUM | Descriptor.UDP_CHECKSUM)
    assert rig.cable.sent == [right]
    rig.send(right, second=1 << 17 | 0x2301)
    assert rig.cable.sent[1] == right[:12] + b"\x81\x00\x01\x23" + right[12:]
    rig.send(whole(6, b"")[:54] + bytes(5000), flags=Descriptor.LARGE | 1000 << 16)
    assert [len(frame) for frame in rig.cable.sent[2:]] == [1054] * 5


def test_tags_are_taken_off() -> None:
    rig = Rig().start_c_plus()
    rig.write(Register.C_PLUS_COMMAND, 2, 0x6B)
    frame = a_frame(100)
    rig.cable.bring(frame[:12] + b"\x81\x00\x01\x23" + frame[12:])
    _, second, data = rig.got(0)
    assert data == frame and second == 1 << 16 | 0x2301


def test_counters_are_written_where_the_driver_says() -> None:
    rig = Rig().start_c_plus()
    rig.send(a_frame())
    rig.cable.bring(a_frame())
    rig.write(Register.TALLY + 4, 4, 0)
    rig.write(Register.TALLY, 4, PLAIN | 8)
    assert not rig.read(Register.TALLY, 4) & 8
    assert struct.unpack("<QQ", rig.memory.read(PLAIN, 16)) == (1, 1)


@pytest.mark.parametrize("wrap", [0, 0x80])
def test_the_ring_buffer_of_older_drivers(wrap: int) -> None:
    rig = Rig()
    rig.write(Register.COMMAND, 1, RESET)
    rig.write(Register.RECEIVE_BUFFER, 4, BUFFERS)
    rig.write(Register.RECEIVE_CONFIG, 4, 0x0A | wrap)
    rig.write(Register.INTERRUPT_MASK, 2, 0xFFFF)
    rig.write(Register.COMMAND, 1, RECEIVE | TRANSMIT)
    assert rig.read(Register.COMMAND, 1) & 1
    at = 0
    for number in range(40):
        frame = a_frame(61 + 37 * number)
        assert rig.cable.bring(frame)
        assert not rig.read(Register.COMMAND, 1) & 1 and rig.interrupts() == Interrupt.RECEIVED
        ring = rig.memory.read(BUFFERS, 8192 if not wrap else 8192 + 2048)
        around = ring[at:] + (b"" if wrap else ring[:at])
        status, size = struct.unpack_from("<HH", around)
        assert status == 0x4001 and around[4:size] == frame
        assert around[size : 4 + size] == zlib.crc32(frame).to_bytes(4, "little")
        at = (at + size + 4 + 3) // 4 * 4 % 8192
        assert rig.read(Register.WRITE_POINTER, 2) == at
        rig.write(Register.READ_POINTER, 2, (at - 16) & 0xFFFF)
        assert rig.read(Register.COMMAND, 1) & 1
    taken = 0
    while rig.cable.bring(a_frame(1000)):
        taken += 1
    assert taken == 8  # and then it waits
    rig.write(Register.READ_POINTER, 2, (rig.read(Register.WRITE_POINTER, 2) - 16) & 0xFFFF)
    assert rig.cable.bring(a_frame(1000))


def test_transmit_buffers_of_older_drivers() -> None:
    rig = Rig()
    rig.write(Register.COMMAND, 1, RECEIVE | TRANSMIT)
    rig.write(Register.INTERRUPT_MASK, 2, 0xFFFF)
    for number in range(8):
        slot = number % 4
        rig.memory.write(PLAIN, a_frame(100 + number))
        rig.write(Register.TRANSMIT_ADDRESS + 4 * slot, 4, PLAIN)
        rig.write(Register.TRANSMIT_STATUS + 4 * slot, 4, 100 + number)
        assert rig.cable.sent[number] == a_frame(100 + number)
        assert rig.read(Register.TRANSMIT_STATUS + 4 * slot, 4) & 0xA000 == 0xA000
        assert rig.read(Register.TRANSMIT_SUMMARY, 2) >> 12 + slot & 1
        assert rig.interrupts() == Interrupt.SENT


def test_loopback_stays_inside() -> None:
    rig = Rig().start_c_plus()
    rig.write(Register.TRANSMIT_CONFIG, 4, 0x60000)
    rig.send(a_frame(80))
    assert rig.cable.sent == [] and rig.got(0)[2] == a_frame(80)


def test_the_filter() -> None:
    rig = Rig().start_c_plus()
    group = bytes.fromhex("01005e000001")

    def passes(target: bytes, wanted: int, filter_bits: int) -> bool:
        rig.start_c_plus()
        rig.write(Register.RECEIVE_CONFIG, 4, wanted)
        rig.write(Register.MULTICAST, 4, filter_bits & 0xFFFFFFFF)
        rig.write(Register.MULTICAST + 4, 4, filter_bits >> 32)
        rig.cable.bring(a_frame(60, target))
        return bool(rig.read(Register.INTERRUPT_STATUS, 2))

    def ether_crc(data: bytes) -> int:
        crc = 0xFFFFFFFF
        for byte in data:
            for _ in range(8):
                top = (crc >> 31) ^ (byte & 1)
                crc = (crc << 1) & 0xFFFFFFFF
                byte >>= 1
                crc ^= 0x04C11DB7 if top else 0
        return crc

    for wanted, filter_bits, expected in (
        (0x0A, 0, [True, True, False, False]),
        (0x0E, 1 << (ether_crc(group) >> 26), [True, True, True, False]),
        (0x0E, ((1 << 64) - 1) ^ 1 << (ether_crc(group) >> 26), [True, True, False, False]),
        (0x01, 0, [True, True, True, True]),
        (0x00, 0, [False] * 4),
    ):
        targets = (OURS, BROADCAST, group, THEIRS)
        assert [passes(target, wanted, filter_bits) for target in targets] == expected


def test_the_timer_interrupts_once() -> None:
    rig = Rig()
    rig.write(Register.INTERRUPT_MASK, 2, Interrupt.TIMEOUT)
    rig.write(Register.TIMER_COUNT, 4, 0)
    rig.write(Register.TIMER_LIMIT, 4, 33_000)  # a millisecond
    rig.clock.advance(999_999)
    assert not rig.wire.level and rig.read(Register.TIMER_COUNT, 4) == 32_999
    rig.clock.advance(1)
    assert rig.interrupts() == Interrupt.TIMEOUT
    rig.clock.advance(10_000_000)
    assert not rig.wire.level


def test_without_leave_to_reach_memory_nothing_is_reached() -> None:
    rig = Rig().start_c_plus()
    rig.device.config_write(COMMAND, 2, COMMAND_IO)
    rig.memory.writes.clear()
    assert rig.cable.bring(a_frame())
    rig.write(Register.POLL, 1, 0xC0)
    assert rig.memory.writes == []


@pytest.mark.parametrize("outside", [0, RAM_BASE + RAM_SIZE - 8, (1 << 64) - 256])
def test_rings_outside_of_ram_are_an_error_of_the_system(outside: int) -> None:
    rig = Rig().start_c_plus()
    for register in (Register.RECEIVE_RING, Register.NORMAL_RING):
        rig.write(register, 4, outside & 0xFFFFFFFF)
        rig.write(register + 4, 4, outside >> 32)
    if outside != RAM_BASE + RAM_SIZE - 8:
        assert rig.cable.bring(a_frame())
        assert rig.interrupts() == Interrupt.SYSTEM_ERROR
        rig.write(Register.POLL, 1, 0x40)
        assert rig.interrupts() == Interrupt.SYSTEM_ERROR


offsets = [*map(int, Register), *range(0x10, 0x30, 4)]
values = st.one_of(
    st.integers(0, 255), st.integers(0, (1 << 64) - 1), st.sampled_from([RAM_BASE, RX_RING, 0x40, 0x0C, 0x03])
)


@settings(max_examples=80, deadline=None)
@given(before=steps(offsets, values), after=steps(offsets, values), started=st.booleans())
def test_state_in_state_out(before: list[Step], after: list[Step], started: bool) -> None:
    def make() -> Rig:
        rig = Rig()
        rig.device.reset()
        return rig

    enabled = Step("write", RECEIVE | TRANSMIT, 0, Register.COMMAND, 1)
    check_state_round_trip(make, [enabled, *before] if started else before, after)


@settings(max_examples=100, deadline=None)
@given(garbage=st.lists(st.tuples(st.integers(0, 0x1400), st.binary(min_size=1, max_size=8))), data=st.data())
def test_a_hostile_driver_does_no_harm(garbage: list[tuple[int, bytes]], data: st.DataObject) -> None:
    rig = Rig().start_c_plus()
    for index in range(5):
        rig.send(a_frame(100), a_frame(50), flags=data.draw(st.integers(0, 15)) << 16)
        rig.memory.data[TX_RING - RAM_BASE + 16 * index + 3] |= 0x80
    for offset, written in garbage:
        rig.memory.data[offset : offset + len(written)] = written
    for step in data.draw(st.lists(st.sampled_from(["poll", "high", "frame"]), max_size=8)):
        if step == "frame":
            rig.outside(data.draw(st.integers(0, 1 << 16)))
        else:
            rig.write(Register.POLL, 1, 0x40 if step == "poll" else 0x80)
    rig.device.reset()
    assert rig.cable.bring(a_frame())
