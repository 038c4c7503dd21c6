"""virtio entropy: a stream that the seed decides."""

from __future__ import annotations

import pytest

from tests.engine.devices.virtio_driver import Driver, Memory
from tests.engine.devices.wires import Wire
from timevm.engine.devices.virtio_mmio import VirtioMmio
from timevm.engine.devices.virtio_rng import MOST_BYTES, VirtioRng


def start(seed: bytes, modern: bool = True) -> tuple[VirtioRng, Driver]:
    memory = Memory()
    device = VirtioRng("rng", memory, seed)
    return device, Driver(VirtioMmio("virtio0", Wire(), device, modern=modern), memory, modern=modern).start()


def ask(driver: Driver, *sizes: int) -> bytes:
    """One chain with a buffer of each size; what came."""
    places = [(driver.place(bytes(size)), size) for size in sizes]
    driver.add([], places)
    driver.kick()
    [(_, written)] = driver.used()
    return b"".join(driver.memory.read(*place) for place in places)[:written]


@pytest.mark.parametrize("modern", [False, True])
def test_the_seed_decides_the_bytes_and_not_how_they_are_asked_for(modern: bool) -> None:
    _, first = start(b"one", modern)
    stream = b"".join(ask(first, size) for size in (1, 63, 64, 65, 500, 7))
    assert len(stream) == 700 and len(set(stream)) > 200
    _, second = start(b"one", modern)
    assert ask(second, 100, 300, 300) == stream
    _, other = start(b"two", modern)
    assert ask(other, 700) != stream


def test_a_driver_that_resets_the_device_gets_new_bytes_and_power_on_the_old_ones() -> None:
    device, driver = start(b"one")
    stream = ask(driver, 32)
    driver.start()
    assert ask(driver, 32) != stream
    device.reset()
    driver.start()
    assert ask(driver, 32) == stream


def test_a_buffer_of_many_gigabytes_is_not_filled() -> None:
    """A hostile driver: the same megabyte a thousand times."""
    _, driver = start(b"one")
    place = driver.place(bytes(MOST_BYTES))
    driver.add([], [(place, MOST_BYTES)] * 900, indirect=True)
    driver.kick()
    assert driver.used() == [(0, MOST_BYTES)]


def test_a_buffer_outside_of_ram_breaks_the_device_only() -> None:
    device, driver = start(b"one")
    driver.add([], [(0, 100)])
    driver.kick()
    assert device.is_broken and driver.used() == []
