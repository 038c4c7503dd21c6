"""The pc board described to an operating system: the DSDT and the tables around it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from timevm.engine.machine.acpi_aml import (
    ARG0,
    BYTE_ACCESS,
    INTERRUPT_NUMBER,
    LOCAL0,
    PCI_CONFIG,
    bit_and,
    bit_or,
    buffer,
    bus_numbers,
    define,
    device,
    double_word_field,
    eisa,
    field,
    give,
    integer,
    interrupt,
    io,
    io_range,
    irq,
    memory_range,
    method,
    name,
    package,
    region,
    resources,
    scope,
    segment,
    store,
    when,
)
from timevm.engine.machine.acpi_tables import Tables

#: where firmware, or our own loader in its place, puts the power management ports
PM_BASE = 0x600
PM_CONTROL, PM_TIMER = PM_BASE + 4, PM_BASE + 8
SCI = 9
#: inputs that PCI interrupts may be led to
PCI_INTERRUPTS = (5, 10, 11)
PCI_SLOTS, PINS = 32, 4
LINKS = ("LNKA", "LNKB", "LNKC", "LNKD")
ROUTES = ("PRQ0", "PRQ1", "PRQ2", "PRQ3")
ROUTE_OFF = 0x80
# flags of the FADT: WBINVD works, C1 exists, no fixed sleep button, RTC wakes up nobody
FADT_FLAGS = 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6
CENTURY = 0x32
PRESENT, PRESENT_AND_ENABLED = 0x09, 0x0B


@dataclass(frozen=True, slots=True)
class SerialResource:
    """A serial port: its first I/O port and its interrupt."""

    port: int
    irq: int


def tables(memory_hole: tuple[int, int], serial: Sequence[SerialResource]) -> Tables:
    """``memory_hole``: first and last address that belongs to PCI devices."""
    made = Tables()
    facs = made.add_plain(struct.pack("<4sI56x", b"FACS", 64))
    dsdt = made.add(b"DSDT", 1, _dsdt(memory_hole, serial))
    fadt = made.add(b"FACP", 1, _fadt(), {0: facs, 4: dsdt})
    made.add_root([fadt])
    return made


def _fadt() -> bytes:
    """Revision 1: the ports of the PIIX4, and no way to leave ACPI mode."""
    return struct.pack(
        "<IIBBHIBBBB8I8BHHHHBBBBB3xI",
        *(0, 0),  # FACS and DSDT, filled in
        *(1, 0, SCI, 0, 0, 0, 0, 0),
        *(PM_BASE, 0, PM_CONTROL, 0, 0, PM_TIMER, 0, 0),
        *(4, 2, 0, 4, 0, 0, 0, 0),
        *(0xFFF, 0xFFF, 0, 0),  # no C2, no C3
        *(0, 0, 0, 0, CENTURY),
        FADT_FLAGS,
    )


def _dsdt(memory_hole: tuple[int, int], serial: Sequence[SerialResource]) -> bytes:
    return b"".join(
        (
            scope("\\_SB", device("PCI0", *_host_bridge(memory_hole), device("ISA", *_isa(serial)))),
            scope("\\_SB", *(_link(number) for number in range(PINS))),
            define("\\_S5", package([integer(0)] * 4)),
        )
    )


def _host_bridge(memory_hole: tuple[int, int]) -> list[bytes]:
    routes = [
        package([integer(slot << 16 | 0xFFFF), integer(pin), segment(LINKS[(slot - 1 + pin) % PINS]), integer(0)])
        for slot in range(PCI_SLOTS)
        for pin in range(PINS)
    ]
    return [
        define("_HID", eisa("PNP0A03")),
        define("_UID", integer(0)),
        define(
            "_CRS",
            resources(
                bus_numbers(0, 0xFF),
                io(0xCF8, 8),
                io_range(0, 0xCF7),
                io_range(0xD00, 0xFFFF),
                memory_range(0xA_0000, 0xB_FFFF, cacheable=True),
                memory_range(*memory_hole),
            ),
        ),
        define("_PRT", package(routes)),
    ]


def _isa(serial: Sequence[SerialResource]) -> list[bytes]:
    return [
        define("_ADR", integer(1 << 16)),
        region("PIRQ", PCI_CONFIG, 0x60, 4),
        field("PIRQ", BYTE_ACCESS, [(route, 8) for route in ROUTES]),
        device(
            "KBD",
            define("_HID", eisa("PNP0303")),
            define("_STA", integer(0xF)),
            define("_CRS", resources(io(0x60, 1), io(0x64, 1), irq(1))),
        ),
        device("RTC", define("_HID", eisa("PNP0B00")), define("_CRS", resources(io(0x70, 2), irq(8)))),
        *(
            device(
                f"COM{number + 1}",
                define("_HID", eisa("PNP0501")),
                define("_UID", integer(number + 1)),
                define("_STA", integer(0xF)),
                define("_CRS", resources(io(port.port, 8), irq(port.irq))),
            )
            for number, port in enumerate(serial)
        ),
    ]


def _link(number: int) -> bytes:
    """One of the four PCI interrupt wires: which input it is led to, read from and written to the south bridge."""
    route = name(f"\\_SB.PCI0.ISA.{ROUTES[number]}")
    template = interrupt(0)
    return device(
        LINKS[number],
        define("_HID", eisa("PNP0C0F")),
        define("_UID", integer(number)),
        define("_PRS", resources(interrupt(*PCI_INTERRUPTS))),
        method(
            "_STA",
            0,
            when(bit_and(route, integer(ROUTE_OFF)), give(integer(PRESENT))),
            give(integer(PRESENT_AND_ENABLED)),
        ),
        method("_DIS", 0, bit_or(route, integer(ROUTE_OFF), route)),
        method(
            "_CRS",
            0,
            store(buffer(template + b"\x79\x00"), LOCAL0),
            double_word_field(LOCAL0, INTERRUPT_NUMBER, "IRQN"),
            store(integer(0), segment("IRQN")),
            when(
                b"\x92" + bit_and(route, integer(ROUTE_OFF)),
                store(bit_and(route, integer(0x0F)), segment("IRQN")),
            ),
            give(LOCAL0),
        ),
        method(
            "_SRS",
            1,
            double_word_field(ARG0, INTERRUPT_NUMBER, "IRQW"),
            store(segment("IRQW"), route),
        ),
    )
