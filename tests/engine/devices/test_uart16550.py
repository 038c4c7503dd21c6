"""The 16550A against National Semiconductor's PC16550D."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.devices.conformance import Step, check_state_round_trip, steps
from tests.engine.devices.wires import Wire
from timevm.engine.devices.uart16550 import (
    DATA,
    FCR,
    IER,
    IIR,
    LCR,
    LSR,
    LSR_OVERRUN,
    LSR_READY,
    MCR,
    MSR,
    SCR,
    Uart16550,
)


class UartRig:
    def __init__(self) -> None:
        self.log: list[Any] = []
        self.wire = Wire()
        self.device = Uart16550("serial0", self, lambda data: self.log.append(data))
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
        return self.device.read(offset, 1)

    def write(self, offset: int, value: int) -> None:
        self.device.write(offset, 1, value)

    def sent(self) -> bytes:
        return b"".join(item for item in self.log if isinstance(item, bytes))


UART_STEPS = steps(range(8), st.integers(0, 255))


@settings(deadline=None)
@given(UART_STEPS, UART_STEPS)
def test_conformance(before: list[Step], after: list[Step]) -> None:
    check_state_round_trip(UartRig, before, after)


@settings(deadline=None)
@given(UART_STEPS)
def test_fast_path_properties_are_true(todo: list[Step]) -> None:
    """LSR as published is LSR as read, ``changed`` says so in time, and a quiet write changes no state and no line."""
    rig = UartRig()
    published = (rig.device.line_status(), rig.device.transmit_is_quiet())

    def publish() -> None:
        nonlocal published
        published = (rig.device.line_status(), rig.device.transmit_is_quiet())

    rig.device.changed = publish
    for step in todo:
        if step.kind == "outside":
            rig.outside(step.number)
        elif step.kind == "write":
            rig.device.write(step.offset & 7, 1, step.number)
        else:
            rig.device.read(step.offset & 7, 1)
        assert published == (rig.device.line_status(), rig.device.transmit_is_quiet())
        if not published[0] & LSR_OVERRUN:
            state = rig.device.state()
            assert rig.read(LSR) == published[0] and rig.device.state() == state
        if published[1]:
            state, calls = rig.device.state(), len(rig.log)
            rig.write(DATA, 0x41)
            assert rig.device.state() == state
            assert rig.log[calls:] == [b"A"]


@settings(deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=20), st.integers(1, 20)), max_size=30), st.booleans())
def test_nothing_is_lost_within_capacity(todo: list[bytes | int], fifo: bool) -> None:
    rig = UartRig()
    rig.write(FCR, fifo)
    given_bytes, got = b"", b""
    for item in todo:
        if isinstance(item, bytes):
            taken = item[: rig.device.capacity()]
            rig.device.receive(taken)
            given_bytes += taken
        else:
            for _ in range(item):
                if rig.read(LSR) & LSR_READY:
                    got += bytes([rig.read(DATA)])
    while rig.read(LSR) & LSR_READY:
        got += bytes([rig.read(DATA)])
    assert got == given_bytes
    assert not rig.read(LSR) & LSR_OVERRUN


def test_power_on_values() -> None:
    rig = UartRig()
    assert [rig.read(offset) for offset in range(8)] == [0, 0, 1, 0, 0, 0x60, 0xB0, 0]


def test_linux_finds_a_16550a() -> None:
    rig = UartRig()
    rig.write(IER, 0xFF)
    assert rig.read(IER) == 0x0F
    rig.write(IER, 0)
    rig.write(FCR, 1)
    assert rig.read(IIR) == 0xC1
    rig.write(SCR, 0xA5)
    assert rig.read(SCR) == 0xA5
    rig.write(MCR, 0x1A)
    assert rig.read(MSR) & 0xF0 == 0x90
    rig.write(FCR, 0)
    assert rig.read(IIR) == 0x01


def test_divisor_latch() -> None:
    rig = UartRig()
    rig.write(LCR, 0x83)
    rig.write(DATA, 0x34)
    rig.write(IER, 0x12)
    assert (rig.read(DATA), rig.read(IER)) == (0x34, 0x12)
    rig.write(LCR, 0x03)
    assert rig.read(IER) == 0 and rig.sent() == b""


def test_transmit_interrupt() -> None:
    rig = UartRig()
    rig.write(IER, 2)
    assert rig.wire.level and rig.read(IIR) == 0x02
    assert not rig.wire.level and rig.read(IIR) == 0x01, "reading IIR took it"
    rig.write(DATA, ord("x"))
    assert rig.wire.level and rig.sent() == b"x"
    rig.write(IER, 0)
    assert not rig.wire.level
    rig.read(IIR)
    rig.write(IER, 2)
    assert rig.wire.level, "enabled again with the register empty"


def test_receive_interrupt_at_the_trigger_level_and_timeout_below() -> None:
    for select, trigger in enumerate((1, 4, 8, 14)):
        rig = UartRig()
        rig.write(FCR, select << 6 | 1)
        rig.write(IER, 1)
        rig.device.receive(bytes(trigger))
        assert rig.wire.level and rig.read(IIR) == 0xC4
        rig.read(DATA)
        if trigger > 1:
            assert rig.wire.level and rig.read(IIR) == 0xCC
        for _ in range(trigger - 1):
            rig.read(DATA)
        assert not rig.wire.level


def test_priorities_of_interrupts() -> None:
    rig = UartRig()
    rig.write(IER, 0x0F)
    rig.write(MCR, 0x10)
    rig.write(MCR, 0)
    rig.device.receive(b"ab")
    seen = [rig.read(IIR)]
    rig.read(LSR)
    seen.append(rig.read(IIR))
    rig.read(DATA)
    seen += [rig.read(IIR), rig.read(IIR)]
    rig.read(MSR)
    seen.append(rig.read(IIR))
    assert seen == [0x06, 0x04, 0x02, 0x00, 0x01]


def test_overrun() -> None:
    rig = UartRig()
    rig.device.receive(b"ab")
    assert rig.read(LSR) == 0x63 and rig.read(LSR) == 0x61
    assert rig.read(DATA) == ord("b"), "the unread character is overwritten"
    rig.write(FCR, 1)
    rig.device.receive(bytes(range(17)))
    assert rig.read(LSR) & LSR_OVERRUN
    assert [rig.read(DATA) for _ in range(16)] == list(range(16))


def test_loopback() -> None:
    rig = UartRig()
    rig.write(MCR, 0x10)
    assert rig.device.capacity() == 0
    rig.device.receive(b"cut off")
    assert not rig.read(LSR) & LSR_READY
    rig.write(DATA, ord("y"))
    assert rig.read(DATA) == ord("y") and rig.sent() == b""
    assert rig.read(MSR) == 0x0B, "DCD, DSR and CTS went; RI counts only its end"
    rig.write(MCR, 0x14)
    assert rig.read(MSR) == 0x40
    rig.write(MCR, 0x10)
    assert rig.read(MSR) == 0x04
    rig.log.clear()
    rig.write(MCR, 0)
    assert "space freed" in rig.log


def test_switching_or_clearing_the_fifo_empties_it() -> None:
    for control in (0, 3):
        rig = UartRig()
        rig.write(FCR, 1)
        rig.device.receive(b"abc")
        rig.write(FCR, control)
        assert not rig.read(LSR) & LSR_READY


def test_wide_accesses_are_bytes() -> None:
    rig = UartRig()
    rig.device.write(MCR, 2, 0x4100 | 0x03)
    assert rig.read(MCR) == 3
    assert rig.device.read(LSR, 2) == 0xB060
    assert rig.device.read(SCR, 4) == 0xFFFFFF00
