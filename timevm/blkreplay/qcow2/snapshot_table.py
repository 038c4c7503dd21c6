"""The directory of internal snapshots: its records, to and from bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timevm.blkreplay.image_errors import ImageError
from timevm.blkreplay.qcow2.layout import L1_LIMIT

#: L1 offset, L1 entries, length of id, of name, seconds, nanoseconds, VM clock, VM state size (32 bits), extra data
_ENTRY = struct.Struct(">QIHHIIQII")
#: extra data as QEMU since 5.2 writes it: VM state size, disk size, icount
_EXTRA = struct.Struct(">QQQ")
_EXTRA_LIMIT, TABLE_LIMIT = 1024, 64 << 20
#: what QEMU writes for a snapshot taken without icount
UNKNOWN_ICOUNT = -1


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """One internal snapshot; ``icount`` is -1 where it is unknown."""

    id: str
    tag: str
    date_seconds: int
    date_nanoseconds: int
    vm_clock_ns: int
    vm_state_size: int
    disk_size: int
    icount: int
    l1_offset: int
    l1_entries: int
    #: extra data behind what is known here, kept as it is
    more: bytes = b""


def parse_snapshots(data: bytes, count: int, disk_size: int, path: Path) -> tuple[list[SnapshotRecord], int]:
    """The records, and how many bytes they take.  ``disk_size``: of those that do not say.  Raises ImageError."""
    records: list[SnapshotRecord] = []
    at = 0
    for _ in range(count):
        if at + _ENTRY.size > len(data):
            raise ImageError(f"Could not open '{path}': the snapshot table is cut short")
        l1_offset, l1_entries, id_length, name_length, *rest = _ENTRY.unpack_from(data, at)
        seconds, nanoseconds, clock, state_size, extra_length = rest
        at += _ENTRY.size
        if extra_length > _EXTRA_LIMIT:
            raise ImageError(f"Could not open '{path}': Too much extra metadata in snapshot table entry {len(records)}")
        if l1_entries * 8 > L1_LIMIT:
            raise ImageError(f"Could not open '{path}': Snapshot L1 table too large (entry {len(records)})")
        end = at + extra_length + id_length + name_length
        if end > len(data):
            raise ImageError(f"Could not open '{path}': the snapshot table is cut short")
        extra = data[at : at + extra_length]
        size, icount = disk_size, UNKNOWN_ICOUNT
        if len(extra) >= 8:
            state_size = int.from_bytes(extra[:8], "big")
        if len(extra) >= 16:
            size = int.from_bytes(extra[8:16], "big")
        if len(extra) >= 24:
            icount = int.from_bytes(extra[16:24], "big", signed=True)
        at += extra_length
        records.append(
            SnapshotRecord(
                id=data[at : at + id_length].decode("utf-8", "surrogateescape"),
                tag=data[at + id_length : end].decode("utf-8", "surrogateescape"),
                date_seconds=seconds,
                date_nanoseconds=nanoseconds,
                vm_clock_ns=clock,
                vm_state_size=state_size,
                disk_size=size,
                icount=icount,
                l1_offset=l1_offset,
                l1_entries=l1_entries,
                more=extra[_EXTRA.size :],
            )
        )
        at = end + -end % 8
    return records, min(at, len(data))


def pack_snapshots(records: Sequence[SnapshotRecord]) -> bytes:
    """Always with all three fields of extra data, as QEMU does in both versions."""
    parts = []
    for record in records:
        name = record.tag.encode("utf-8", "surrogateescape")
        identity = record.id.encode("utf-8", "surrogateescape")
        extra = _EXTRA.pack(record.vm_state_size, record.disk_size, record.icount & (1 << 64) - 1) + record.more
        entry = _ENTRY.pack(
            record.l1_offset,
            record.l1_entries,
            len(identity),
            len(name),
            record.date_seconds & 0xFFFFFFFF,
            record.date_nanoseconds,
            record.vm_clock_ns & (1 << 64) - 1,
            record.vm_state_size & 0xFFFFFFFF,
            len(extra),
        )
        packed = entry + extra + identity + name
        parts.append(packed + bytes(-len(packed) % 8))
    return b"".join(parts)
