"""ACPI tables as one run of bytes whose pointers and checksums are still to be filled in (ACPI 6.3, chapter 5).

Either our own loader puts them at an address (``placed``), or firmware does it by a script (``loader_script``; QEMU,
docs/specs/acpi_hw_reduced_hotplug and hw/acpi/bios-linker-loader: commands of 128 bytes).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from timevm.errors import InternalError

#: what the tables say made them
OEM, OEM_TABLE, CREATOR = b"TIMEVM", b"TIMEVMPC", b"TVM "
HEADER_BYTES: Final = 36
CHECKSUM_AT: Final = 9
RSDP_BYTES, RSDP_CHECKSUM_AT, RSDP_POINTER_AT = 20, 8, 16
TABLE_ALIGNMENT: Final = 64

# names of the firmware's files, and commands of its loader
TABLES_FILE, RSDP_FILE, SCRIPT_FILE = "etc/acpi/tables", "etc/acpi/rsdp", "etc/table-loader"
ALLOCATE, ADD_POINTER, ADD_CHECKSUM = 1, 2, 3
ZONE_HIGH, ZONE_LOW = 1, 2
COMMAND_BYTES: Final = 128


@dataclass(frozen=True, slots=True)
class _Checksum:
    start: int
    length: int
    at: int


class Tables:
    """Add tables; those that others point to first.  Addresses are offsets until the tables are placed."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._pointers: list[int] = []  # where 32-bit addresses are
        self._checksums: list[_Checksum] = []
        self._root: int | None = None

    def add(self, signature: bytes, revision: int, body: bytes, pointers: dict[int, int] | None = None) -> int:
        """A table with a header; ``pointers``: offset in ``body`` -> offset of the table that it points to.

        Gives the offset of the table.
        """
        length = HEADER_BYTES + len(body)
        header = struct.pack("<4sIBB6s8sI4sI", signature, length, revision, 0, OEM, OEM_TABLE, 1, CREATOR, 1)
        offset = self._align()
        self._data += header + body
        for at, target in (pointers or {}).items():
            self._point(offset + HEADER_BYTES + at, target)
        self._checksums.append(_Checksum(offset, length, offset + CHECKSUM_AT))
        return offset

    def add_plain(self, data: bytes) -> int:
        """Bytes without a header of the usual kind (the FACS)."""
        offset = self._align()
        self._data += data
        return offset

    def add_root(self, tables: list[int]) -> None:
        """The RSDT; it comes last."""
        self._root = self.add(
            b"RSDT", 1, bytes(4 * len(tables)), {4 * number: table for number, table in enumerate(tables)}
        )

    def _align(self) -> int:
        self._data += bytes(-len(self._data) % TABLE_ALIGNMENT)
        return len(self._data)

    def _point(self, at: int, target: int) -> None:
        struct.pack_into("<I", self._data, at, target)
        self._pointers.append(at)

    # ---- by our own loader

    def placed(self, base: int) -> tuple[bytes, bytes]:
        """The tables for physical address ``base``, and the root pointer that names them."""
        data = bytearray(self._data)
        for at in self._pointers:
            struct.pack_into("<I", data, at, struct.unpack_from("<I", data, at)[0] + base)
        for one in self._checksums:
            data[one.at] = -sum(data[one.start : one.start + one.length]) & 0xFF
        pointer = bytearray(self._root_pointer())
        struct.pack_into("<I", pointer, RSDP_POINTER_AT, base + self._root_offset())
        pointer[RSDP_CHECKSUM_AT] = -sum(pointer) & 0xFF
        return bytes(data), bytes(pointer)

    # ---- by firmware

    def files(self) -> dict[str, bytes]:
        """For the firmware's configuration device."""
        pointer = bytearray(self._root_pointer())
        struct.pack_into("<I", pointer, RSDP_POINTER_AT, self._root_offset())
        return {TABLES_FILE: bytes(self._data), RSDP_FILE: bytes(pointer), SCRIPT_FILE: self._script()}

    def _script(self) -> bytes:
        commands = [
            struct.pack("<I56sIB", ALLOCATE, RSDP_FILE.encode(), 16, ZONE_LOW),
            struct.pack("<I56sIB", ALLOCATE, TABLES_FILE.encode(), TABLE_ALIGNMENT, ZONE_HIGH),
        ]
        commands += [
            struct.pack("<I56s56sIB", ADD_POINTER, TABLES_FILE.encode(), TABLES_FILE.encode(), at, 4)
            for at in self._pointers
        ]
        commands += [
            struct.pack("<I56sIII", ADD_CHECKSUM, TABLES_FILE.encode(), one.at, one.start, one.length)
            for one in self._checksums
        ]
        commands += [
            struct.pack("<I56s56sIB", ADD_POINTER, RSDP_FILE.encode(), TABLES_FILE.encode(), RSDP_POINTER_AT, 4),
            struct.pack("<I56sIII", ADD_CHECKSUM, RSDP_FILE.encode(), RSDP_CHECKSUM_AT, 0, RSDP_BYTES),
        ]
        return b"".join(command.ljust(COMMAND_BYTES, b"\0") for command in commands)

    def _root_offset(self) -> int:
        if self._root is None:
            raise InternalError("ACPI tables without a root")
        return self._root

    @staticmethod
    def _root_pointer() -> bytes:
        return struct.pack("<8sB6sBI", b"RSD PTR ", 0, OEM, 0, 0)
