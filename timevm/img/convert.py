"""Copies one image into another of any format, leaving out what reads as zeroes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from timevm.blkreplay.extents import extents
from timevm.blkreplay.node import BlockNode
from timevm.blkreplay.qcow2.compressed_writer import CompressedWriter
from timevm.blkreplay.qcow2.image import Qcow2Image
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
    _check_size(source, target)
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


def copy_compressed(
    source: BlockNode,
    target: Qcow2Image,
    *,
    sparse: bool,
    target_is_zero: bool,
    progress: Callable[[int], None],
) -> None:
    """By whole clusters of ``target``; ``sparse``: those of zeroes are not written.  Otherwise as ``copy``."""
    _check_size(source, target)
    writer = CompressedWriter(target)
    size = target.cluster_size
    step = max(size, _STEP)
    done = 0

    def make_zero(start: int, end: int) -> None:
        if not target_is_zero and start < end:
            target.write_zeroes(start, end - start)

    for extent in extents(source):
        if extent.zero and sparse:
            continue
        end = extent.start + extent.length
        low, high = max(done, extent.start - extent.start % size), min(source.size, end + -end % size)
        make_zero(done, low)
        for start in range(low, high, step):
            data = source.read(start, min(step, high - start))
            for at in range(0, len(data), size):
                cluster = data[at : at + size]
                if sparse and is_zero(cluster):
                    make_zero(start + at, start + at + len(cluster))
                else:
                    writer.write(start + at, cluster)
            progress(start + len(data))
        done = max(done, high)
    make_zero(done, target.size)
    writer.finish()
    target.flush()
    progress(source.size)


def _check_size(source: BlockNode, target: BlockNode) -> None:
    if source.size > target.size:
        raise UserError("the target is smaller than the image that is to be copied into it")


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
