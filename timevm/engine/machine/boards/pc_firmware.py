"""What the pc board tells its firmware (SeaBIOS) through the configuration device."""

from __future__ import annotations

import struct

from timevm.engine.machine.acpi_tables import Tables
from timevm.engine.machine.x86_memory_map import USABLE, Range

#: items by number (QEMU's fw_cfg.h): processors now and at most, boot menu; those of the architecture from 8000h on
PROCESSORS, MOST_PROCESSORS, BOOT_MENU, INTERRUPT_OVERRIDE = 0x05, 0x0F, 0x0E, 0x8002
#: where SeaBIOS prints what it would otherwise show on a screen
SERIAL_CONSOLE = "etc/sercon-port"


def items() -> dict[int, bytes]:
    one = struct.pack("<H", 1)
    return {PROCESSORS: one, MOST_PROCESSORS: one, BOOT_MENU: struct.pack("<H", 0), INTERRUPT_OVERRIDE: b"\x01"}


def files(ram_bytes: int, described: Tables, console_port: int | None) -> dict[str, bytes]:
    """``console_port``: I/O port of the serial line for the firmware's own messages; None: there is none."""
    found = {
        "etc/e820": Range(0, ram_bytes, USABLE).packed(),
        # S3 and S4 are not supported, S5 has sleep type 0: one byte a state, bit 7 says "supported"
        "etc/system-states": bytes([0x80, 0, 0, 0, 0, 0x80]),
        **described.files(),
    }
    if console_port is not None:
        found[SERIAL_CONSOLE] = struct.pack("<H", console_port)
    return found
