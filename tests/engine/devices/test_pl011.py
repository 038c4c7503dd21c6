"""The PL011 against DDI 0183."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.wires import Wire
from timevm.engine.devices.pl011 import (
    CR,
    CR_DTR,
    CR_LBE,
    DMACR,
    DR,
    DR_BE,
    DR_OE,
    FBRD,
    FIFO_DEPTH,
    FR,
    FR_DSR,
    FR_RXFE,
    FR_RXFF,
    FR_TXFE,
    IBRD,
    ICR,
    IFLS,
    ILPR,
    IMSC,
    INT_DSR,
    INT_OE,
    INT_RT,
    INT_RX,
    INT_TX,
    LCR_BRK,
    LCR_FEN,
    LCR_H,
    MIS,
    RIS,
    RSR,
    RSR_OE,
    Pl011,
)


class UartRig:
    def __init__(self) -> None:
        self.log: list[Any] = []
        self.wire = Wire()
        self.device = Pl011("serial0", self, lambda data: self.log.append(data))
        self.device.space_freed = lambda: self.log.append("space freed")
        self.device.changed = lambda: self.log.append("changed")
        self.windows = [self.device]

    def set(self, level: bool) -> None:
        self.wire.set(level)
        self.log.append(level)

    def outside(self, number: int) -> None:
        self.device.receive(number.to_bytes(3, "little")[: 1 + number % 3])

    def calls(self) -> list[Any]:
        return self.log

    def surroundings(self) -> None: ...

    def restore_surroundings(self, state: Any) -> None: ...

    def read(self, offset: int) -> int:
        return self.device.read(offset, 4)

    def write(self, offset: int, value: int) -> None:
        self.device.write(offset, 4, value)

    def sent(self) -> bytes:
        return b"".join(item for item in self.log if isinstance(item, bytes))


REGISTERS = [DR, RSR, FR, ILPR, IBRD, FBRD, LCR_H, CR, IFLS, IMSC, RIS, MIS, ICR, DMACR, 0xFE0]
UART_STEPS = steps(REGISTERS, st.integers(0, 0xFFFF))


@given(UART_STEPS, UART_STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(UartRig, before, after)


@given(UART_STEPS)
def test_fast_path_properties_are_true(todo: list[Step]) -> None:
    """FR as published is FR as read, ``changed`` says so in time, and a quiet write changes no state and no line."""
    rig = UartRig()
    published = (rig.device.flag_register(), rig.device.transmit_is_quiet())

    def publish() -> None:
        nonlocal published
        published = (rig.device.flag_register(), rig.device.transmit_is_quiet())

    rig.device.changed = publish
    for step in todo:
        if step.kind == "outside":
            rig.outside(step.number)
        elif step.kind == "write":
            rig.device.write(step.offset % 0x1000 & ~3, 4, step.number)
        else:
            rig.device.read(step.offset % 0x1000 & ~3, 4)
        assert published == (rig.read(FR), rig.device.transmit_is_quiet())
        if published[1]:
            state, calls = rig.device.state(), len(rig.log)
            rig.write(DR, 0x41)
            assert rig.device.state() == state
            assert rig.log[calls:] == [b"A"]


@given(st.lists(st.one_of(st.binary(max_size=20), st.integers(1, 20)), max_size=30), st.booleans())
def test_nothing_is_lost_within_capacity(todo: list[bytes | int], fifo: bool) -> None:
    """Bytes given up to ``capacity`` come out in order without an overrun, whatever the pace of reading."""
    rig = UartRig()
    rig.write(LCR_H, LCR_FEN if fifo else 0)
    given_bytes, got = b"", b""
    for item in todo:
        if isinstance(item, bytes):
            taken = item[: rig.device.capacity()]
            rig.device.receive(taken)
            given_bytes += taken
        else:
            for _ in range(item):
                if not rig.read(FR) & FR_RXFE:
                    got += bytes([rig.read(DR)])
    while not rig.read(FR) & FR_RXFE:
        got += bytes([rig.read(DR)])
    assert got == given_bytes
    assert not rig.read(RIS) & INT_OE


def test_power_on_values() -> None:
    rig = UartRig()
    assert (rig.read(FR), rig.read(CR), rig.read(IFLS), rig.read(IMSC), rig.read(RIS)) == (0x90, 0x300, 0x12, 0, 0)
    assert bytes(rig.read(offset) for offset in range(0xFE0, 0x1000, 4)) == bytes.fromhex("111014000DF005B1")


def test_widths_of_registers() -> None:
    rig = UartRig()
    for offset, kept in ((ILPR, 0xFF), (IBRD, 0xFFFF), (FBRD, 0x3F), (LCR_H, 0xFF), (CR, 0xFF87), (IFLS, 0x3F)):
        rig.write(offset, 0xFFFFFFFF)
        assert rig.read(offset) == kept
    rig.write(IMSC, 0xFFFFFFFF)
    rig.write(DMACR, 0xFFFFFFFF)
    assert (rig.read(IMSC), rig.read(DMACR)) == (0x7FF, 7)


def test_transmit_interrupt_follows_the_write() -> None:
    """Unmasking alone raises nothing (DDI 0183 3.3.9: based on a transition, not on the level)."""
    rig = UartRig()
    rig.write(IMSC, INT_TX)
    assert not rig.wire.level
    rig.write(DR, ord("x"))
    assert rig.wire.level and rig.read(MIS) == INT_TX and rig.sent() == b"x"
    rig.write(ICR, INT_TX)
    assert not rig.wire.level


def test_receive_interrupt_at_the_trigger_level() -> None:
    for select, trigger in enumerate((2, 4, 8, 12, 14)):
        rig = UartRig()
        rig.write(LCR_H, LCR_FEN)
        rig.write(IFLS, select << 3)
        rig.write(IMSC, INT_RX)
        rig.device.receive(bytes(trigger - 1))
        assert not rig.wire.level
        rig.device.receive(b"!")
        assert rig.wire.level
        rig.read(DR)
        assert not rig.wire.level


def test_receive_timeout() -> None:
    rig = UartRig()
    rig.write(LCR_H, LCR_FEN)
    rig.write(IMSC, INT_RT)
    rig.device.receive(b"ab")
    assert rig.wire.level and rig.read(RIS) == INT_RT
    rig.write(ICR, INT_RT)
    assert not rig.wire.level
    assert rig.read(DR) == ord("a") and rig.wire.level, "silence again, and a character is left"
    assert rig.read(DR) == ord("b") and not rig.wire.level


def test_character_mode_interrupts_at_each_byte() -> None:
    rig = UartRig()
    rig.write(IMSC, INT_RX)
    assert rig.device.capacity() == 1
    rig.device.receive(b"q")
    assert rig.wire.level and rig.read(FR) == FR_TXFE | FR_RXFF and rig.device.capacity() == 0
    assert rig.read(DR) == ord("q") and not rig.wire.level
    assert rig.log.count("space freed") == 1


def test_overrun_keeps_what_was_there() -> None:
    rig = UartRig()
    rig.write(LCR_H, LCR_FEN)
    rig.device.receive(bytes(range(FIFO_DEPTH)) + b"lost")
    assert rig.read(RIS) & INT_OE and rig.read(RSR) & RSR_OE
    assert rig.read(DR) == DR_OE
    rig.device.receive(b"\x7f")
    assert [rig.read(DR) for _ in range(FIFO_DEPTH)] == [*range(1, FIFO_DEPTH), 0x7F]
    rig.write(RSR, 0)
    assert rig.read(RSR) == 0


def test_loopback() -> None:
    rig = UartRig()
    rig.write(CR, CR_LBE)
    assert rig.device.capacity() == 0
    rig.device.receive(b"cut off")
    assert rig.read(FR) & FR_RXFE
    rig.write(DR, ord("y"))
    assert rig.read(DR) == ord("y")
    rig.write(CR, CR_LBE | CR_DTR)
    assert rig.read(FR) & FR_DSR and rig.read(RIS) & INT_DSR
    rig.write(LCR_H, LCR_BRK)
    assert rig.read(DR) == DR_BE and rig.read(RSR) == DR_BE >> 8
    rig.log.clear()
    rig.write(CR, 0)
    assert "space freed" in rig.log and not rig.read(FR) & FR_DSR


def test_switching_the_fifo_empties_it() -> None:
    rig = UartRig()
    rig.write(LCR_H, LCR_FEN)
    rig.device.receive(b"abc")
    rig.write(LCR_H, 0)
    assert rig.read(FR) == FR_RXFE | FR_TXFE and rig.read(RIS) == 0


def test_byte_and_doubleword_accesses() -> None:
    rig = UartRig()
    rig.device.write(DR, 1, ord("z"))
    assert rig.sent() == b"z"
    assert rig.device.read(0xFE1, 1) == 0 and rig.device.read(0xFE0, 2) == 0x11
    assert rig.device.read(0xFE0, 8) == 0x10_00000011
