"""virtio-mmio against section 4.2 of the specification and QEMU's figures, both versions."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.virtio_driver import PAGE, RAM_BASE, Driver, ManualDisk, Memory, VirtioRig
from tests.engine.devices.wires import Wire
from timevm.engine.devices.virtio import EVENT_IDX, INDIRECT_DESC, VERSION_1
from timevm.engine.devices.virtio_blk import VirtioBlk
from timevm.engine.devices.virtio_mmio import Register, VirtioMmio
from timevm.engine.devices.virtio_rng import VirtioRng

both = pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])


class Slot:
    """A block device in a slot, untouched."""

    def __init__(self, modern: bool) -> None:
        self.memory, self.wire, self.disk = Memory(), Wire(), ManualDisk()
        self.device = VirtioBlk("disk", self.memory, self.disk)
        self.mmio = VirtioMmio("virtio0", self.wire, self.device, modern=modern)
        self.modern = modern

    def driver(self, **options: Any) -> Driver:
        return Driver(self.mmio, self.memory, modern=self.modern, **options)

    def read(self, offset: int) -> int:
        return self.mmio.read(offset, 4)

    def write(self, offset: int, value: int) -> None:
        self.mmio.write(offset, 4, value)


def make_block(modern: bool) -> VirtioRig:
    memory, disk = Memory(size=1 << 16), ManualDisk(1 << 14)
    return VirtioRig(VirtioBlk("disk", memory, disk), memory, modern=modern, disk=disk)


def make_entropy(modern: bool) -> VirtioRig:
    memory = Memory(size=1 << 16)
    return VirtioRig(VirtioRng("rng", memory, b"seed"), memory, modern=modern)


VALUES = st.one_of(
    st.integers(0, 3),
    st.sampled_from([8, PAGE, RAM_BASE // PAGE, RAM_BASE, 7, 11, 15, 0xFFFFFFFF]),
    st.integers(0, 2**64),
)
STEPS = steps([int(register) for register in Register], VALUES)


@settings(deadline=None)
@given(st.booleans(), st.booleans(), STEPS, STEPS)
def test_conformance(modern: bool, block: bool, before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(lambda: (make_block if block else make_entropy)(modern), before, after)


@settings(deadline=None, max_examples=60)
@given(st.booleans(), st.lists(st.integers(0, 9), max_size=25), st.lists(st.integers(0, 9), max_size=25))
def test_a_device_at_work_is_restored_with_its_requests(modern: bool, before: list[int], after: list[int]) -> None:
    """Like the conformance suite, but past the negotiation: with requests under way when the state is taken."""

    def prepared() -> tuple[VirtioRig, Driver]:
        rig = make_block(modern)
        driver = Driver(rig.device, rig.memory, modern=modern, size=16).start()
        driver.free = RAM_BASE + 0x4000
        return rig, driver

    def work(rig: VirtioRig, driver: Driver, numbers: list[int]) -> None:
        for number in numbers:
            if number >= 5 or len(driver.heads) > 4:
                rig.outside(number)
                driver.used()
                continue
            kind = number % 3  # read, write, flush
            header = (driver.place(struct.pack("<IIQ", (0, 1, 4)[kind], 0, number)), 16)
            data, status = (driver.place(bytes([number]) * 512), 512), (driver.place(b"\xff"), 1)
            out = [header, data] if kind == 1 else [header]
            driver.add(out, [data, status] if kind == 0 else [status])
            driver.kick()

    (rig, driver), (other, second) = prepared(), prepared()
    work(rig, driver, before)
    saved, surroundings = rig.device.state(), rig.surroundings()
    work(other, second, after)
    other.restore_surroundings(surroundings)
    other.device.restore(saved)
    assert other.device.state() == saved
    second.rings, second.heads, second.free = [replace(ring) for ring in driver.rings], dict(driver.heads), driver.free
    first_calls, second_calls = len(rig.calls()), len(other.calls())
    work(rig, driver, after)
    work(other, second, after)
    assert other.surroundings() == rig.surroundings()
    assert other.device.state() == rig.device.state()
    assert len(other.calls()) - second_calls == len(rig.calls()) - first_calls


@both
def test_the_registers_of_a_device_that_nobody_drives(modern: bool) -> None:
    slot = Slot(modern)
    assert slot.read(Register.MAGIC_VALUE) == 0x74726976
    assert slot.read(Register.VERSION) == (2 if modern else 1)
    assert slot.read(Register.DEVICE_ID) == 2
    assert slot.read(Register.VENDOR_ID) == 0x554D4551
    assert slot.read(Register.STATUS) == 0
    assert slot.read(Register.QUEUE_NUM_MAX) == 256
    slot.write(Register.QUEUE_SEL, 1)
    assert slot.read(Register.QUEUE_NUM_MAX) == 0
    assert slot.read(Register.SHM_LENGTH) == (0xFFFFFFFF if modern else 0)
    # only words, but for the configuration
    assert slot.mmio.read(Register.MAGIC_VALUE, 1) == slot.mmio.read(Register.MAGIC_VALUE, 8) == 0
    assert slot.mmio.read(Register.CONFIG, 8) == slot.disk.size // 512
    assert slot.mmio.read(Register.CONFIG + 1, 1) == slot.disk.size // 512 >> 8
    assert slot.mmio.read(0x1FC, 4) == 0


@both
def test_an_empty_slot_says_that_it_is_empty(modern: bool) -> None:
    """As QEMU's: magic, version and vendor are there, the device id is 0."""
    mmio = VirtioMmio("virtio0", Wire(), None, modern=modern)
    words = {offset: mmio.read(offset, 4) for offset in range(0, 0x200, 4)}
    assert {offset: word for offset, word in words.items() if word} == {
        0: 0x74726976,
        4: 2 if modern else 1,
        12: 0x554D4551,
    }
    for offset in range(0, 0x200, 4):
        mmio.write(offset, 4, 0xFFFFFFFF)
    assert mmio.state() == VirtioMmio("virtio0", Wire(), None, modern=modern).state()


def test_the_legacy_features_are_those_of_qemu() -> None:
    """Without SCSI and NOTIFY_ON_EMPTY, which nobody uses."""
    slot = Slot(False)
    assert slot.read(Register.DEVICE_FEATURES) == 0x31006ED4 & ~(1 << 7) & ~(1 << 24)
    slot.write(Register.DEVICE_FEATURES_SEL, 1)
    assert slot.read(Register.DEVICE_FEATURES) == 0


def test_a_modern_driver_must_take_version_1_and_nothing_that_is_not_offered() -> None:
    for features, accepted in (
        (0, False),
        (VERSION_1, True),
        (VERSION_1 | 1 << 40, False),
        (VERSION_1 | EVENT_IDX, True),
    ):
        slot = Slot(True)
        slot.write(Register.STATUS, 3)
        for half in range(2):
            slot.write(Register.DRIVER_FEATURES_SEL, half)
            slot.write(Register.DRIVER_FEATURES, features >> 32 * half & 0xFFFFFFFF)
        slot.write(Register.STATUS, 11)
        assert bool(slot.read(Register.STATUS) & 8) is accepted


def test_features_are_settled_with_features_ok() -> None:
    slot = Slot(True)
    slot.driver(features=EVENT_IDX).start()
    slot.write(Register.DRIVER_FEATURES_SEL, 0)
    slot.write(Register.DRIVER_FEATURES, INDIRECT_DESC)
    assert slot.device.has(EVENT_IDX) and not slot.device.has(INDIRECT_DESC)


@both
def test_the_interrupt_follows_its_status(modern: bool) -> None:
    slot = Slot(modern)
    driver = slot.driver().start()
    status = driver.place(b"\xff")
    driver.add([(driver.place(b"\4" + bytes(15)), 16)], [(status, 1)])
    driver.kick()
    assert not slot.wire.level and slot.read(Register.INTERRUPT_STATUS) == 0
    slot.disk.complete()
    assert slot.wire.level and slot.read(Register.INTERRUPT_STATUS) == 1
    slot.write(Register.INTERRUPT_ACK, 2)
    assert slot.wire.level
    slot.write(Register.INTERRUPT_ACK, 1)
    assert not slot.wire.level and slot.read(Register.INTERRUPT_STATUS) == 0
    assert driver.used() == [(0, 1)] and slot.memory.read(status, 1) == b"\0"


@both
def test_status_zero_resets(modern: bool) -> None:
    slot = Slot(modern)
    driver = slot.driver().start()
    driver.add([(driver.place(b"\4" + bytes(15)), 16)], [(driver.place(b"\xff"), 1)])
    driver.kick()
    slot.disk.complete()
    assert slot.wire.level
    slot.write(Register.STATUS, 0)
    assert not slot.wire.level
    assert slot.read(Register.STATUS) == slot.read(Register.INTERRUPT_STATUS) == 0
    slot.write(Register.QUEUE_SEL, 0)
    assert slot.read(Register.QUEUE_READY if modern else Register.QUEUE_PFN) == 0
    driver.heads.clear()
    driver.start()  # and can be used again


@both
def test_nonsense_in_the_rings_breaks_the_device_until_it_is_reset(modern: bool) -> None:
    slot = Slot(modern)
    driver = slot.driver().start()
    slot.memory.write(driver.rings[0].available + 2, b"\xff\xff")
    driver.kick()
    assert bool(slot.read(Register.STATUS) & 64) is modern
    assert driver.interrupts() == (2 if modern else 0)
    slot.memory.write(driver.rings[0].available + 2, b"\0\0")
    driver.add([(driver.place(b"\4" + bytes(15)), 16)], [(driver.place(b"\xff"), 1)])
    driver.kick()
    assert not slot.disk.log
    driver.heads.clear()
    driver.start()
    driver.add([(driver.place(b"\4" + bytes(15)), 16)], [(driver.place(b"\xff"), 1)])
    driver.kick()
    assert slot.disk.log == [("flush",)]


def test_a_modern_queue_is_left_alone_before_driver_ok() -> None:
    slot = Slot(True)
    driver = slot.driver().start()
    slot.device.set_status(11)
    driver.add([(driver.place(b"\4" + bytes(15)), 16)], [(driver.place(b"\xff"), 1)])
    driver.kick()
    driver.write(Register.QUEUE_NOTIFY, 77)
    assert not slot.disk.log


@both
def test_a_queue_takes_powers_of_two_up_to_its_most(modern: bool) -> None:
    slot = Slot(modern)
    for size, taken in ((16, 16), (15, 16), (0, 16), (512, 16), (256, 256), (1, 1), (1 << 31, 1)):
        slot.write(Register.QUEUE_NUM, size)
        assert slot.device.queues[0].size == taken


def test_a_legacy_ring_lies_where_the_specification_puts_it() -> None:
    """2.7.2: the used ring begins at the next boundary behind the available ring; the page size outlives a reset."""
    slot = Slot(False)
    slot.write(Register.GUEST_PAGE_SIZE, 4096)
    slot.write(Register.STATUS, 0)
    slot.write(Register.QUEUE_NUM, 128)
    slot.write(Register.QUEUE_ALIGN, 512)
    slot.write(Register.QUEUE_PFN, 0x40010)
    queue = slot.device.queues[0]
    assert (queue.descriptors, queue.available, queue.used) == (0x40010000, 0x40010800, 0x40010A00 + 0x000)
    assert slot.read(Register.QUEUE_PFN) == 0x40010
    slot.write(Register.QUEUE_PFN, 0)
    assert slot.read(Register.QUEUE_PFN) == 0 and not queue.ready


@pytest.mark.parametrize(("page_size", "align"), [(0, 4096), (4096, 0), (3000, 4096), (4096, 48)])
def test_a_legacy_ring_without_a_sane_page_size_or_boundary_is_not_there(page_size: int, align: int) -> None:
    slot = Slot(False)
    slot.write(Register.GUEST_PAGE_SIZE, page_size)
    slot.write(Register.QUEUE_ALIGN, align)
    slot.write(Register.QUEUE_PFN, 0x40010)
    assert slot.read(Register.QUEUE_PFN) == 0
    slot.write(Register.QUEUE_NOTIFY, 0)


def test_the_generation_tells_that_the_configuration_changed() -> None:
    slot = Slot(True)
    driver = slot.driver().start()
    assert slot.read(Register.CONFIG_GENERATION) == 0
    slot.device.configuration_changed()
    assert slot.read(Register.CONFIG_GENERATION) == 1
    assert driver.interrupts() == 2
