"""What the riscv board does for its built-in firmware (``timevm.engine.cpu.sbi``): timer, console, memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timevm.engine.devices import uart16550
from timevm.engine.devices.base import DmaError, GuestMemory, InterruptLine, VirtualTime
from timevm.engine.devices.compare_timer import CompareTimer
from timevm.engine.devices.uart16550 import Uart16550


class FirmwarePlatform:
    """``sbi.Platform``, and Stateful: the timer that S-mode has set.

    ``software`` and ``timer`` are the supervisor's interrupts.  The console is ``uart``: output goes to ``transmit``
    like its own, input is taken out of its receiver.  ``virtual(address, size)`` reads what is mapped, and less at the
    end of it.
    """

    def __init__(
        self,
        name: str,
        *,
        software: InterruptLine,
        timer: InterruptLine,
        time: VirtualTime,
        tick_ns: int,
        uart: Uart16550,
        transmit: Callable[[bytes], None],
        memory: GuestMemory,
        virtual: Callable[[int, int], bytes],
    ) -> None:
        self.name = name
        self._software = software
        self._timer = CompareTimer(f"{name}.timer", timer, time, tick_ns)
        self._uart = uart
        self._transmit = transmit
        self._memory = memory
        self._virtual = virtual

    def reset(self) -> None:
        self._timer.reset()

    def state(self) -> dict[str, Any]:
        return self._timer.state()

    def restore(self, state: dict[str, Any]) -> None:
        self._timer.restore(state)

    # the firmware

    def set_timer(self, ticks: int) -> None:
        self._timer.set_compare(ticks)

    def set_software_interrupt(self, level: bool) -> None:
        self._software.set(level)

    def write_console(self, data: bytes) -> None:
        if data:
            self._transmit(data)

    def read_console(self, most: int) -> bytes:
        data = bytearray()
        while len(data) < most and self._uart.line_status() & uart16550.LSR_READY:
            data.append(self._uart.read(uart16550.DATA, 1))
        return bytes(data)

    def read_memory(self, address: int, size: int) -> bytes | None:
        try:
            return self._memory.read(address, size)
        except DmaError:
            return None

    def write_memory(self, address: int, data: bytes) -> bool:
        try:
            self._memory.write(address, data)
        except DmaError:
            return False
        return True

    def read_virtual(self, address: int, size: int) -> bytes | None:
        data = self._virtual(address, size)
        return data if len(data) == size else None
