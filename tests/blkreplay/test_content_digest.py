"""Which disk is it: equal contents are equal wherever they lie, and no change goes unnoticed."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.blkreplay.memory_node import MemoryNode
from tests.peers import need
from timevm.blkreplay.content_digest import content_digest
from timevm.blkreplay.null import NullNode
from timevm.blkreplay.opening import open_image
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.blkreplay.raw import RawImage

SIZE = 24 << 20
#: as if everything were large
LARGE = 0


def fill(node: RawImage | Qcow2Image, seed: int = 1) -> None:
    chance = random.Random(seed)
    for _ in range(20):
        node.write(chance.randrange(0, SIZE - 200_000), chance.randbytes(chance.randrange(1, 200_000)))


def qcow2(path: Path, seed: int | None = 1, **options: object) -> Path:
    create_image(path, CreateOptions(SIZE, **options))  # type: ignore[arg-type]  # fields of CreateOptions
    if seed is not None:
        node = open_image(path, "qcow2")
        fill(node, seed)
        node.close()
    return path


def digest(path: Path, *, large: bool = False) -> str:
    node = open_image(path, None, read_only=True)
    try:
        return content_digest(node, full=LARGE) if large else content_digest(node)
    finally:
        node.close()


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run([need("qemu-img"), *arguments], check=True, timeout=60, capture_output=True)


def test_the_format_makes_no_difference(tmp_path: Path) -> None:
    path = qcow2(tmp_path / "a.qcow2")
    expected = digest(path)
    for name, *options in (
        ("raw.img", "-O", "raw"),
        ("again.qcow2", "-O", "qcow2", "-o", "cluster_size=4k"),
        ("small.qcow2", "-O", "qcow2", "-c"),
        ("old.qcow2", "-O", "qcow2", "-o", "compat=0.10,cluster_size=2M"),
    ):
        qemu_img("convert", *options, path, tmp_path / name)
        assert digest(tmp_path / name) == expected, name
    create_image(tmp_path / "top.qcow2", CreateOptions(SIZE, backing_file="a.qcow2", backing_format="qcow2"))
    assert digest(tmp_path / "top.qcow2") == expected
    qemu_img("create", "-f", "qcow2", "-b", "raw.img", "-F", "raw", tmp_path / "over.qcow2")
    assert digest(tmp_path / "over.qcow2") == expected


@settings(max_examples=25, deadline=None)
@given(st.integers(0, SIZE - 1), st.booleans())
def test_one_bit_makes_one(tmp_path_factory: pytest.TempPathFactory, offset: int, raw: bool) -> None:
    folder = tmp_path_factory.mktemp("bit")
    path = folder / "a"
    if raw:
        with path.open("wb") as file:
            file.truncate(SIZE)
    else:
        qcow2(path, seed=None)
    node = open_image(path, "raw" if raw else "qcow2")
    before = content_digest(node)
    node.write(offset, b"\x01")
    assert content_digest(node) != before
    node.write(offset, b"\x00")
    assert content_digest(node) == before
    node.close()


def test_the_size_makes_one() -> None:
    assert content_digest(NullNode(1 << 20)) != content_digest(NullNode(2 << 20))
    data = random.Random(1).randbytes(3 << 20)
    assert content_digest(MemoryNode(data)) != content_digest(MemoryNode(data + bytes(512)))


def test_an_internal_snapshot_is_the_disk_that_it_was(tmp_path: Path) -> None:
    """For small and for large images, whatever is written afterwards; with another file's time in between."""
    path = qcow2(tmp_path / "a.qcow2")
    node = open_image(path, "qcow2")
    assert isinstance(node, Qcow2Image)
    before = content_digest(node)
    node.save_snapshot("begin")
    begin = content_digest(node.snapshot_reader("begin")), content_digest(node.snapshot_reader("begin"), full=LARGE)
    assert begin[0] == before
    fill(node, 2)
    node.flush()
    node.save_snapshot("later")
    node.write_zeroes(0, SIZE // 2)
    node.close()
    node = open_image(path, "qcow2")
    assert isinstance(node, Qcow2Image)
    reader = node.snapshot_reader("begin")
    assert (content_digest(reader), content_digest(reader, full=LARGE)) == begin
    assert content_digest(node.snapshot_reader("later"), full=LARGE) != begin[1]
    assert content_digest(node) != before
    node.close()


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_of_a_large_disk_every_write_is_noticed_by_the_files_time(tmp_path: Path, format: str) -> None:
    path = qcow2(tmp_path / "a.qcow2")
    if format == "raw":
        qemu_img("convert", "-O", "raw", path, tmp_path / "a.raw")
        path = tmp_path / "a.raw"
    create_image(tmp_path / "top.qcow2", CreateOptions(SIZE, backing_file=path.name, backing_format=format))
    before, above = digest(path, large=True), digest(tmp_path / "top.qcow2", large=True)
    assert digest(path, large=True) == before
    os.utime(path, ns=(1, os.stat(path).st_mtime_ns + 1))
    assert digest(path, large=True) != before
    assert digest(tmp_path / "top.qcow2", large=True) != above, "the backing file was changed"
