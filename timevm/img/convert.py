"""Copies one image into another of any format, leaving out what reads as zeroes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from timevm.blkreplay.extents import extents
from timevm.blkreplay.node import BlockNode
from timevm.blkreplay.zeroes import is_zero
from timevm.errors import UserError

#: bytes that are read at once
_STEP = 2 << 20
#: zeroes are looked for in pieces of this many bytes (qemu-img's default for -S)
SPARSE_BYTES = 4096


def copy(
    source: BlockNode,
    target: BlockNode,
    *,
    sparse: int,
    target_is_zero: bool,
    progress: Callable[[int], None],
) -> None:
    """``sparse``: pieces of zeroes of this size are not written (0: everything is).

    ``progress`` is told the bytes that are done, at the end all.  Raises UserError, HostError.
    """
    if source.size > target.size:
        raise UserError("the target is smaller than the image that is to be copied into it")
    for extent in extents(source):
        if extent.zero and sparse:
            if not target_is_zero:
                target.write_zeroes(extent.start, extent.length)
            progress(extent.start + extent.length)
            continue
        end = extent.start + extent.length
        at = extent.start
        while at < end:
            step = min(_STEP - at % _STEP, end - at)
            _write(target, at, source.read(at, step), sparse, target_is_zero)
            at += step
            progress(at)
    if source.size < target.size and not target_is_zero:
        target.write_zeroes(source.size, target.size - source.size)
    target.flush()


def _write(target: BlockNode, at: int, data: bytes, sparse: int, target_is_zero: bool) -> None:
    for low, high, zero in _parts(data, sparse):
        if not zero:
            target.write(at + low, data[low:high])
        elif not target_is_zero:
            target.write_zeroes(at + low, high - low)


def _parts(data: bytes, sparse: int) -> Iterator[tuple[int, int, bool]]:
    """Rows of pieces that are all zero, and of others."""
    if not sparse:
        yield 0, len(data), False
        return
    start, kind = 0, None
    for at in range(0, len(data), sparse):
        zero = is_zero(data[at : at + sparse])
        if kind is not None and zero != kind:
            yield start, at, kind
            start = at
        kind = zero
    if kind is not None:
        yield start, len(data), kind


@contextmanager
def progress_bar(wanted: bool, total: int) -> Iterator[Callable[[int], None]]:
    """On stderr, so that stdout stays for programs."""
    if not wanted:
        yield lambda done: None
        return
    columns = (TextColumn("converting"), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("converting", total=total or 1)
        yield lambda done: progress.update(task, completed=done if total else 1)
