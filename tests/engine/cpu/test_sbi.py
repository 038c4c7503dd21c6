"""The supervisor binary interface against its specification, version 2.0."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timevm.engine.cpu.base import StopKind
from timevm.engine.cpu.sbi import (
    ALL,
    CONSOLE_MOST,
    HART_STARTED,
    NON_RETENTIVE,
    SPECIFICATION_2_0,
    Error,
    Extension,
    Sbi,
    SbiOutcome,
)

BASE = 0x8000_0000


class ToyPlatform:
    """A page of RAM at BASE, mapped at the same address and 1 GiB above it."""

    def __init__(self) -> None:
        self.memory = bytearray(4096)
        self.timers: list[int] = []
        self.software: list[bool] = []
        self.written = b""
        self.typed = b""

    def set_timer(self, ticks: int) -> None:
        self.timers.append(ticks)

    def set_software_interrupt(self, level: bool) -> None:
        self.software.append(level)

    def write_console(self, data: bytes) -> None:
        self.written += data

    def read_console(self, most: int) -> bytes:
        data, self.typed = self.typed[:most], self.typed[most:]
        return data

    def _contains(self, address: int, size: int) -> bool:
        return address >= BASE and address + size <= BASE + len(self.memory)

    def read_memory(self, address: int, size: int) -> bytes | None:
        if not self._contains(address, size):
            return None
        return bytes(self.memory[address - BASE : address - BASE + size])

    def write_memory(self, address: int, data: bytes) -> bool:
        if not self._contains(address, len(data)):
            return False
        self.memory[address - BASE : address - BASE + len(data)] = data
        return True

    def read_virtual(self, address: int, size: int) -> bytes | None:
        return self.read_memory(address if address < BASE + (1 << 30) else address - (1 << 30), size)


class Firmware:
    def __init__(self) -> None:
        self.platform = ToyPlatform()
        self.sbi = Sbi(self.platform)

    def call(self, extension: int, function: int = 0, *arguments: int) -> SbiOutcome:
        filled = [*arguments, *[0] * 6][:6]
        return self.sbi(extension, function, (filled[0], filled[1], filled[2], filled[3], filled[4], filled[5]))


@pytest.fixture
def firmware() -> Firmware:
    return Firmware()


def test_base(firmware: Firmware) -> None:
    assert firmware.call(Extension.BASE, 0) == SbiOutcome(value=SPECIFICATION_2_0)
    assert firmware.call(Extension.BASE, 0).value == 0x0200_0000, "major in bits 30 to 24, minor below"
    for function in (1, 2, 4, 5, 6):
        assert firmware.call(Extension.BASE, function).error == Error.SUCCESS
    for extension in Extension:
        assert firmware.call(Extension.BASE, 3, extension) == SbiOutcome(value=1)
    for absent in (0x09, 0x0F, 0x504D55, 0x535553_50, 0x4E41434C):
        assert firmware.call(Extension.BASE, 3, absent) == SbiOutcome(value=0)
        assert firmware.call(absent, 0) == SbiOutcome(Error.NOT_SUPPORTED)


@pytest.mark.parametrize("extension", [each for each in Extension if each > Extension.SHUTDOWN])
def test_unknown_functions(firmware: Firmware, extension: Extension) -> None:
    assert firmware.call(extension, 99, 1) == SbiOutcome(Error.NOT_SUPPORTED)


def test_timer(firmware: Firmware) -> None:
    assert firmware.call(Extension.TIME, 0, 12345) == SbiOutcome()
    assert firmware.call(Extension.SET_TIMER, 7, ALL) == SbiOutcome(value=None)
    assert firmware.platform.timers == [12345, ALL]


@pytest.mark.parametrize(
    ("mask", "base", "error", "raised"),
    [
        (1, 0, Error.SUCCESS, [True]),
        (0, 0, Error.SUCCESS, []),
        (0, ALL, Error.SUCCESS, [True]),
        (2, ALL, Error.SUCCESS, [True]),
        (2, 0, Error.INVALID_PARAM, []),
        (3, 0, Error.INVALID_PARAM, []),
        (1, 1, Error.INVALID_PARAM, []),
    ],
)
def test_harts_of_a_call(firmware: Firmware, mask: int, base: int, error: Error, raised: list[bool]) -> None:
    assert firmware.call(Extension.IPI, 0, mask, base) == SbiOutcome(error)
    assert firmware.platform.software == raised
    for function in range(3):
        assert firmware.call(Extension.RFENCE, function, mask, base, 0, 4096, 1) == SbiOutcome(
            error, fence=bool(raised)
        )
    assert firmware.call(Extension.RFENCE, 3, mask, base).error == Error.NOT_SUPPORTED


def test_hart_states(firmware: Firmware) -> None:
    assert firmware.call(Extension.HSM, 0, 0, BASE, 5).error == Error.ALREADY_AVAILABLE
    assert firmware.call(Extension.HSM, 0, 1, BASE, 5).error == Error.INVALID_PARAM
    assert firmware.call(Extension.HSM, 1) == SbiOutcome(stop=StopKind.POWER_OFF)
    assert firmware.call(Extension.HSM, 2, 0) == SbiOutcome(value=HART_STARTED)
    assert firmware.call(Extension.HSM, 2, 1).error == Error.INVALID_PARAM
    assert firmware.call(Extension.HSM, 3, 0) == SbiOutcome(wait=True)
    for kind in (NON_RETENTIVE, 0x1000_0000, 0x7FFF_FFFF, 0x9000_0000, 0xFFFF_FFFF):
        assert firmware.call(Extension.HSM, 3, kind).error == Error.NOT_SUPPORTED
    for kind in (1, 0x0FFF_FFFF, 0x8000_0001, 0x8FFF_FFFF):
        assert firmware.call(Extension.HSM, 3, kind).error == Error.INVALID_PARAM


def test_system_reset(firmware: Firmware) -> None:
    assert firmware.call(Extension.SRST, 0, 0, 0) == SbiOutcome(stop=StopKind.POWER_OFF)
    assert firmware.call(Extension.SRST, 0, 0, 1) == SbiOutcome(stop=StopKind.POWER_OFF)
    for kind in (1, 2):
        assert firmware.call(Extension.SRST, 0, kind, 0) == SbiOutcome(stop=StopKind.RESET)
    for kind, reason in ((3, 0), (0xEFFF_FFFF, 0), (0, 2), (0, 0xDFFF_FFFF)):
        assert firmware.call(Extension.SRST, 0, kind, reason).error == Error.INVALID_PARAM
    assert firmware.call(Extension.SRST, 0, 0xF000_0000, 0).error == Error.NOT_SUPPORTED
    assert firmware.call(Extension.SHUTDOWN).stop is StopKind.POWER_OFF


def test_console(firmware: Firmware) -> None:
    platform = firmware.platform
    platform.memory[16:21] = b"hello"
    assert firmware.call(Extension.DBCN, 0, 5, BASE + 16, 0) == SbiOutcome(value=5)
    assert firmware.call(Extension.DBCN, 2, ord("!")) == SbiOutcome()
    assert firmware.call(Extension.CONSOLE_PUTCHAR, 0, 0x10A) == SbiOutcome(value=None)
    assert platform.written == b"hello!\n"
    for address, high in ((BASE - 1, 0), (BASE + 4095, 0), (BASE, 1)):
        assert firmware.call(Extension.DBCN, 0, 5, address, high).error == Error.INVALID_PARAM
    platform.typed = b"typed"
    assert firmware.call(Extension.DBCN, 1, 3, BASE + 4095, 0).error == Error.INVALID_PARAM
    assert firmware.call(Extension.DBCN, 1, 3, BASE + 100, 0) == SbiOutcome(value=3)
    assert firmware.call(Extension.CONSOLE_GETCHAR) == SbiOutcome(ord("e"), None)
    assert firmware.call(Extension.DBCN, 1, 3, BASE + 103, 0) == SbiOutcome(value=1)
    assert firmware.call(Extension.DBCN, 1, 3, BASE + 103, 0) == SbiOutcome(value=0)
    assert firmware.call(Extension.CONSOLE_GETCHAR) == SbiOutcome(-1, None)
    assert platform.memory[100:104] == b"typd"


def test_a_write_that_is_too_long_is_done_in_part(firmware: Firmware) -> None:
    assert firmware.call(Extension.DBCN, 0, 1 << 63, BASE, 0) == SbiOutcome(value=CONSOLE_MOST)


def test_legacy_harts_are_a_bitmap_in_virtual_memory(firmware: Firmware) -> None:
    platform = firmware.platform
    platform.memory[0:8] = (2).to_bytes(8, "little")
    platform.memory[8:16] = (3).to_bytes(8, "little")
    above = BASE + (1 << 30)
    for address, meant in ((0, True), (above, False), (above + 8, True)):
        platform.software.clear()
        assert firmware.call(Extension.SEND_IPI, 0, address) == SbiOutcome(value=None)
        assert platform.software == [True] * meant
        for extension in (5, 6, 7):
            assert firmware.call(extension, 0, address) == SbiOutcome(value=None, fence=meant)
    assert firmware.call(Extension.SEND_IPI, 0, 5) == SbiOutcome(Error.INVALID_ADDRESS, None)
    platform.software.clear()
    assert firmware.call(Extension.CLEAR_IPI) == SbiOutcome(value=None)
    assert platform.software == [False]


REGISTER = st.one_of(st.integers(0, 16), st.sampled_from([*Extension, BASE, ALL]), st.integers(0, ALL))


@given(REGISTER, REGISTER, st.tuples(*[REGISTER] * 6))
def test_whatever_a_guest_asks_is_answered(extension: int, function: int, arguments: tuple[int, ...]) -> None:
    outcome = Firmware().call(extension, function, *arguments)
    assert -(1 << 63) <= outcome.error < 1 << 63
    assert outcome.value is None or 0 <= outcome.value < 1 << 63
