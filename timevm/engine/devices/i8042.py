"""The PC's keyboard controller 8042 (ports 60h and 64h), with an idle keyboard and without a mouse.

Facts: IBM PS/2 Technical Reference, "Keyboard and auxiliary device controller".  Everything answers at once; a driver
that looks for a mouse is told quickly that there is no second port (its test fails, its enable bit cannot be changed).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from timevm.engine.devices.base import InterruptLine
from timevm.engine.devices.byte_access import ByteRegisters
from timevm.engine.devices.ps2_keyboard import Ps2Keyboard

# status register
OUTPUT_FULL, SYSTEM_FLAG, COMMAND_WRITTEN, NOT_LOCKED = 0x01, 0x04, 0x08, 0x10
# controller command byte, RAM address 0
KEYBOARD_INTERRUPT, KEYBOARD_DISABLED, TRANSLATE = 0x01, 0x10, 0x40
COMMAND_BYTE_WRITABLE: Final = 0x5F
# output port
NOT_RESET, GATE_A20 = 0x01, 0x02

READ_RAM, WRITE_RAM = range(0x20, 0x40), range(0x60, 0x80)
TEST_AUXILIARY, SELF_TEST, TEST_KEYBOARD, DISABLE_KEYBOARD, ENABLE_KEYBOARD = 0xA9, 0xAA, 0xAB, 0xAD, 0xAE
READ_INPUT, READ_OUTPUT, WRITE_OUTPUT, WRITE_KEYBOARD_BUFFER, WRITE_AUXILIARY_BUFFER = 0xC0, 0xD0, 0xD1, 0xD2, 0xD3
WRITE_AUXILIARY, DISABLE_A20, ENABLE_A20, READ_TEST = 0xD4, 0xDD, 0xDF, 0xE0
PULSE_OUTPUT: Final = range(0xF0, 0x100)
TAKE_A_BYTE: Final = (
    *WRITE_RAM, WRITE_OUTPUT, WRITE_KEYBOARD_BUFFER, WRITE_AUXILIARY_BUFFER, WRITE_AUXILIARY
)  # fmt: skip

SELF_TEST_PASSED, CLOCK_STUCK_LOW = 0x55, 0x01
#: what a keyboard's answers become when the controller translates scan codes from set 2 to set 1
TRANSLATED: Final = {0x83: 0x41, 0x01: 0x43, 0x02: 0x41, 0x03: 0x3F}


class I8042:
    """Stateful; its windows are ``data`` and ``command`` (Devices).

    ``interrupt`` is IRQ 1, ``gate_a20`` address line 20 (see Port92), ``reset_machine`` the line to the CPU's reset.
    """

    def __init__(
        self, name: str, interrupt: InterruptLine, gate_a20: InterruptLine, reset_machine: Callable[[], None]
    ) -> None:
        self.name = name
        self._interrupt = interrupt
        self._gate_a20 = gate_a20
        self._reset_machine = reset_machine
        self._keyboard = Ps2Keyboard()
        self.data = _Port(f"{name}-data", self._read_data, self._write_data)
        self.command = _Port(f"{name}-command", self._read_status, self._write_command)
        self.reset()

    def reset(self) -> None:
        self._keyboard.reset()
        self._ram = bytearray(32)
        self._ram[0] = KEYBOARD_INTERRUPT | TRANSLATE
        self._output_port = 0xCC | NOT_RESET | GATE_A20
        self._last_write_was_command = False
        self._pending: int | None = None  # a command that waits for its parameter
        self._output: int | None = None  # the byte in the output buffer
        self._last_output = 0
        self._answers: list[int] = []  # what waits to get there: the controller's own bytes, then the keyboard's
        self._typed: list[int] = []
        self._level = False

    def state(self) -> dict[str, Any]:
        return {
            "keyboard": self._keyboard.state(),
            "ram": bytes(self._ram),
            "output_port": self._output_port,
            "last_write_was_command": self._last_write_was_command,
            "pending": self._pending,
            "output": self._output,
            "last_output": self._last_output,
            "answers": list(self._answers),
            "typed": list(self._typed),
            "level": self._level,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._keyboard.restore(state["keyboard"])
        self._ram = bytearray(state["ram"])
        self._output_port = state["output_port"]
        self._last_write_was_command = state["last_write_was_command"]
        self._pending = state["pending"]
        self._output = state["output"]
        self._last_output = state["last_output"]
        self._answers = list(state["answers"])
        self._typed = list(state["typed"])
        self._level = state["level"]

    # the guest

    def _read_status(self) -> int:
        return (
            NOT_LOCKED
            | OUTPUT_FULL * (self._output is not None)
            | SYSTEM_FLAG * bool(self._ram[0] & SYSTEM_FLAG)
            | COMMAND_WRITTEN * self._last_write_was_command
        )

    def _read_data(self) -> int:
        if self._output is not None:
            self._last_output, self._output = self._output, None
            self._update()
            self._fill()
        return self._last_output

    def _write_command(self, value: int) -> None:
        self._last_write_was_command = True
        self._pending = value if value in TAKE_A_BYTE else None
        if value in READ_RAM:
            self._answer(self._ram[value & 0x1F])
        elif value == TEST_AUXILIARY:
            self._answer(CLOCK_STUCK_LOW)
        elif value == SELF_TEST:
            self._ram[0] |= SYSTEM_FLAG
            self._answer(SELF_TEST_PASSED)
        elif value in (TEST_KEYBOARD, READ_TEST):
            self._answer(0)
        elif value == DISABLE_KEYBOARD:
            self._ram[0] |= KEYBOARD_DISABLED
        elif value == ENABLE_KEYBOARD:
            self._ram[0] &= ~KEYBOARD_DISABLED
        elif value == READ_INPUT:
            self._answer(0x80)
        elif value == READ_OUTPUT:
            self._answer(self._output_port)
        elif value in (ENABLE_A20, DISABLE_A20):
            self._set_output_port(self._output_port & ~GATE_A20 | GATE_A20 * (value == ENABLE_A20))
        elif value in PULSE_OUTPUT and not value & NOT_RESET:
            self._reset_machine()
        self._fill()
        self._update()

    def _write_data(self, value: int) -> None:
        self._last_write_was_command = False
        pending, self._pending = self._pending, None
        if pending is None:
            # A byte for the keyboard switches its interface on.
            self._ram[0] &= ~KEYBOARD_DISABLED
            self._typed += self._keyboard.command(value)
        elif pending == WRITE_OUTPUT:
            self._set_output_port(value)
        elif pending in (WRITE_KEYBOARD_BUFFER, WRITE_AUXILIARY_BUFFER):
            self._answer(value)
        elif pending in WRITE_RAM:
            address = pending & 0x1F
            self._ram[address] = value & COMMAND_BYTE_WRITABLE if address == 0 else value
        self._fill()
        self._update()

    def _set_output_port(self, value: int) -> None:
        self._output_port = value
        self._gate_a20.set(bool(value & GATE_A20))
        if not value & NOT_RESET:
            self._reset_machine()

    # the output buffer

    def _answer(self, byte: int) -> None:
        self._answers.append(byte)
        # Nobody reads: the oldest answers are overwritten, as in the one register that there is.
        del self._answers[:-16]

    def _fill(self) -> None:
        del self._typed[:-16]
        if self._output is None:
            if self._answers:
                self._output = self._answers.pop(0)
            elif self._typed and not self._ram[0] & KEYBOARD_DISABLED:
                byte = self._typed.pop(0)
                self._output = TRANSLATED.get(byte, byte) if self._ram[0] & TRANSLATE else byte
        self._update()

    def _update(self) -> None:
        level = self._output is not None and bool(self._ram[0] & KEYBOARD_INTERRUPT)
        if level != self._level:
            self._level = level
            self._interrupt.set(level)


class _Port(ByteRegisters):
    """One of the two ports."""

    window = 1

    def __init__(self, name: str, read: Callable[[], int], write: Callable[[int], None]) -> None:
        self.name = name
        self._read = read
        self._write = write

    def read_byte(self, offset: int) -> int:
        return self._read()

    def write_byte(self, offset: int, value: int) -> None:
        self._write(value)
