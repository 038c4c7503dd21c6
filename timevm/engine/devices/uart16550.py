"""UART 16550A (National Semiconductor PC16550D), as the PC's serial ports.

What is ours to decide, because a character takes no time here:

* Transmission is instantaneous: the transmit holding register is full for too short a time to be seen.  A write raises
  the interrupt of the empty register, or leaves it raised without a new edge.
* The receive timeout (four character times of silence) has passed as soon as an arrival or a read is over and
  characters below the trigger level are left.
* As in QEMU the interrupt is not gated by MCR.OUT2, and a terminal is connected: CTS, DSR and DCD are on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from timevm.engine.devices.base import InterruptLine
from timevm.engine.devices.byte_access import ByteRegisters

FIFO_DEPTH: Final = 16

# register offsets; with LCR.DLAB the first two are the divisor
DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(8)
FCR: Final = IIR

IER_RECEIVED, IER_EMPTY, IER_LINE, IER_MODEM = 0x01, 0x02, 0x04, 0x08
IIR_NONE, IIR_MODEM, IIR_EMPTY, IIR_RECEIVED, IIR_LINE, IIR_TIMEOUT = 0x01, 0x00, 0x02, 0x04, 0x06, 0x0C
IIR_FIFOS: Final = 0xC0
FCR_ENABLE, FCR_CLEAR_RECEIVED = 0x01, 0x02
FCR_STORED: Final = 0xC9
#: FCR bits 7 and 6 -> characters
TRIGGERS: Final = (1, 4, 8, 14)
LCR_DIVISOR: Final = 0x80
MCR_DTR, MCR_RTS, MCR_OUT1, MCR_OUT2, MCR_LOOP = 0x01, 0x02, 0x04, 0x08, 0x10
LSR_READY, LSR_OVERRUN, LSR_EMPTY, LSR_IDLE = 0x01, 0x02, 0x20, 0x40
MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD = 0x10, 0x20, 0x40, 0x80
#: the low half of MSR says what changed; of RI only its trailing edge counts
MSR_CHANGED: Final = {MSR_CTS: 0x01, MSR_DSR: 0x02, MSR_RI: 0x04, MSR_DCD: 0x08}
#: modem output -> the input that loopback ties it to
LOOPBACK_WIRES: Final = {MCR_RTS: MSR_CTS, MCR_DTR: MSR_DSR, MCR_OUT1: MSR_RI, MCR_OUT2: MSR_DCD}
TERMINAL: Final = MSR_CTS | MSR_DSR | MSR_DCD

_REGISTERS: Final = (
    "divisor", "interrupt_enable", "fifo_control", "line_control", "modem_control", "modem_inputs", "modem_changes",
    "scratch", "last_character", "overrun", "empty_pending", "level",
)  # fmt: skip


def _nothing() -> None:
    """What the callbacks are until somebody listens."""


class Uart16550(ByteRegisters):
    """One UART: a Device and Stateful.

    ``transmit`` gets each byte that the guest sends.  ``space_freed`` is called when the receiver takes bytes again
    because of something the guest did; ``changed`` when ``line_status`` or ``transmit_is_quiet`` have other values
    than before (never from ``reset`` or ``restore``, which call nobody).
    """

    window = 8

    def __init__(self, name: str, interrupt: InterruptLine, transmit: Callable[[bytes], None]) -> None:
        self.name = name
        self.space_freed: Callable[[], None] = _nothing
        self.changed: Callable[[], None] = _nothing
        self._interrupt = interrupt
        self._transmit = transmit
        self.reset()

    def reset(self) -> None:
        self._received: list[int] = []  # oldest first
        self._divisor = 12  # 9600 baud: the chip leaves it undefined
        self._interrupt_enable = 0
        self._fifo_control = 0
        self._line_control = 0
        self._modem_control = 0
        self._modem_inputs = TERMINAL
        self._modem_changes = 0
        self._scratch = 0
        self._last_character = 0
        self._overrun = False
        self._empty_pending = False
        self._level = False
        self._seen = (self.line_status(), self.transmit_is_quiet())

    def state(self) -> dict[str, Any]:
        return {"received": list(self._received), **{name: getattr(self, f"_{name}") for name in _REGISTERS}}

    def restore(self, state: dict[str, Any]) -> None:
        self._received = list(state["received"])
        for name in _REGISTERS:
            setattr(self, f"_{name}", state[name])
        self._seen = (self.line_status(), self.transmit_is_quiet())

    # the outside

    def capacity(self) -> int:
        """Bytes that ``receive`` takes now without losing one; 0 in loopback, where the input is cut off."""
        return 0 if self._modem_control & MCR_LOOP else self._depth() - len(self._received)

    def receive(self, data: bytes) -> None:
        """``data`` arrives on the line; what is beyond ``capacity`` is lost as an overrun."""
        if self._modem_control & MCR_LOOP:
            return
        for character in data:
            self._store(character)
        self._update()

    def line_status(self) -> int:
        """LSR as a read would show it now.  A read has an effect only if it shows an overrun."""
        return LSR_EMPTY | LSR_IDLE | LSR_READY * bool(self._received) | LSR_OVERRUN * self._overrun

    def transmit_is_quiet(self) -> bool:
        """True if a write to offset 0 does nothing but send its byte: no register and no line changes by it."""
        return self._empty_pending and not (self._line_control & LCR_DIVISOR or self._modem_control & MCR_LOOP)

    # the guest

    def read_byte(self, offset: int) -> int:
        if offset == LSR:
            status = self.line_status()
            if self._overrun:
                self._overrun = False
                self._update()
            return status
        if self._line_control & LCR_DIVISOR and offset <= IER:
            return self._divisor >> 8 * offset & 0xFF
        if offset == DATA:
            return self._read_data()
        if offset == IER:
            return self._interrupt_enable
        if offset == IIR:
            return self._identify()
        if offset == LCR:
            return self._line_control
        if offset == MCR:
            return self._modem_control
        if offset == MSR:
            status = self._modem_inputs | self._modem_changes
            self._modem_changes = 0
            self._update()
            return status
        return self._scratch

    def write_byte(self, offset: int, value: int) -> None:
        room = self.capacity()
        if self._line_control & LCR_DIVISOR and offset <= IER:
            shift = 8 * offset
            self._divisor = self._divisor & ~(0xFF << shift) | value << shift
        elif offset == DATA:
            self._send(value)
        elif offset == IER:
            # Enabling the interrupt of a register that is empty asks for it at once.
            self._empty_pending = self._empty_pending or bool(value & ~self._interrupt_enable & IER_EMPTY)
            self._interrupt_enable = value & 0x0F
        elif offset == FCR:
            self._control_fifos(value)
        elif offset == LCR:
            self._line_control = value
        elif offset == MCR:
            self._control_modem(value & 0x1F)
        elif offset == SCR:
            self._scratch = value
        else:
            return  # LSR and MSR: "the system's writes are not recommended", and do nothing
        self._update()
        if self.capacity() > room:
            self.space_freed()

    def _read_data(self) -> int:
        if not self._received:
            return self._last_character
        self._last_character = self._received.pop(0)
        self._update()
        if self.capacity():
            self.space_freed()
        return self._last_character

    def _send(self, character: int) -> None:
        if self._modem_control & MCR_LOOP:
            self._store(character)
        else:
            self._transmit(bytes((character,)))
        self._empty_pending = True

    def _identify(self) -> int:
        source = self._source()
        if source == IIR_EMPTY:
            self._empty_pending = False
            self._update()
        return source | IIR_FIFOS * bool(self._fifo_control & FCR_ENABLE)

    def _control_fifos(self, value: int) -> None:
        if (value ^ self._fifo_control) & FCR_ENABLE or (value & FCR_ENABLE and value & FCR_CLEAR_RECEIVED):
            self._received.clear()
        # Without the enable bit the others cannot be programmed.
        self._fifo_control = value & FCR_STORED if value & FCR_ENABLE else 0

    def _control_modem(self, value: int) -> None:
        self._modem_control = value
        inputs = TERMINAL
        if value & MCR_LOOP:
            inputs = sum(wire for output, wire in LOOPBACK_WIRES.items() if value & output)
        for wire, changed in MSR_CHANGED.items():
            if (inputs ^ self._modem_inputs) & wire and not (wire == MSR_RI and inputs & wire):
                self._modem_changes |= changed
        self._modem_inputs = inputs

    def _depth(self) -> int:
        return FIFO_DEPTH if self._fifo_control & FCR_ENABLE else 1

    def _store(self, character: int) -> None:
        """A character comes out of the receive shift register.  Without FIFOs it overwrites an unread one."""
        if len(self._received) >= self._depth():
            self._overrun = True
            if self._depth() == 1:
                self._received[0] = character
            return
        self._received.append(character)

    def _source(self) -> int:
        """The interrupt of the highest priority that is pending and enabled (table of IIR)."""
        enabled = self._interrupt_enable
        if enabled & IER_LINE and self._overrun:
            return IIR_LINE
        if enabled & IER_RECEIVED and self._received:
            triggered = len(self._received) >= (TRIGGERS[self._fifo_control >> 6])
            return IIR_RECEIVED if triggered else IIR_TIMEOUT
        if enabled & IER_EMPTY and self._empty_pending:
            return IIR_EMPTY
        if enabled & IER_MODEM and self._modem_changes:
            return IIR_MODEM
        return IIR_NONE

    def _update(self) -> None:
        level = self._source() != IIR_NONE
        if level != self._level:
            self._level = level
            self._interrupt.set(level)
        seen = (self.line_status(), self.transmit_is_quiet())
        if seen != self._seen:
            self._seen = seen
            self.changed()
