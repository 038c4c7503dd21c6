"""What ``timevm img`` prints: qemu-img's layouts, as pure functions of plain data."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from timevm.blkreplay.extents import Extent
from timevm.blkreplay.qcow2.check import CheckResult
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.blkreplay.qcow2.layout import Compression
from timevm.blkreplay.qcow2.snapshot_table import UNKNOWN_ICOUNT, SnapshotRecord
from timevm.blkreplay.raw import RawImage
from timevm.errors import UserError

_UNITS = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_SUFFIXES = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}


def size_text(value: int) -> str:
    """Three digits and a binary unit: ``1.18 MiB``."""
    scaled, unit = float(value), 0
    while scaled >= 1000 and unit < len(_UNITS) - 1:
        scaled, unit = scaled / 1024, unit + 1
    return f"{scaled:.3g} {_UNITS[unit]}B"


def parse_size(text: str) -> int:
    """``64M``, ``1.5G``, ``0x1000``; bytes.  Raises UserError in qemu-img's words."""
    refusal = UserError(
        "Invalid image size specified. You may use k, M, G, T, P or E suffixes for\n"
        "timevm img: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes."
    )
    number, suffix = text.strip(), ""
    if number[-1:].lower() in _SUFFIXES and not number.lower().startswith("0x"):
        number, suffix = number[:-1], number[-1].lower()
    try:
        value = float(number) if "." in number else int(number, 16 if number.lower().startswith("0x") else 10)
    except ValueError:
        raise refusal from None
    if value < 0 or value != value or value * 2.0 ** _SUFFIXES[suffix] >= 2.0**63:
        raise refusal
    return int(value * (1 << _SUFFIXES[suffix]))


def as_json(value: object) -> str:
    """As QEMU indents it."""
    return json.dumps(value, indent=4, ensure_ascii=False)


# -- snapshots


def snapshot_lines(records: Sequence[SnapshotRecord]) -> list[str]:
    """The list of ``snapshot -l``, ``info`` and HMP's ``info snapshots``; an unknown icount is left blank."""
    lines = [f"{'ID':<10}{'TAG':<17}{'VM SIZE':>8}{'DATE':>20}{'VM CLOCK':>13}{'ICOUNT':>11}"]
    for record in records:
        date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.date_seconds))
        seconds, rest = divmod(record.vm_clock_ns, 10**9)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest // 10**6:03}"
        icount = "" if record.icount == UNKNOWN_ICOUNT else str(record.icount)
        tag = printable(record.tag)
        size = size_text(record.vm_state_size)
        lines.append(f"{printable(record.id):<9} {tag:<16} {size:>8}{date:>20}{clock:>13}{icount:>11}")
    return lines


def printable(text: str) -> str:
    """Names come from a file: nothing of them may steer a terminal."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _snapshot_fields(record: SnapshotRecord) -> dict[str, Any]:
    known = {} if record.icount == UNKNOWN_ICOUNT else {"icount": record.icount}
    return known | {
        "vm-clock-nsec": record.vm_clock_ns % 10**9,
        "name": printable(record.tag),
        "date-sec": record.date_seconds,
        "date-nsec": record.date_nanoseconds,
        "vm-clock-sec": record.vm_clock_ns // 10**9,
        "id": printable(record.id),
        "vm-state-size": record.vm_state_size,
    }


# -- info


def info_fields(image: RawImage | Qcow2Image, name: str) -> dict[str, Any]:
    """qemu-img's ImageInfo, its keys in qemu-img's order."""
    fields: dict[str, Any] = {}
    if isinstance(image, RawImage):
        return {
            "virtual-size": image.size,
            "filename": name,
            "format": "raw",
            "actual-size": image.file.allocated_bytes,
            "dirty-flag": False,
        }
    header = image.header
    if header.backing_format:
        fields["backing-filename-format"] = printable(header.backing_format)
    if image.records:
        fields["snapshots"] = [_snapshot_fields(record) for record in image.records]
    data: dict[str, Any] = {
        "compat": "1.1" if header.version >= 3 else "0.10",
        "compression-type": "zstd" if header.compression == Compression.ZSTD else "zlib",
    }
    if header.version >= 3:
        data["lazy-refcounts"] = header.lazy_refcounts
    data["refcount-bits"] = header.refcount_bits
    if header.version >= 3:
        data |= {"corrupt": header.is_corrupt, "extended-l2": False}
    fields |= {
        "virtual-size": image.size,
        "filename": name,
        "cluster-size": image.cluster_size,
        "format": "qcow2",
        "actual-size": image.file.allocated_bytes,
        "format-specific": {"type": "qcow2", "data": data},
    }
    if header.backing_file is not None:
        fields["full-backing-filename"] = printable(backing_name(name, header.backing_file))
        fields["backing-filename"] = printable(header.backing_file)
    fields["dirty-flag"] = header.is_dirty
    return fields


def backing_name(name: str, backing_file: str) -> str:
    """The backing file as one would name it from where ``name`` is a name."""
    if backing_file.startswith("/") or "/" not in name:
        return backing_file
    return f"{name.rpartition('/')[0]}/{backing_file}"


def info_lines(image: RawImage | Qcow2Image, name: str) -> list[str]:
    """``timevm img info``."""
    fields = info_fields(image, name)
    lines = [
        f"image: {name}",
        f"file format: {fields['format']}",
        f"virtual size: {size_text(image.size)} ({image.size} bytes)",
        f"disk size: {size_text(fields['actual-size'])}",
    ]
    if isinstance(image, RawImage):
        return lines
    lines.append(f"cluster_size: {image.cluster_size}")
    if image.header.is_dirty:
        lines.append("cleanly shut down: no")
    if image.header.backing_file is not None:
        full, short = fields["full-backing-filename"], fields["backing-filename"]
        lines.append(f"backing file: {short}" + (f" (actual path: {full})" if full != short else ""))
        if image.header.backing_format:
            lines.append(f"backing file format: {fields['backing-filename-format']}")
    if image.records:
        lines += ["Snapshot list:", *snapshot_lines(image.records)]
    lines.append("Format specific information:")
    for key, value in fields["format-specific"]["data"].items():
        lines.append(f"    {key.replace('-', ' ')}: {str(value).lower() if isinstance(value, bool) else value}")
    return lines


# -- check


def check_fields(result: CheckResult, name: str, fixed: Mapping[str, int]) -> dict[str, Any]:
    """qemu-img's ImageCheck: numbers that are 0 are left out, ``fixed``: of leaks and corruptions."""
    fields: dict[str, Any] = {"image-end-offset": result.image_end_offset}
    if result.compressed_clusters:
        fields["compressed-clusters"] = result.compressed_clusters
    fields["total-clusters"] = result.total_clusters
    if result.corruptions:
        fields["corruptions"] = result.corruptions
    if fixed.get("corruptions"):
        fields["corruptions-fixed"] = fixed["corruptions"]
    fields["check-errors"] = 0
    if result.leaks:
        fields["leaks"] = result.leaks
    if fixed.get("leaks"):
        fields["leaks-fixed"] = fixed["leaks"]
    if result.allocated_clusters:
        fields["allocated-clusters"] = result.allocated_clusters
    fields |= {"filename": name, "format": "qcow2"}
    if result.fragmented_clusters:
        fields["fragmented-clusters"] = result.fragmented_clusters
    return fields


def check_lines(result: CheckResult) -> list[str]:
    """The verdict of ``timevm img check``; what is wrong goes to stderr line by line."""
    if not result.corruptions and not result.leaks:
        lines = ["No errors were found on the image."]
    else:
        lines = []
        if result.corruptions:
            lines += ["", f"{result.corruptions} errors were found on the image."]
            lines.append("Data may be corrupted, or further writes to the image may corrupt it.")
        if result.leaks:
            lines += ["", f"{result.leaks} leaked clusters were found on the image."]
            lines.append("This means waste of disk space, but no harm to data.")
    if result.total_clusters and result.allocated_clusters:
        share = result.allocated_clusters * 100 / result.total_clusters
        fragmented = result.fragmented_clusters * 100 / result.allocated_clusters
        compressed = result.compressed_clusters * 100 / result.allocated_clusters
        lines.append(
            f"{result.allocated_clusters}/{result.total_clusters} = {share:.2f}% allocated, "
            f"{fragmented:.2f}% fragmented, {compressed:.2f}% compressed clusters"
        )
    if result.image_end_offset:
        lines.append(f"Image end offset: {result.image_end_offset}")
    return lines


# -- map


def map_lines(found: Iterable[Extent]) -> Iterable[str]:
    """Extents that hold data.  Raises UserError where one does not lie in its file as it is."""
    yield f"{'Offset':<16}{'Length':<16}{'Mapped to':<16}File"
    for extent in found:
        if extent.data and not extent.zero:
            if extent.offset is None:
                raise UserError("File contains external, encrypted or compressed clusters.")
            numbers = (extent.start, extent.length, extent.offset)
            yield "".join(f"{f'{number:#x}' if number else '0':<16}" for number in numbers) + str(extent.path)


def map_json(found: Iterable[Extent]) -> Iterable[str]:
    """All extents, a line each."""
    before = "["
    for extent in found:
        fields: dict[str, Any] = {
            "start": extent.start,
            "length": extent.length,
            "depth": extent.depth,
            "present": extent.present,
            "zero": extent.zero,
            "data": extent.data,
        }
        line = before + "{ " + json.dumps(fields)[1:-1]
        if extent.offset is not None:
            line += f', "offset": {extent.offset}'
        yield line + "}"
        before = ""
