"""A host that has no room: one clear error, nothing damaged, and work goes on when there is room again."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.blkreplay.qcow2.qemu import contents, qemu_img
from timevm.blkreplay.opening import open_image
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.errors import HostError

SIZE = 64 << 20
MESSAGE = r"could not be written at byte \d+ \(File too large: make room and try again\)"


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The kernel refuses to let a file of this process grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(params=[(512, 16), (4096, 64), (65536, 16)], ids=str)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    cluster, bits = request.param
    create_image(tmp_path / "image.qcow2", CreateOptions(SIZE, cluster_size=cluster, refcount_bits=bits))
    return tmp_path / "image.qcow2"


def opened(path: Path) -> Qcow2Image:
    image = open_image(path, "qcow2")
    assert isinstance(image, Qcow2Image)
    return image


def test_writes_until_it_is_full(path: Path) -> None:
    image = opened(path)
    written = 0
    with files_up_to(path.stat().st_size + (2 << 20)):
        with pytest.raises(HostError, match=MESSAGE):
            while True:
                image.write(written, b"\x11" * 65536)
                written += 65536
        assert image.read(0, written) == b"\x11" * written
        with pytest.raises(HostError, match=MESSAGE):
            image.write(SIZE // 2, b"\x22" * (1 << 20))
        image.write(0, b"\x33" * 4096)  # what has its place already can be written
    image.write(SIZE // 2, b"\x22" * (1 << 20))
    image.close()
    qemu_img("check", "-q", path)
    data = contents(path)
    assert data[:written] == b"\x33" * 4096 + b"\x11" * (written - 4096)
    assert data[SIZE // 2 : SIZE // 2 + (1 << 20)] == b"\x22" * (1 << 20)


def test_tables_that_find_no_room_are_written_later(path: Path) -> None:
    image = opened(path)
    image.write(0, b"\x11" * (1 << 20))
    with files_up_to(path.stat().st_size // 2):
        try:
            image.flush()
        except HostError as error:
            assert "File too large" in str(error)
    if image.header.cluster_size > 512:  # the smallest needs a longer table, which is all or nothing
        image.flush()
        assert image.read(0, 1 << 20) == b"\x11" * (1 << 20)
        image.close()
        assert contents(path)[: 1 << 20] == b"\x11" * (1 << 20)
    else:
        image.abandon()
    qemu_img("check", "-q", path, status=(0, 3))


def test_a_snapshot_without_room_changes_nothing(path: Path) -> None:
    image = opened(path)
    image.write(0, b"\x11" * (1 << 20))
    image.save_snapshot("before", b"s" * 300_000, icount=1)
    image.write(0, b"\x22" * (1 << 20))
    image.flush()
    size = path.stat().st_size
    for room in (0, 1000, 70_000, 400_000, 1 << 20, 2 << 20):
        with files_up_to(size + room), pytest.raises(HostError, match=MESSAGE):
            image.save_snapshot("before", bytes(range(256)) * 16384, icount=2)
        assert [record.icount for record in image.snapshots()] == [1]
        assert path.stat().st_size == size
        assert image.read(0, 1 << 20) == b"\x22" * (1 << 20)
        assert image.load_vm_state("before") == b"s" * 300_000
    image.save_snapshot("before", bytes(range(256)) * 16384, icount=2)
    assert image.load_vm_state("before") == bytes(range(256)) * 16384
    image.close()
    qemu_img("check", "-q", path)


def test_applying_and_deleting_without_room_change_nothing(path: Path) -> None:
    image = opened(path)
    image.write(0, b"\x11" * (1 << 20))
    image.save_snapshot("one", b"")
    image.write(0, b"\x22" * (1 << 20))
    image.flush()
    with files_up_to(1000):
        for change in (image.apply_snapshot, image.delete_snapshot):
            with pytest.raises(HostError, match=MESSAGE):
                change("one")
            assert image.read(0, 1 << 20) == b"\x22" * (1 << 20)
    image.apply_snapshot("one")
    assert image.read(0, 1 << 20) == b"\x11" * (1 << 20)
    image.close()
    qemu_img("check", "-q", path)
