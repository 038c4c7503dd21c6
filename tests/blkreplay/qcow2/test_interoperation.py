"""Images that the real qemu-img makes, as input; what it cannot be told from ours."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from tests.blkreplay.qcow2.qemu import contents, qemu_img, qemu_io
from tests.peers import need
from timevm.blkreplay.image_errors import ImageError
from timevm.blkreplay.opening import GuessedRawWarning, open_image, probe_format
from timevm.blkreplay.qcow2.check import check
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.blkreplay.qcow2.resize import resize
from timevm.errors import UserError

SIZE = 4 << 20


def opened(path: Path, *, read_only: bool = False) -> Qcow2Image:
    image = open_image(path, "qcow2", read_only)
    assert isinstance(image, Qcow2Image)
    return image


def sparse_disk(seed: int = 1, size: int = SIZE) -> bytes:
    """Random, repeated and zero pieces."""
    rng = random.Random(seed)
    disk = bytearray(size)
    for _ in range(40):
        at, length = rng.randrange(size), rng.choice((512, 5000, 70_000))
        piece = rng.randbytes(length) if rng.random() < 0.5 else b"ab" * length
        disk[at : at + length] = piece[: min(length, size - at)]
    return bytes(disk)


@pytest.mark.parametrize(
    "options",
    [
        "compat=0.10",
        "compat=1.1",
        "cluster_size=512",
        "cluster_size=2M",
        "refcount_bits=1",
        "refcount_bits=2,cluster_size=4k",
        "refcount_bits=4",
        "refcount_bits=8",
        "refcount_bits=32",
        "refcount_bits=64,cluster_size=1k",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=falloc,cluster_size=8k",
        "preallocation=full",
        "preallocation=metadata,compat=v2",
        "compression_type=zstd",
    ],
)
def test_every_option_of_qemu_img_works_as_input(tmp_path: Path, options: str) -> None:
    raw, path = tmp_path / "disk.raw", tmp_path / "image.qcow2"
    raw.write_bytes(disk := sparse_disk())
    qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o", options, raw, path)
    image = opened(path)
    assert image.read(0, SIZE) == disk
    assert (check(image).corruptions, check(image).leaks) == (0, 0)
    changed = bytearray(disk)
    for at, length in ((0, 1), (100_000, 300_000), (SIZE - 5, 5)):
        image.write(at, b"\x55" * length)
        changed[at : at + length] = b"\x55" * length
    width = image.header.refcount_bits
    if width > 1:
        image.save_snapshot("mine", b"state" * 1000, 1, icount=77)
    image.write_zeroes(200_000, 100_000)
    changed[200_000:300_000] = bytes(100_000)
    image.close()
    qemu_img("check", "-q", path)
    assert contents(path) == bytes(changed)
    assert json.loads(qemu_img("info", "--output=json", path))["format-specific"]["data"]["refcount-bits"] == width


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
@pytest.mark.parametrize("cluster", ["512", "4k", "64k", "2M"])
def test_compressed_clusters(tmp_path: Path, compression: str, cluster: str) -> None:
    raw, path = tmp_path / "disk.raw", tmp_path / "image.qcow2"
    raw.write_bytes(disk := sparse_disk(3))
    options = f"cluster_size={cluster},compression_type={compression}"
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, path)
    image = opened(path)
    assert image.read(0, SIZE) == disk
    changed = bytearray(disk)
    for at in range(1000, SIZE, SIZE // 7):
        image.write(at, b"over")
        changed[at : at + 4] = b"over"
    image.save_snapshot("one")
    image.discard(0, SIZE // 2)
    cluster_size = image.cluster_size
    changed[: SIZE // 2 // cluster_size * cluster_size] = bytes(SIZE // 2 // cluster_size * cluster_size)
    assert image.read(0, SIZE) == changed
    image.apply_snapshot("one")
    image.delete_snapshot("one")
    image.close()
    qemu_img("check", "-q", path)
    changed[:] = disk
    for at in range(1000, SIZE, SIZE // 7):
        changed[at : at + 4] = b"over"
    assert contents(path) == bytes(changed)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_backing_chains_of_both_formats(tmp_path: Path, version: str) -> None:
    (tmp_path / "deep").mkdir()
    raw = tmp_path / "deep" / "base.raw"
    raw.write_bytes(sparse_disk(4, SIZE // 2))
    middle, top = tmp_path / "deep" / "middle.qcow2", tmp_path / "top.qcow2"
    qemu_img(
        "create", "-q", "-f", "qcow2", "-o", f"compat={version}", "-b", "base.raw", "-F", "raw", middle, SIZE - 3072
    )
    qemu_io(middle, "write -P 7 1M 300k", "write -P 8 3M 64k")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "deep/middle.qcow2", "-F", "qcow2", top, SIZE)
    expected = bytearray(contents(top))
    image = opened(top)
    assert image.read(0, SIZE) == bytes(expected)
    image.write(SIZE - 4096, b"end" * 100)
    expected[SIZE - 4096 : SIZE - 3796] = b"end" * 100
    image.write((1 << 20) + 5, b"x")
    expected[(1 << 20) + 5] = ord("x")
    image.discard(0, 1 << 20)
    expected[: 1 << 20] = bytes(1 << 20)
    image.close()
    assert contents(top) == bytes(expected)
    assert open_image(middle, "qcow2", True).read(0, 1 << 20) == contents(middle)[: 1 << 20]


def test_a_missing_or_endless_backing_chain_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    create_image(path, CreateOptions(SIZE, backing_file="nowhere.raw", backing_format="raw"))
    with pytest.raises(ImageError, match=r"backing file: Could not open '.*nowhere.raw': No such file"):
        opened(path)
    create_image(path, CreateOptions(SIZE, backing_file="image.qcow2", backing_format="qcow2"))
    with pytest.raises(ImageError, match="a loop"):
        open_image(path, "qcow2", read_only=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("extended_l2=on", r"Unsupported qcow2 feature\(s\): extended L2 entries"),
        ("data_file={folder}/data.raw", r"Unsupported qcow2 feature\(s\): external data file"),
        ("encrypt.format=aes,encrypt.key-secret=key", "encrypted .AES."),
        ("encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10", "encrypted .LUKS."),
    ],
)
def test_what_is_not_carried_out_is_refused_by_name(tmp_path: Path, options: str, message: str) -> None:
    path = tmp_path / "image.qcow2"
    secret = ("--object", "secret,id=key,data=secret") if "key" in options else ()
    for _ in range(20):  # on a busy host qemu-img may fail to measure how long a passphrase should take
        qemu_img(
            "create", *secret, "-q", "-f", "qcow2", "-o", options.format(folder=tmp_path), path, SIZE, status=(0, 1)
        )
        if path.exists():
            break
    with pytest.raises(ImageError, match=message):
        opened(path)


def test_an_unknown_feature_is_named_by_its_table_or_its_bit(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    create_image(path, CreateOptions(SIZE))
    data = bytearray(path.read_bytes())
    data[72:80] = (1 << 5 | 1 << 40).to_bytes(8, "big")
    at = data.index(b"extended L2 entries") - 2
    data[at : at + 20] = b"\x00\x05" + b"a future feature\0\0"
    path.write_bytes(data)
    with pytest.raises(ImageError, match="a future feature, Unknown incompatible feature: 10000000000"):
        opened(path)


def test_a_dirty_image_is_repaired_before_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", path, SIZE)
    subprocess.run([need("qemu-io"), "-c", "write -P 9 0 1M", "-c", "abort", path], capture_output=True)
    qemu_img("check", "-q", path, status=2)
    image = opened(path, read_only=True)
    assert image.header.is_dirty
    assert image.read(0, 1 << 20) == b"\x09" * (1 << 20)
    image.close()
    image = opened(path)
    assert not image.header.is_dirty
    image.write(1 << 20, b"more")
    image.close()
    qemu_img("check", "-q", path)
    assert contents(path)[: (1 << 20) + 4] == b"\x09" * (1 << 20) + b"more"


def test_bitmaps_of_qemu_are_marked_as_stale_by_the_first_write(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, SIZE)
    qemu_img("bitmap", "--add", path, "b0")
    image = opened(path)
    assert image.header.autoclear == 1
    assert check(image).leaks == 0
    assert image.read(0, 4096) == bytes(4096)
    assert image.header.autoclear == 1
    image.write(0, b"x")
    image.close()
    assert opened(path, read_only=True).header.autoclear == 0
    assert contents(path)[:1] == b"x"


def test_qemu_reads_our_icounts_and_we_read_its_snapshots(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, SIZE)
    qemu_io(path, "write -P 1 0 1M")
    qemu_img("snapshot", "-c", "theirs", path)
    qemu_io(path, "write -P 2 0 1M")
    image = opened(path)
    theirs = image.find_snapshot("theirs")
    assert (theirs.id, theirs.vm_state_size, theirs.disk_size, theirs.icount) == ("1", 0, SIZE, 0)
    assert image.snapshot_reader("theirs").read(0, 1 << 20) == b"\x01" * (1 << 20)
    image.save_snapshot("ours", b"state" * 50_000, (1_700_000_000, 5), 3_723_004_000_000, 123_456_789_012)
    image.save_snapshot("no icount", b"", 1_700_000_000)
    image.close()
    lines = qemu_img("snapshot", "-l", path).splitlines()
    assert lines[3].startswith("2         ours ")
    assert lines[3].endswith(" 01:02:03.004123456789012")
    assert lines[4].rstrip().endswith("00:00:00.000")
    shown = json.loads(qemu_img("info", "--output=json", path))["snapshots"]
    assert shown[1]["icount"] == 123_456_789_012
    assert shown[1]["vm-state-size"] == 250_000
    assert "icount" not in shown[2]
    qemu_img("snapshot", "-a", "theirs", path)
    assert contents(path)[: 1 << 20] == b"\x01" * (1 << 20)
    image = opened(path)
    assert image.load_vm_state("ours") == b"state" * 50_000
    image.close()


def test_a_snapshot_without_extra_data_is_read(tmp_path: Path) -> None:
    """As old programs write version 2: no disk size, no icount."""
    path = tmp_path / "image.qcow2"
    create_image(path, CreateOptions(SIZE, version=2))
    image = opened(path)
    image.write(0, b"old")
    image.save_snapshot("s", b"vm", icount=5)
    at = image.header.snapshots_offset
    image.close()
    data = bytearray(path.read_bytes())
    entry = data[at : at + 36] + bytes(4) + b"1s"
    data[at : at + 80] = entry.ljust(80, b"\0")
    path.write_bytes(data)
    image = opened(path)
    record = image.find_snapshot("s")
    assert (record.icount, record.disk_size, record.vm_state_size) == (-1, SIZE, 2)
    assert image.load_vm_state("s") == b"vm"
    image.write(0, b"new")
    image.apply_snapshot("s")
    assert image.read(0, 3) == b"old"
    image.close()
    qemu_img("check", "-q", path)


def test_ids_are_looked_for_before_tags(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    create_image(path, CreateOptions(SIZE))
    image = opened(path)
    image.save_snapshot("2", icount=10)
    image.save_snapshot("other", icount=20)
    assert image.find_snapshot("2").icount == 20
    assert image.find_snapshot("1").icount == 10
    image.delete_snapshot("2")
    assert image.find_snapshot("2").icount == 10
    image.save_snapshot("third")
    assert image.find_snapshot("third").id == "2"
    image.close()


@pytest.mark.parametrize("sizes", [(SIZE, SIZE * 3 + 512), (SIZE, SIZE // 3), (SIZE // 2, 100 << 30)])
def test_resized_images(tmp_path: Path, sizes: tuple[int, int]) -> None:
    old, new = sizes
    path, base = tmp_path / "image.qcow2", tmp_path / "base.raw"
    base.write_bytes(b"B" * SIZE)
    create_image(path, CreateOptions(old, backing_file="base.raw", backing_format="raw", cluster_size=4096))
    image = opened(path)
    image.write(old - 100, b"e" * 100)
    image.save_snapshot("before", b"vm")
    resize(image, new)
    expected = (b"B" * (old - 100) + b"e" * 100)[:new].ljust(min(new, 4 * SIZE), b"\0")
    assert image.read(0, len(expected)) == expected
    assert image.load_vm_state("before") == b"vm"
    image.apply_snapshot("before")
    assert image.size == old
    assert image.read(0, old) == b"B" * (old - 100) + b"e" * 100
    image.close()
    qemu_img("check", "-q", path)


def test_probing_and_its_warning(tmp_path: Path) -> None:
    raw, path = tmp_path / "disk.raw", tmp_path / "image.qcow2"
    raw.write_bytes(b"QFI" + bytes(2000))
    create_image(path, CreateOptions(SIZE))
    assert (probe_format(raw), probe_format(path)) == ("raw", "qcow2")
    with pytest.warns(GuessedRawWarning, match="probing guessed raw"):
        node = open_image(raw)
    assert node.size == 2048
    node.close()
    open_image(raw, read_only=True).close()
    with pytest.raises(ImageError, match="Image is not in qcow2 format"):
        open_image(raw, "qcow2")
    with pytest.raises(UserError, match="Unknown driver 'vmdk'"):
        open_image(raw, "vmdk")
    with pytest.raises(UserError, match="open for reading only"):
        open_image(path, read_only=True).write(0, b"x")
