"""``-device isa-debugcon`` and ``-device isa-debug-exit``: ports for firmware and test programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from timevm.engine.devices.debug_ports import DebugConsole, DebugExit
from timevm.engine.machine.io_ports import PORTS, Ports
from timevm.engine.machine.spec import DeviceOption, MachineSpec
from timevm.errors import UserError

DRIVERS = ("isa-debugcon", "isa-debug-exit")
#: QEMU's ports where an option names none
CONSOLE_PORT, EXIT_PORT, EXIT_PORTS = 0xE9, 0x501, 2


def debug_devices(
    spec: MachineSpec, transmit: Callable[[bytes], None], leave: Callable[[int], None]
) -> Iterator[Ports]:
    """``transmit`` gets what is written to the consoles, ``leave`` the process's exit code.  Raises UserError."""
    for option in spec.devices:
        given = dict(option.properties)
        if option.driver == "isa-debugcon":
            base = _port(option, given, "iobase", CONSOLE_PORT)
            yield Ports("debugcon", base, 1, DebugConsole("debugcon", transmit))
        elif option.driver == "isa-debug-exit":
            base = _port(option, given, "iobase", EXIT_PORT)
            count = _port(option, given, "iosize", EXIT_PORTS)
            if not 1 <= count <= 8:
                raise UserError(f"-device {option.driver}: iosize is 1 to 8, not {count}")
            yield Ports("debug-exit", base, count, DebugExit("debug-exit", count, lambda n: leave(exit_code(n))))


def exit_code(written: int) -> int:
    """Never 0, which means that all is well (QEMU's rule); the host has eight bits for it."""
    return (written << 1 | 1) & 0xFF


def _port(option: DeviceOption, given: dict[str, str], name: str, default: int) -> int:
    text = given.get(name)
    try:
        value = default if text is None else int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < PORTS:
        raise UserError(f"-device {option.driver}: Parameter '{name}' expects the number of a port, not '{text}'")
    return value
