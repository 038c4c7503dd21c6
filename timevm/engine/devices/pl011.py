"""PrimeCell UART PL011 (Arm DDI 0183), with the identification and the FIFO depth (16) that QEMU's has.

What is ours to decide, because a character takes no time here:

* Transmission is instantaneous: the transmit FIFO is always empty, BUSY is never seen.  The transmit interrupt is the
  transition "a character left the FIFO" and so follows every write of UARTDR (as in QEMU).
* The receive timeout (32 bit periods of silence) has passed as soon as an arrival or a read is over and characters are
  left.  Clearing it in UARTICR silences it until the next arrival or read.
* As in QEMU the line works before UARTEN, TXE and RXE are set: early consoles rely on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from timevm.engine.devices.base import InterruptLine
from timevm.engine.devices.word_access import WordRegisters

FIFO_DEPTH: Final = 16

# register offsets, DDI 0183 table 3-1
DR, RSR, FR, ILPR, IBRD, FBRD, LCR_H, CR, IFLS = 0x00, 0x04, 0x18, 0x20, 0x24, 0x28, 0x2C, 0x30, 0x34
IMSC, RIS, MIS, ICR, DMACR = 0x38, 0x3C, 0x40, 0x44, 0x48
#: UARTPeriphID0-3 and UARTPCellID0-3, from 0xFE0
IDENTIFICATION: Final = dict(zip(range(0xFE0, 0x1000, 4), bytes.fromhex("11 10 14 00 0D F0 05 B1"), strict=True))

# UARTFR
FR_CTS, FR_DSR, FR_DCD, FR_RXFE, FR_RXFF, FR_TXFE, FR_RI = 1 << 0, 1 << 1, 1 << 2, 1 << 4, 1 << 6, 1 << 7, 1 << 8
# UARTRIS, UARTMIS, UARTIMSC, UARTICR
INT_RI, INT_CTS, INT_DCD, INT_DSR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
INT_RX, INT_TX, INT_RT, INT_BE, INT_OE = 1 << 4, 1 << 5, 1 << 6, 1 << 9, 1 << 10
# UARTLCR_H, UARTCR
LCR_BRK, LCR_FEN = 1 << 0, 1 << 4
CR_LBE, CR_DTR, CR_RTS, CR_OUT1, CR_OUT2 = 1 << 7, 1 << 10, 1 << 11, 1 << 12, 1 << 13
# error bits of a character in UARTDR (table 3-2)
DR_BE, DR_OE = 1 << 10, 1 << 11
RSR_OE = 1 << 3

#: modem output -> (modem input that loopback ties it to, the interrupt of that input); DDI 0183 3.3.8, CR.LBE
LOOPBACK_WIRES: Final = (
    (CR_RTS, FR_CTS, INT_CTS),
    (CR_DTR, FR_DSR, INT_DSR),
    (CR_OUT1, FR_DCD, INT_DCD),
    (CR_OUT2, FR_RI, INT_RI),
)
#: UARTIFLS.RXIFLSEL -> characters (1/8, 1/4, 1/2, 3/4, 7/8 full; the reserved values act as the last)
RECEIVE_TRIGGERS: Final = (2, 4, 8, 12, 14, 14, 14, 14)
#: plain registers: name in the state record and writable bits
STORED: Final = {
    ILPR: ("ilpr", 0xFF),
    IBRD: ("ibrd", 0xFFFF),
    FBRD: ("fbrd", 0x3F),
    IFLS: ("ifls", 0x3F),
    DMACR: ("dmacr", 0x7),
}
POWER_ON: Final = {"ilpr": 0, "ibrd": 0, "fbrd": 0, "ifls": 0x12, "dmacr": 0}


def _nothing() -> None:
    """What the callbacks are until somebody listens."""


class Pl011(WordRegisters):
    """One UART: a Device and Stateful.

    ``transmit`` gets each byte that the guest sends.  ``space_freed`` is called when the receive FIFO takes bytes again
    because of something the guest did; ``changed`` when ``flag_register`` or ``transmit_is_quiet`` have other values
    than before (never from ``reset`` or ``restore``, which call nobody).
    """

    window = 0x1000

    def __init__(self, name: str, interrupt: InterruptLine, transmit: Callable[[bytes], None]) -> None:
        self.name = name
        self.space_freed: Callable[[], None] = _nothing
        self.changed: Callable[[], None] = _nothing
        self._interrupt = interrupt
        self._transmit = transmit
        self.reset()

    def reset(self) -> None:
        self._received: list[int] = []  # the FIFO: characters with their error bits, oldest first
        self._last_character = 0  # what UARTDR shows while the FIFO is empty
        self._overrun = False  # a character was lost since the last one that was stored
        self._rsr = 0
        self._line_control = 0
        self._control = 0x300
        self._modem_inputs = 0
        self._mask = 0
        self._raw = 0
        self._level = False
        self._stored = dict(POWER_ON)
        self._seen = (self.flag_register(), self.transmit_is_quiet())

    def state(self) -> dict[str, Any]:
        return {
            "received": list(self._received),
            "last_character": self._last_character,
            "overrun": self._overrun,
            "rsr": self._rsr,
            "line_control": self._line_control,
            "control": self._control,
            "modem_inputs": self._modem_inputs,
            "mask": self._mask,
            "raw": self._raw,
            "level": self._level,
            **self._stored,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._received = list(state["received"])
        self._last_character = state["last_character"]
        self._overrun = state["overrun"]
        self._rsr = state["rsr"]
        self._line_control = state["line_control"]
        self._control = state["control"]
        self._modem_inputs = state["modem_inputs"]
        self._mask = state["mask"]
        self._raw = state["raw"]
        self._level = state["level"]
        self._stored = {name: state[name] for name in POWER_ON}
        self._seen = (self.flag_register(), self.transmit_is_quiet())

    # the outside

    def capacity(self) -> int:
        """Bytes that ``receive`` takes now without losing one; 0 in loopback, where the input is cut off."""
        return 0 if self._control & CR_LBE else self._depth() - len(self._received)

    def receive(self, data: bytes) -> None:
        """``data`` arrives on the line; what is beyond ``capacity`` is lost as an overrun."""
        if self._control & CR_LBE:
            return
        for character in data:
            self._store(character)
        self._line_is_silent()
        self._update()

    def flag_register(self) -> int:
        """UARTFR as a read would show it now."""
        fill = len(self._received)
        flags = FR_TXFE | self._modem_inputs
        if not fill:
            flags |= FR_RXFE
        if fill >= self._depth():
            flags |= FR_RXFF
        return flags

    def transmit_is_quiet(self) -> bool:
        """True if a write of UARTDR does nothing but send its byte: no register and no line changes by it."""
        return bool(self._raw & INT_TX) and not self._control & CR_LBE

    # the guest

    def read_word(self, offset: int) -> int:
        if offset == FR:
            return self.flag_register()
        if offset == DR:
            return self._read_data()
        if offset == RSR:
            return self._rsr
        if offset == LCR_H:
            return self._line_control
        if offset == CR:
            return self._control
        if offset == IMSC:
            return self._mask
        if offset == RIS:
            return self._raw
        if offset == MIS:
            return self._raw & self._mask
        if offset in STORED:
            return self._stored[STORED[offset][0]]
        return IDENTIFICATION.get(offset, 0)

    def write_word(self, offset: int, value: int) -> None:
        freed = self.capacity()
        if offset == DR:
            self._transmit(bytes((value & 0xFF,)))
            self._raw |= INT_TX
            if self._control & CR_LBE:
                self._store(value & 0xFF)
                self._line_is_silent()
        elif offset == RSR:
            self._rsr = 0
        elif offset == LCR_H:
            self._write_line_control(value & 0xFF)
        elif offset == CR:
            self._write_control(value & 0xFF87)
        elif offset == IMSC:
            self._mask = value & 0x7FF
        elif offset == ICR:
            self._raw &= ~value
        elif offset in STORED:
            name, writable = STORED[offset]
            self._stored[name] = value & writable
        else:
            return
        self._update()
        if self.capacity() > freed:
            self.space_freed()

    def _read_data(self) -> int:
        if not self._received:
            return self._last_character
        character = self._received.pop(0)
        if self._overrun:
            character |= DR_OE
        self._last_character = character
        self._rsr = self._rsr & RSR_OE | character >> 8 & 0xF
        if len(self._received) < self._trigger():
            self._raw &= ~INT_RX
        if not self._received:
            self._raw &= ~INT_RT
        self._line_is_silent()
        self._update()
        if self.capacity():
            self.space_freed()
        return character

    def _write_line_control(self, value: int) -> None:
        changed = value ^ self._line_control
        self._line_control = value
        if changed & LCR_FEN:
            self._received.clear()
            self._raw &= ~(INT_RX | INT_RT)
        if changed & value & LCR_BRK and self._control & CR_LBE:
            self._raw |= INT_BE
            self._store(DR_BE)
            self._line_is_silent()

    def _write_control(self, value: int) -> None:
        self._control = value
        inputs = 0
        if value & CR_LBE:
            for output, flag, _ in LOOPBACK_WIRES:
                if value & output:
                    inputs |= flag
        for _, flag, interrupt in LOOPBACK_WIRES:
            if (inputs ^ self._modem_inputs) & flag:
                self._raw |= interrupt
        self._modem_inputs = inputs

    def _depth(self) -> int:
        return FIFO_DEPTH if self._line_control & LCR_FEN else 1

    def _trigger(self) -> int:
        return RECEIVE_TRIGGERS[self._stored["ifls"] >> 3] if self._line_control & LCR_FEN else 1

    def _store(self, character: int) -> None:
        """A character comes out of the receive shift register."""
        if len(self._received) >= self._depth():
            self._overrun = True
            self._rsr |= RSR_OE
            self._raw |= INT_OE
            return
        self._overrun = False
        self._received.append(character)
        if len(self._received) == self._trigger():
            self._raw |= INT_RX

    def _line_is_silent(self) -> None:
        if self._received:
            self._raw |= INT_RT

    def _update(self) -> None:
        level = bool(self._raw & self._mask)
        if level != self._level:
            self._level = level
            self._interrupt.set(level)
        seen = (self.flag_register(), self.transmit_is_quiet())
        if seen != self._seen:
            self._seen = seen
            self.changed()
