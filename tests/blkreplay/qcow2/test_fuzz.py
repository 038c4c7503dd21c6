"""Damaged images: a typed error or data, never a hang, another exception, or much memory.

``TIMEVM_FUZZ_CASES=100000`` asks for the long run.
"""

from __future__ import annotations

import os
import resource
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.blkreplay.qcow2.qemu import qemu_img
from timevm.blkreplay.extents import extents
from timevm.blkreplay.image_errors import ImageError
from timevm.blkreplay.opening import open_image
from timevm.blkreplay.qcow2.check import check, repair
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.errors import HostError, TimevmError

CASES = int(os.environ.get("TIMEVM_FUZZ_CASES", "2000"))
SIZE = 1 << 20
#: address space that a case may take beyond what the process has
MEMORY = 1 << 30

NUMBERS = st.one_of(
    st.sampled_from((0, 1, 0xFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 55, 1 << 62, 1 << 63, (1 << 64) - 1)),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 64).map(lambda cluster: cluster << 12),
    st.integers(0, 64).map(lambda cluster: cluster << 12 | 1 << 63),
    st.integers(0, 64).map(lambda cluster: cluster << 12 | 1 << 62),
)
WIDTHS = st.sampled_from((1, 2, 4, 8))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, list[tuple[int, int]]]]:
    """Sound images, and where in them tables lie (offset, length)."""
    folder = tmp_path_factory.mktemp("fuzz")
    made = []
    for number, (version, bits, width) in enumerate(((3, 12, 16), (2, 12, 16), (3, 12, 2))):
        path = folder / f"image{number}"
        options = CreateOptions(SIZE, version=version, cluster_size=1 << bits, refcount_bits=width)
        create_image(path, options)
        image = open_image(path, "qcow2")
        assert isinstance(image, Qcow2Image)
        image.write(0, b"first" * 4000)
        image.save_snapshot("one", b"state" * 3000, 1, 2, 3)
        image.write(8000, b"second" * 2000)
        image.write_zeroes(40960, 8192)
        image.close()
        made.append((path.read_bytes(), _tables(path)))
    raw, packed = folder / "raw", folder / "packed"
    raw.write_bytes(b"compressible" * 5000 + bytes(SIZE - 60000))
    for kind in ("zlib", "zstd"):
        asked = f"cluster_size=4k,compression_type={kind}"
        qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", asked, raw, packed)
        made.append((packed.read_bytes(), _tables(packed)))
    return made


def _tables(path: Path) -> list[tuple[int, int]]:
    image = open_image(path, "qcow2", read_only=True)
    assert isinstance(image, Qcow2Image)
    header, size = image.header, image.cluster_size
    found = [(0, 112), (header.l1_offset, len(image.l1) * 8), (header.refcount_table_offset, 64)]
    found += [(int(offset) & 0xFFFFFFFFFFFE00, size) for offset in image.l1[image.l1 != 0]]
    found += [(int(offset), size) for offset in image.refcounts.table[image.refcounts.table != 0]]
    if image.records:
        found.append((header.snapshots_offset, image.snapshot_table_bytes))
        found.append((image.records[0].l1_offset, image.records[0].l1_entries * 8))
    image.close()
    return found


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def work_on(path: Path, *, write: bool) -> None:
    """Everything that reads tables, then (``write``) everything that changes them."""
    image = open_image(path, "qcow2", not write)
    assert isinstance(image, Qcow2Image)
    try:
        looks: tuple[Callable[[], object], ...] = (
            lambda: image.read(0, min(image.size, SIZE)),
            lambda: image.read(max(0, image.size - 5000), min(image.size, 5000)),
            lambda: check(image),
            lambda: sum(1 for _ in zip(extents(image), range(100), strict=False)),
            lambda: [image.load_vm_state(record.id) for record in image.snapshots()[:3]],
            lambda: [image.snapshot_reader(record.id).read(0, 512) for record in image.snapshots()[:3]],
        )
        changes: tuple[Callable[[], object], ...] = (
            lambda: image.write(5000, b"x" * 9000),
            lambda: image.write_zeroes(0, 10_000),
            lambda: image.discard(20_000, 30_000),
            lambda: image.save_snapshot("two", b"v" * 5000),
            lambda: image.apply_snapshot("1"),
            lambda: image.delete_snapshot("1"),
            lambda: repair(image, everything=True),
            lambda: image.flush(),
        )
        for step in looks + (changes if write else ()):
            attempt(step)
    finally:
        attempt(image.close)


def attempt(step: Callable[[], object]) -> None:
    try:
        step()
    except TimevmError as error:
        assert str(error)
        assert not isinstance(error, HostError) or "cannot" in str(error) or "could not" in str(error)


@settings(max_examples=CASES, deadline=5000, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_tables(images: list[tuple[bytes, list[tuple[int, int]]]], data: st.DataObject) -> None:
    sound, tables = data.draw(st.sampled_from(images))
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        offset, length = data.draw(st.sampled_from(tables))
        width = data.draw(WIDTHS)
        # the first entries are the ones in use
        at = offset + data.draw(st.integers(0, min(length, 160) // width)) * width
        value = data.draw(NUMBERS) & ((1 << 8 * width) - 1)
        damaged[at : at + width] = value.to_bytes(width, "big")
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(damaged)
        file.flush()
        try:
            work_on(Path(file.name), write=data.draw(st.booleans()))
        except TimevmError as error:
            assert str(error)


@settings(max_examples=CASES // 10, deadline=5000, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=2000))
def test_garbage_behind_the_magic(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(b"QFI\xfb" + struct.pack(">I", len(data) % 4) + data)
        file.flush()
        try:
            work_on(Path(file.name), write=bool(len(data) % 2))
        except TimevmError as error:
            assert str(error)


def test_a_table_full_of_one_offset_costs_little(tmp_path: Path) -> None:
    """A small file that claims 128 GiB of disk, every L1 entry the same L2 table."""
    path = tmp_path / "image"
    create_image(path, CreateOptions(128 << 30, cluster_size=4096))
    image = open_image(path, "qcow2")
    assert isinstance(image, Qcow2Image)
    image.write(0, b"x")
    image.flush()
    at, entries = image.header.l1_offset, len(image.l1)
    entry = int(image.l1[0])
    image.close()
    data = bytearray(path.read_bytes())
    data[at : at + entries * 8] = np.full(entries, entry, dtype=">u8").tobytes()
    path.write_bytes(data)
    image = open_image(path, "qcow2")
    assert isinstance(image, Qcow2Image)
    assert image.read(127 << 30, 4096) == b"x" + bytes(4095)
    assert check(image).corruptions == 1
    with pytest.raises(ImageError, match="one L2 table twice"):
        image.save_snapshot("s")
    image.close()
