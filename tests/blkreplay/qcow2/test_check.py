"""Check and repair: what was damaged is found, as qemu-img finds it, and mended at once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.blkreplay.qcow2.crash_log import LoggedFile, after_kill
from tests.blkreplay.qcow2.qemu import contents, qemu_img
from timevm.blkreplay.image_errors import ImageError
from timevm.blkreplay.opening import open_image
from timevm.blkreplay.qcow2 import check as check_module
from timevm.blkreplay.qcow2.check import check, repair
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.blkreplay.qcow2.entries import OFFSET_MASK
from timevm.blkreplay.qcow2.image import Qcow2Image

SIZE = 2 << 20
CLUSTER = 4096


def opened(path: Path, *, read_only: bool = False) -> Qcow2Image:
    image = open_image(path, "qcow2", read_only)
    assert isinstance(image, Qcow2Image)
    return image


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image.qcow2"
    create_image(path, CreateOptions(SIZE, cluster_size=CLUSTER))
    image = opened(path)
    image.write(10_000, random.Random(1).randbytes(300_000))
    image.save_snapshot("one", b"state" * 5000)
    image.write(100_000, random.Random(2).randbytes(300_000))
    image.close()
    return path


def damage_counts_and_flags(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    image = opened(path, read_only=True)
    block = int(image.refcounts.table[0])
    table = int(image.l1[0]) & OFFSET_MASK
    clusters = image.file.size // CLUSTER
    image.close()
    data = bytearray(path.read_bytes())
    for _ in range(rng.randrange(1, 10)):
        if rng.random() < 0.6:
            at = block + 2 * rng.randrange(clusters)
            data[at : at + 2] = rng.choice((0, 1, 2, 7)).to_bytes(2, "big")
        else:
            at = table + 8 * rng.randrange(3, 90)
            if any(data[at : at + 8]):
                data[at] ^= 0x80
    path.write_bytes(data)


@pytest.mark.parametrize("seed", range(8))
def test_damaged_counts_and_flags_are_found_and_mended(path: Path, seed: int) -> None:
    disk, state = contents(path), contents(path, "one")
    damage_counts_and_flags(path, seed)
    image = opened(path, read_only=True)
    result = check(image)
    image.close()
    qemu_img("check", "-q", path, status=2 if result.corruptions else 3 if result.leaks else 0)
    image = opened(path)
    before = repair(image, everything=True)
    assert (before.corruptions, before.leaks) == (result.corruptions, result.leaks)
    assert (check(image).corruptions, check(image).leaks) == (0, 0)
    image.write(SIZE - 5, b"after")
    image.close()
    qemu_img("check", "-q", path)
    assert contents(path) == disk[:-5] + b"after"
    assert contents(path, "one") == state


def test_a_repair_is_all_or_nothing(path: Path, tmp_path: Path) -> None:
    disk = contents(path)
    damage_counts_and_flags(path, 3)
    base = path.read_bytes()
    image = Qcow2Image(file := LoggedFile(path))
    before = repair(image, everything=True)
    assert before.corruptions
    image.close()
    for count in range(len(file.log) + 1):
        path.write_bytes(after_kill(base, file.log, count))
        remains = opened(path, read_only=True)
        found = check(remains)
        assert found.corruptions in (0, before.corruptions)
        assert remains.read(0, SIZE) == disk
        remains.close()


def test_leaks_alone_leave_damage_alone(path: Path) -> None:
    damage_counts_and_flags(path, 3)
    before = path.read_bytes()
    image = opened(path)
    assert repair(image, everything=False).corruptions
    image.close()
    assert path.read_bytes() == before


def test_the_corrupt_mark(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[79] |= 2
    path.write_bytes(data)
    image = opened(path)
    assert len(image.read(0, SIZE)) == SIZE
    with pytest.raises(ImageError, match="marked as damaged: repair it with `timevm img check -r all`"):
        image.write(0, b"x")
    repair(image, everything=True)
    image.write(0, b"x")
    image.close()
    qemu_img("check", "-q", path)


def test_tables_outside_the_file_are_not_guessed_at(path: Path) -> None:
    image = opened(path, read_only=True)
    at = image.header.l1_offset
    image.close()
    data = bytearray(path.read_bytes())
    data[at : at + 8] = (1 << 63 | 1 << 40).to_bytes(8, "big")
    path.write_bytes(data)
    image = opened(path)
    result = check(image)
    assert result.beyond_repair == 1
    assert "an L2 table would be at 0x10000000000" in result.messages[0]
    with pytest.raises(ImageError, match="cannot be repaired"):
        repair(image, everything=True)
    with pytest.raises(ImageError, match="damaged"):
        image.read(0, 1)
    image.close()


def test_only_so_many_messages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "MOST_MESSAGES", 3)
    image = opened(path, read_only=True)
    block, clusters = int(image.refcounts.table[0]), image.file.size // CLUSTER
    image.close()
    data = bytearray(path.read_bytes())
    data[block : block + clusters * 2] = bytes(clusters * 2)
    path.write_bytes(data)
    image = opened(path)
    result = check(image)
    assert result.corruptions > 100
    assert len(result.messages) == 4
    assert result.messages[-1] == "more than 3 contradictions: the rest is counted only"
    with pytest.raises(ImageError, match="some of its tables are counted as free"):
        image.write(0, b"x")
    image.close()
