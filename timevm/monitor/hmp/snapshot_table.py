"""``info snapshots`` in the columns of QEMU 7.2 (``bdrv_snapshot_dump``), the ICOUNT column included."""

from __future__ import annotations

import time
from collections.abc import Sequence

from timevm.engine.control.port import SnapshotInfo

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def human_size(size: int) -> str:
    """Three significant digits and a binary unit, as QEMU's ``size_to_str`` prints it."""
    unit = 0
    value = float(size)
    while value >= 1000 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.3g} {_UNITS[unit]}"


def render_snapshots(snapshots: Sequence[SnapshotInfo]) -> str:
    """Empty if there are none; the caller says so."""
    lines = [f"{'ID':<9} {'TAG':<16} {'VM SIZE':>8} {'DATE':>19} {'VM CLOCK':>12} {'ICOUNT':>10}"]
    for snapshot in snapshots:
        date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.date))
        seconds, fraction = divmod(snapshot.vm_clock_ns, 1_000_000_000)
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{fraction // 1_000_000:03d}"
        icount = str(snapshot.icount) if snapshot.icount >= 0 else ""
        size = human_size(snapshot.vm_state_size)
        lines.append(f"{'--':<9} {snapshot.tag:<16} {size:>8} {date:>19} {clock:>12} {icount:>10}".rstrip())
    return "".join(f"{line}\n" for line in lines)
