"""One programmable interrupt controller 8259A (Intel 231468), as the PC's south bridge has two of.

What differs from the stand-alone chip, as in the PIIX3 (Intel 290550) and in QEMU: which inputs are level-triggered is
said by the edge/level register and not by ICW1; 8080 mode and buffered mode do not exist; an edge that was latched is
not withdrawn when its input falls again (the chip would deliver a spurious IR7 for it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from timevm.engine.devices.byte_access import ByteRegisters

#: the input that an acknowledge without a request answers with
SPURIOUS: Final = 7

# ICW1, written to offset 0: bit 4 tells it from the operation words
ICW1, ICW1_NEEDS_ICW4, ICW1_SINGLE = 0x10, 0x01, 0x02
ICW4_AUTO_EOI, ICW4_SPECIAL_FULLY_NESTED = 0x02, 0x10
# OCW3, bit 3 tells it from OCW2
OCW3, OCW3_READ, OCW3_READ_ISR, OCW3_POLL = 0x08, 0x02, 0x01, 0x04
OCW3_SET_MASK_MODE, OCW3_MASK_MODE = 0x40, 0x20
# OCW2 commands, bits 7 to 5: rotate, specific, end of interrupt
CLEAR_ROTATE_IN_AUTO_EOI, END, NO_OPERATION, SPECIFIC_END = 0, 1, 2, 3
SET_ROTATE_IN_AUTO_EOI, ROTATE_AND_END, SET_PRIORITY, ROTATE_AND_SPECIFIC_END = 4, 5, 6, 7

#: what an answered poll shows besides the number of the input
POLL_REQUEST: Final = 0x80
#: which initialisation word a write to offset 1 is; 0: none, it is the mask (OCW1)
READY, WAIT_ICW2, WAIT_ICW3, WAIT_ICW4 = 0, 2, 3, 4

_REGISTERS: Final = (
    "requests", "in_service", "mask", "levels", "level_triggered", "vector_base", "lowest", "step", "needs_icw4",
    "single", "auto_eoi", "rotate_in_auto_eoi", "special_fully_nested", "special_mask", "read_in_service", "poll",
    "output",
)  # fmt: skip


class I8259(ByteRegisters):
    """One chip: a Device and Stateful.  ``cascade_input`` is the input of the master with a slave on it, or None.

    ``output_changed`` gets the level of INT when it changes.  Registers are bit sets by input; ``lowest`` is the input
    of the lowest priority, the one after it has the highest.
    """

    window = 2

    def __init__(self, name: str, output_changed: Callable[[bool], None], cascade_input: int | None = None) -> None:
        self.name = name
        self._output_changed = output_changed
        self._cascade = 0 if cascade_input is None else 1 << cascade_input
        self.reset()

    def reset(self) -> None:
        self._auto_eoi = self._rotate_in_auto_eoi = self._special_fully_nested = False
        self._special_mask = self._read_in_service = self._poll = False
        self._level_triggered = 0
        self._levels = 0
        self._output = False
        self._requests = 0
        self._initialise(0)
        self._step = READY

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, f"_{name}") for name in _REGISTERS}

    def restore(self, state: dict[str, Any]) -> None:
        for name in _REGISTERS:
            setattr(self, f"_{name}", state[name])

    # the outside

    def set_input(self, number: int, level: bool) -> None:
        """The wire of IR0 to IR7 has this level."""
        bit = 1 << number
        rising = level and not self._levels & bit
        if level:
            self._levels |= bit
            if rising or self._level_triggered & bit:
                self._requests |= bit
        else:
            self._levels &= ~bit
            self._requests &= ~(bit & self._level_triggered)
        self._update()

    def set_level_triggered(self, inputs: int) -> None:
        self._level_triggered = inputs
        self._requests |= self._levels & inputs
        self._update()

    def acknowledge(self) -> int:
        """INTA: the input whose interrupt is taken, which is in service from now on; SPURIOUS if none asks."""
        number = self._highest()
        if number is None:
            return SPURIOUS
        bit = 1 << number
        if not self._level_triggered & bit:
            self._requests &= ~bit
        if self._auto_eoi:
            if self._rotate_in_auto_eoi:
                self._lowest = number
        else:
            self._in_service |= bit
        # INT falls with every acknowledge: for the master a slave with another request is a new edge.
        self._output = False
        self._output_changed(False)
        self._update()
        return number

    @property
    def level_triggered(self) -> int:
        return self._level_triggered

    @property
    def vector_base(self) -> int:
        return self._vector_base

    # the guest

    def read_byte(self, offset: int) -> int:
        if self._poll:
            self._poll = False
            asked = self._highest() is not None
            return self.acknowledge() | POLL_REQUEST if asked else 0
        if offset == 1:
            return self._mask
        return self._in_service if self._read_in_service else self._requests

    def write_byte(self, offset: int, value: int) -> None:
        if offset == 0:
            if value & ICW1:
                self._initialise(value)
            elif value & OCW3:
                self._command_mode(value)
            else:
                self._end_of_interrupt(value >> 5, value & 7)
        elif self._step == READY:
            self._mask = value
        else:
            self._initialisation_word(value)
        self._update()

    def _initialise(self, icw1: int) -> None:
        """ICW1: the edge sense circuits forget what they saw (2.8 of the data sheet, "initialization sequence")."""
        self._requests &= self._levels & self._level_triggered
        self._in_service = 0
        self._mask = 0
        self._vector_base = 0
        self._lowest = 7
        self._needs_icw4 = bool(icw1 & ICW1_NEEDS_ICW4)
        self._single = bool(icw1 & ICW1_SINGLE)
        self._auto_eoi = self._rotate_in_auto_eoi = self._special_fully_nested = False
        self._special_mask = self._read_in_service = self._poll = False
        self._step = WAIT_ICW2

    def _initialisation_word(self, value: int) -> None:
        after_icw3 = WAIT_ICW4 if self._needs_icw4 else READY
        if self._step == WAIT_ICW2:
            self._vector_base = value & 0xF8
            self._step = after_icw3 if self._single else WAIT_ICW3
        elif self._step == WAIT_ICW3:
            # Who is connected where is the board's wiring: nothing to keep.
            self._step = after_icw3
        else:
            self._auto_eoi = bool(value & ICW4_AUTO_EOI)
            self._special_fully_nested = bool(value & ICW4_SPECIAL_FULLY_NESTED)
            self._step = READY

    def _command_mode(self, value: int) -> None:
        if value & OCW3_POLL:
            self._poll = True
        if value & OCW3_READ:
            self._read_in_service = bool(value & OCW3_READ_ISR)
        if value & OCW3_SET_MASK_MODE:
            self._special_mask = bool(value & OCW3_MASK_MODE)

    def _end_of_interrupt(self, command: int, number: int) -> None:
        if command in (SET_ROTATE_IN_AUTO_EOI, CLEAR_ROTATE_IN_AUTO_EOI):
            self._rotate_in_auto_eoi = command == SET_ROTATE_IN_AUTO_EOI
        elif command in (END, ROTATE_AND_END):
            # In special mask mode masked interrupts are not ended by an unspecific command.
            ended = self._first(self._in_service & ~(self._mask if self._special_mask else 0))
            if ended is not None:
                self._in_service &= ~(1 << ended)
                if command == ROTATE_AND_END:
                    self._lowest = ended
        elif command in (SPECIFIC_END, ROTATE_AND_SPECIFIC_END):
            self._in_service &= ~(1 << number)
            if command == ROTATE_AND_SPECIFIC_END:
                self._lowest = number
        elif command == SET_PRIORITY:
            self._lowest = number

    # priorities

    def _first(self, inputs: int) -> int | None:
        """The input of the highest priority of a set."""
        for distance in range(1, 9):
            number = self._lowest + distance & 7
            if inputs & 1 << number:
                return number
        return None

    def _rank(self, number: int) -> int:
        return number - self._lowest - 1 & 7

    def _highest(self) -> int | None:
        """The request that INT stands for: not masked, and of a higher priority than all that is in service."""
        number = self._first(self._requests & ~self._mask)
        if number is None:
            return None
        blocking = self._in_service
        if self._special_mask:
            blocking &= ~self._mask
        if self._special_fully_nested:
            # A slave has its own priorities: another request from it may come in while it is being served.
            blocking &= ~self._cascade
        running = self._first(blocking)
        return number if running is None or self._rank(number) < self._rank(running) else None

    def _update(self) -> None:
        output = self._highest() is not None
        if output != self._output:
            self._output = output
            self._output_changed(output)
