"""A 16550's hot registers, served natively where a CPU maps them: its line status and its data."""

from __future__ import annotations

from timevm.engine.cpu.unicorn_cpu import UnicornWindow
from timevm.engine.devices import uart16550
from timevm.engine.devices.uart16550 import Uart16550


class UartWindow:
    """``follow``: after a reset or a restore of the UART."""

    def __init__(self, uart: Uart16550, window: UnicornWindow) -> None:
        self._uart, self._window = uart, window
        uart.changed = self.follow
        self.follow()

    def follow(self) -> None:
        status = self._uart.line_status()
        quiet_read = not status & uart16550.LSR_OVERRUN
        self._window.set_constant_read(uart16550.LSR if quiet_read else None, status)
        self._window.set_output(uart16550.DATA if self._uart.transmit_is_quiet() else None)
