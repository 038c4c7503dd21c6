"""virtio over PCI against section 4.1 of the specification: the driver of the virtio-mmio tests, on other registers."""

from __future__ import annotations

import struct
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.virtio_driver import PAGE, Driver, ManualDisk, Memory
from tests.engine.devices.wires import Wire
from timevm.engine.devices.base import Device
from timevm.engine.devices.pci_function import BARS, COMMAND, COMMAND_IO, COMMAND_MEMORY, COMMAND_NO_INTERRUPT
from timevm.engine.devices.virtio import VERSION_1
from timevm.engine.devices.virtio_blk import VirtioBlk
from timevm.engine.devices.virtio_mmio import Register, VirtioMmio
from timevm.engine.devices.virtio_pci import Interface, VirtioPci
from timevm.engine.devices.virtio_pci_registers import Common, Port, Structure
from timevm.engine.devices.virtio_rng import VirtioRng

PORTS, MEMORY = 0xC000, 0xFEB0_0000


class Space:
    """A window of the function, as the bus would find it; a Device for the conformance suite."""

    def __init__(self, function: VirtioPci, *, is_io: bool, size: int) -> None:
        self.name, self.window = "space", size
        self._function, self._is_io = function, is_io

    def _at(self) -> Any:
        return next(window for window in self._function.windows() if window.is_io is self._is_io).handler

    def read(self, offset: int, size: int) -> int:
        return int(self._at().read(offset, size)) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        self._at().write(offset, size, value)


class CardRig:
    def __init__(self, interface: Interface = Interface.TRANSITIONAL, *, entropy: bool = False) -> None:
        self.wire, self.memory, self.disk = Wire(), Memory(), ManualDisk()
        self.virtio = VirtioRng("rng", self.memory, b"seed") if entropy else VirtioBlk("disk", self.memory, self.disk)
        self.device = VirtioPci("card", self.virtio, interface, self.wire)
        self.windows: list[Device] = []
        if interface is not Interface.MODERN:
            self.ports = Space(self.device, is_io=True, size=64)
            self.windows.append(self.ports)
            self.device.config_write(BARS, 4, PORTS)
        if interface is not Interface.LEGACY:
            self.space = Space(self.device, is_io=False, size=0x4000)
            self.windows.append(self.space)
            self.device.config_write(BARS + 16, 4, MEMORY)
        self.device.config_write(COMMAND, 2, COMMAND_IO | COMMAND_MEMORY)

    def outside(self, number: int) -> None:
        if self.disk.in_flight:
            self.disk.complete(failed=number % 5 == 0)

    def calls(self) -> list[Any]:
        return [*self.wire.calls, *self.memory.writes]

    def surroundings(self) -> Any:
        return bytes(self.memory.data), bytes(self.disk.data), dict(self.disk.in_flight), self.disk.next

    def restore_surroundings(self, state: Any) -> None:
        self.memory.data[:], self.disk.data[:] = state[0], state[1]
        self.disk.in_flight, self.disk.next = dict(state[2]), state[3]


class AsMmio:
    """The registers of virtio-mmio, for the driver of those tests, carried out on the card's own."""

    def __init__(self, rig: CardRig, *, modern: bool) -> None:
        self.rig, self.modern = rig, modern

    def read(self, register: int, size: int = 4) -> int:
        if self.modern:
            common = {
                Register.STATUS: (Common.STATUS, 1),
                Register.DEVICE_FEATURES: (Common.FEATURES, 4),
                Register.QUEUE_NUM_MAX: (Common.QUEUE_SIZE, 2),
                Register.QUEUE_READY: (Common.QUEUE_ENABLE, 2),
            }
            if register == Register.INTERRUPT_STATUS:
                return self.rig.space.read(Structure.INTERRUPT, 1)
            return self.rig.space.read(*common[Register(register)])
        ports = {
            Register.STATUS: (Port.STATUS, 1),
            Register.DEVICE_FEATURES: (Port.FEATURES, 4),
            Register.QUEUE_NUM_MAX: (Port.QUEUE_SIZE, 2),
            Register.QUEUE_PFN: (Port.QUEUE_PAGE, 4),
            Register.INTERRUPT_STATUS: (Port.INTERRUPT_STATUS, 1),
        }
        if register == Register.DEVICE_FEATURES and self.selected:
            return 0
        return self.rig.ports.read(*ports[Register(register)])

    selected = 0

    def write(self, register: int, size: int, value: int) -> None:
        if register == Register.INTERRUPT_ACK:
            return  # reading did it
        if self.modern:
            self._write_modern(register, value)
            return
        ports = {
            Register.STATUS: (Port.STATUS, 1),
            Register.DRIVER_FEATURES: (Port.DRIVER_FEATURES, 4),
            Register.QUEUE_SEL: (Port.QUEUE_SELECT, 2),
            Register.QUEUE_PFN: (Port.QUEUE_PAGE, 4),
            Register.QUEUE_NOTIFY: (Port.QUEUE_NOTIFY, 2),
        }
        if register == Register.DEVICE_FEATURES_SEL:
            self.selected = value
        elif register in ports:
            self.rig.ports.write(*ports[Register(register)], value)

    def _write_modern(self, register: int, value: int) -> None:
        common = {
            Register.STATUS: (Common.STATUS, 1),
            Register.DEVICE_FEATURES_SEL: (Common.SELECT_FEATURES, 4),
            Register.DRIVER_FEATURES_SEL: (Common.SELECT_DRIVER_FEATURES, 4),
            Register.DRIVER_FEATURES: (Common.DRIVER_FEATURES, 4),
            Register.QUEUE_SEL: (Common.QUEUE_SELECT, 2),
            Register.QUEUE_NUM: (Common.QUEUE_SIZE, 2),
            Register.QUEUE_READY: (Common.QUEUE_ENABLE, 2),
        }
        addresses = {Register.QUEUE_DESC: 0, Register.QUEUE_DRIVER: 8, Register.QUEUE_DEVICE: 16}
        if register == Register.QUEUE_NOTIFY:
            self.rig.space.write(Structure.NOTIFY + 4 * value, 2, value)
        elif register in common:
            self.rig.space.write(*common[Register(register)], value)
        else:
            base = register & ~4 if register & ~4 in addresses else register
            self.rig.space.write(Common.ADDRESSES + addresses[Register(base)] + register - base, 4, value)


def drive(rig: CardRig, *, modern: bool) -> Driver:
    size = 8 if modern else rig.virtio.queues[0].largest
    driver = Driver(cast(VirtioMmio, AsMmio(rig, modern=modern)), rig.memory, modern=modern, size=size).start()
    if not modern:
        # A legacy queue has the size that the device says: its used ring begins a page later.
        driver.rings[0].used = driver.rings[0].descriptors + 2 * PAGE
    return driver


WAYS = pytest.mark.parametrize(
    ("interface", "modern"),
    [
        (Interface.TRANSITIONAL, True),
        (Interface.TRANSITIONAL, False),
        (Interface.MODERN, True),
        (Interface.LEGACY, False),
    ],
)
CARD_STEPS = steps(
    [*range(0, 0x40, 2), 0x14, 0x14, 0x16, 0x1000, 0x2000, 0x3000],
    st.one_of(st.integers(0, 15), st.integers(0, 2**32 - 1), st.just(0x8000_0000 // PAGE)),
)


@settings(deadline=None)
@given(st.sampled_from(Interface), st.booleans(), CARD_STEPS, CARD_STEPS)
def test_conformance(interface: Interface, entropy: bool, before: list[Step], after: list[Step]) -> None:
    check_round_trip_of(interface, entropy, before, after)


def check_round_trip_of(interface: Interface, entropy: bool, before: list[Step], after: list[Step]) -> None:
    """The power-on state of the suite is the one before the base addresses are set: a reset clears those."""

    class Rig(CardRig):
        def __init__(self) -> None:
            super().__init__(interface, entropy=entropy)
            self.device = cast(VirtioPci, Settled(self.device))

    check_state_round_trip(Rig, before, after)


class Settled:
    """The function with its base addresses: ``reset`` sets them again."""

    def __init__(self, function: VirtioPci) -> None:
        self._function = function
        self._bars = [function.config_read(BARS + 4 * index, 4) for index in range(6)]

    def reset(self) -> None:
        self._function.reset()
        for index, value in enumerate(self._bars):
            self._function.config_write(BARS + 4 * index, 4, value)
        self._function.config_write(COMMAND, 2, COMMAND_IO | COMMAND_MEMORY)

    def state(self) -> dict[str, Any]:
        return self._function.state()

    def restore(self, state: dict[str, Any]) -> None:
        self._function.restore(state)


@WAYS
def test_reads_a_sector(interface: Interface, modern: bool) -> None:
    rig = CardRig(interface)
    rig.disk.data[512:1024] = bytes(range(256)) * 2
    driver = drive(rig, modern=modern)
    data, status = (driver.place(bytes(512)), 512), (driver.place(b"\xff"), 1)
    head = driver.add([(driver.place(struct.pack("<IIQ", 0, 0, 1)), 16)], [data, status])
    driver.kick()
    assert not rig.wire.level
    rig.disk.complete()
    assert rig.wire.level and rig.device.config_read(6, 2) & 8
    assert driver.used() == [(head, 513)]
    assert rig.memory.read(data[0], 512) == rig.disk.data[512:1024] and rig.memory.read(status[0], 1) == b"\0"
    assert driver.interrupts() == 1 and not rig.wire.level and not rig.device.config_read(6, 2) & 8


@WAYS
def test_configuration(interface: Interface, modern: bool) -> None:
    rig = CardRig(interface)
    sectors = rig.disk.size // 512
    if modern:
        assert rig.space.read(Structure.CONFIG, 4) == sectors
        assert rig.space.read(Structure.CONFIG + 0x14, 4) == 512
    else:
        assert rig.ports.read(Port.CONFIG, 4) == sectors


def test_identification() -> None:
    for interface, device, revision, subsystem in (
        (Interface.TRANSITIONAL, 0x1001, 0, 2),
        (Interface.LEGACY, 0x1001, 0, 2),
        (Interface.MODERN, 0x1042, 1, 0x1100),
    ):
        card = CardRig(interface).device
        assert card.config_read(0, 4) == device << 16 | 0x1AF4
        assert card.config_read(8, 4) == 0x0100_0000 | revision and card.config_read(0x2E, 2) == subsystem
    assert CardRig(entropy=True).device.config_read(2, 2) == 0x1005


def test_capabilities_say_where_the_structures_are() -> None:
    card = CardRig().device
    seen, at = {}, card.config_read(0x34, 1)
    while at:
        identifier, following, length, kind, bar = card.config[at : at + 5]
        assert identifier == 9 and length in (16, 20)
        seen[kind] = (bar, *struct.unpack_from("<II", card.config, at + 8))
        at = following
    assert seen == {
        1: (4, 0x0000, 0x1000),
        2: (4, 0x3000, 0x1000),
        3: (4, 0x1000, 0x1000),
        4: (4, 0x2000, 0x1000),
        5: (0, 0, 0),
    }
    assert not CardRig(Interface.LEGACY).device.config_read(0x34, 1)


def test_legacy_drivers_are_not_offered_version_1() -> None:
    rig = CardRig()
    assert rig.ports.read(Port.FEATURES, 4) == rig.virtio.offered & 0xFFFF_FFFF
    rig.space.write(Common.SELECT_FEATURES, 4, 1)
    assert rig.space.read(Common.FEATURES, 4) == VERSION_1 >> 32
    rig.space.write(Common.SELECT_FEATURES, 4, 2)
    assert rig.space.read(Common.FEATURES, 4) == 0


def test_access_by_configuration_cycles() -> None:
    card = CardRig().device
    at = next(at for at in range(0x40, 0xFC, 4) if card.config[at] == 9 and card.config[at + 3] == 5)
    card.config_write(at + 4, 1, 4)
    card.config_write(at + 8, 4, Structure.CONFIG)
    card.config_write(at + 12, 4, 4)
    assert card.config_read(at + 16, 4) == (1 << 20) // 512
    card.config_write(at + 8, 4, Common.STATUS)
    card.config_write(at + 12, 4, 1)
    card.config_write(at + 16, 1, 3)
    assert card.config_read(at + 16, 1) == 3 and card.device.status == 3
    card.config_write(at + 8, 4, 0x4000)
    assert card.config_read(at + 16, 1) == 0, "behind the window"


def test_a_driver_resets_the_device() -> None:
    rig = CardRig()
    driver = drive(rig, modern=True)
    driver.add([(driver.place(struct.pack("<IIQ", 4, 0, 0)), 16)], [(driver.place(b"\xff"), 1)])
    driver.kick()
    rig.disk.complete()
    assert rig.wire.level
    rig.space.write(Common.STATUS, 1, 0)
    assert not rig.wire.level and rig.space.read(Common.STATUS, 1) == 0
    assert rig.space.read(Common.QUEUE_ENABLE, 2) == 0


def test_the_command_register_can_hold_interrupts_back() -> None:
    rig = CardRig()
    driver = drive(rig, modern=True)
    rig.device.config_write(COMMAND, 2, COMMAND_IO | COMMAND_MEMORY | COMMAND_NO_INTERRUPT)
    driver.add([(driver.place(struct.pack("<IIQ", 4, 0, 0)), 16)], [(driver.place(b"\xff"), 1)])
    driver.kick()
    rig.disk.complete()
    assert not rig.wire.level
    rig.device.config_write(COMMAND, 2, COMMAND_IO | COMMAND_MEMORY)
    assert rig.wire.level
