"""Internal snapshots beyond what the state machine tries: sharing, overlays, readers, failures in the middle."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.blkreplay.qcow2.qemu import contents, qemu_img
from timevm.blkreplay.image_errors import ImageError, SnapshotNotFoundError
from timevm.blkreplay.opening import open_image
from timevm.blkreplay.qcow2.check import check
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.errors import GuestError, UserError

SIZE = 8 << 20
CLUSTER = 65536


def new_image(path: Path, **options: Any) -> Qcow2Image:
    create_image(path, CreateOptions(SIZE, **options))
    return reopened(path)


def reopened(path: Path) -> Qcow2Image:
    image = open_image(path, "qcow2")
    assert isinstance(image, Qcow2Image)
    return image


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Qcow2Image]:
    image = new_image(tmp_path / "image.qcow2")
    image.write(0, b"\x11" * SIZE)
    yield image
    image.close()
    qemu_img("check", "-q", tmp_path / "image.qcow2")


def growth(image: Qcow2Image, action: Callable[[], object]) -> int:
    """By how many bytes of the host's disk the file grows."""
    image.flush()
    before = image.file.allocated_bytes
    action()
    return image.file.allocated_bytes - before


def test_equal_pieces_of_vm_state_are_shared(image: Qcow2Image) -> None:
    rng = random.Random(1)
    pieces = [rng.randbytes(CLUSTER) for _ in range(100)]
    assert growth(image, lambda: image.save_snapshot("one", iter(pieces))) >= 100 * CLUSTER
    changed = [*pieces[50:], *pieces[:48], rng.randbytes(CLUSTER), rng.randbytes(1000)]  # in other places, too
    grown = growth(image, lambda: image.save_snapshot("two", iter(changed), share_with="one"))
    assert grown < 20 * CLUSTER
    assert image.load_vm_state("one") == b"".join(pieces)
    assert image.load_vm_state("two") == b"".join(changed)
    image.delete_snapshot("one")
    assert image.load_vm_state("two") == b"".join(changed)
    assert growth(image, lambda: image.save_snapshot("two", iter(changed), share_with="two")) < 20 * CLUSTER
    assert image.load_vm_state("two") == b"".join(changed)


def test_zeroes_of_vm_state_take_no_space(image: Qcow2Image) -> None:
    state = b"head" + bytes(50 << 20) + b"tail"
    assert growth(image, lambda: image.save_snapshot("one", state)) < 20 * CLUSTER
    assert image.load_vm_state("one") == state


@pytest.mark.parametrize("version", [2, 3])
def test_vm_state_in_pieces_of_any_length(tmp_path: Path, version: int) -> None:
    image = new_image(tmp_path / "image.qcow2", version=version, cluster_size=512)
    rng = random.Random(2)
    pieces = [rng.randbytes(rng.choice((0, 1, 511, 512, 513, 100_000))) for _ in range(40)] + [bytes(5000)]
    image.save_snapshot("one", iter(pieces), icount=4)
    image.close()
    image = reopened(tmp_path / "image.qcow2")
    assert image.load_vm_state("one") == b"".join(pieces)
    assert b"".join(image.vm_state_pieces("one")) == b"".join(pieces)
    assert image.find_snapshot("one").vm_state_size == sum(map(len, pieces))
    image.close()
    qemu_img("check", "-q", tmp_path / "image.qcow2")


def test_a_state_that_fails_in_the_middle_changes_nothing(image: Qcow2Image) -> None:
    def state() -> Iterator[bytes]:
        yield b"x" * (3 << 20)
        raise GuestError("no more")

    image.save_snapshot("one", b"good", icount=1)
    size = image.file.path.stat().st_size
    image.write(0, b"\x22" * 100)
    with pytest.raises(GuestError):
        image.save_snapshot("one", state(), icount=2)
    assert [(record.tag, record.icount) for record in image.snapshots()] == [("one", 1)]
    assert image.load_vm_state("one") == b"good"
    assert image.read(0, 101) == b"\x22" * 100 + b"\x11"
    assert image.file.path.stat().st_size <= size + 2 * CLUSTER
    assert (check(image).corruptions, check(image).leaks) == (0, 0)


def test_an_overlay_belongs_to_the_snapshot_only(image: Qcow2Image, tmp_path: Path) -> None:
    overlay = {0: b"\x55" * CLUSTER, 7: b"\x66" * CLUSTER, 127: b"\x77" * 5000}
    image.save_snapshot("plain")
    image.save_snapshot("over", b"vm", icount=9, overlay=overlay)
    assert image.read(0, SIZE) == b"\x11" * SIZE
    expected = bytearray(b"\x11" * SIZE)
    expected[:CLUSTER] = overlay[0]
    expected[7 * CLUSTER : 8 * CLUSTER] = overlay[7]
    expected[127 * CLUSTER :] = overlay[127].ljust(CLUSTER, b"\0")
    assert image.snapshot_reader("over").read(0, SIZE) == expected
    image.close()
    assert contents(tmp_path / "image.qcow2", "over") == expected
    assert contents(tmp_path / "image.qcow2") == b"\x11" * SIZE


def test_an_overlay_that_does_not_fit_is_refused(image: Qcow2Image) -> None:
    for overlay in ({128: b"x"}, {-1: b"x"}, {0: b"x" * (CLUSTER + 1)}):
        with pytest.raises(UserError, match="an overlay has"):
            image.save_snapshot("over", overlay=overlay)
    assert image.snapshots() == []


def test_a_reader_stays_while_the_image_goes_on(image: Qcow2Image) -> None:
    image.save_snapshot("one")
    image.save_snapshot("two")
    reader = image.snapshot_reader("one")
    image.write(0, b"\x22" * SIZE)
    image.delete_snapshot("two")
    image.save_snapshot("three")
    image.write(0, b"\x33" * SIZE)
    image.apply_snapshot("three")
    assert reader.size == SIZE
    assert reader.read(0, SIZE) == b"\x11" * SIZE
    changes: tuple[Callable[[], None], ...] = (
        lambda: reader.write(0, b"x"),
        lambda: reader.discard(0, 1),
        lambda: reader.write_zeroes(0, 1),
    )
    for change in changes:
        with pytest.raises(UserError, match="cannot be written to"):
            change()
    with pytest.raises(UserError, match="are not on the disk"):
        reader.read(SIZE, 1)
    image.delete_snapshot("one")
    with pytest.raises(UserError, match="'one' has been deleted"):
        reader.read(0, 1)


def test_dates_tags_and_missing_ones(image: Qcow2Image) -> None:
    record = image.save_snapshot("tägg 日本", b"", 1_700_000_000.25, vm_clock_ns=5, icount=0)
    assert (record.date_seconds, record.date_nanoseconds, record.icount) == (1_700_000_000, 250_000_000, 0)
    with pytest.raises(SnapshotNotFoundError, match="no snapshot 'x'"):
        image.load_vm_state("x")
    for tag in ("", "x" * 70_000):
        with pytest.raises(UserError, match="a snapshot's tag"):
            image.save_snapshot(tag)
    path = image.path
    image.close()
    again = reopened(path)
    assert again.snapshots() == [record]
    again.close()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_narrow_counts_allow_as_many_snapshots_as_they_hold(tmp_path: Path, bits: int) -> None:
    image = new_image(tmp_path / "image.qcow2", refcount_bits=bits, cluster_size=4096)
    image.write(0, b"x" * 20_000)
    saved = 0
    while True:
        try:
            image.save_snapshot(str(saved + 1000))
        except UserError as error:
            assert f"counts of {bits} bits allow no more snapshots" in str(error)
            break
        saved += 1
    assert saved == (1 << bits) - 2
    assert len(image.snapshots()) == saved
    image.write(0, b"y" * 20_000)
    image.close()
    qemu_img("check", "-q", tmp_path / "image.qcow2")


def test_many_snapshots(tmp_path: Path) -> None:
    image = new_image(tmp_path / "image.qcow2", cluster_size=4096)
    rng = random.Random(3)
    for number in range(120):
        image.write(rng.randrange(SIZE - 5000), rng.randbytes(5000))
        image.save_snapshot(f"s{number}", number.to_bytes(4, "big") * 500, icount=number)
        if number % 3 == 2:
            image.delete_snapshot(f"s{rng.choice(range(number - 2, number + 1))}")
    for record in image.snapshots():
        assert image.load_vm_state(record.id) == record.icount.to_bytes(4, "big") * 500
    image.close()
    qemu_img("check", "-q", tmp_path / "image.qcow2")


def test_a_vm_state_that_claims_too_much_is_refused(image: Qcow2Image) -> None:
    image.save_snapshot("one", b"state")
    at, path = image.header.snapshots_offset, image.path
    image.close()
    data = bytearray(path.read_bytes())
    data[at + 40 : at + 48] = (1 << 40).to_bytes(8, "big")
    path.write_bytes(data)
    damaged = reopened(path)
    with pytest.raises(ImageError, match="no such amount of VM state"):
        damaged.load_vm_state("one")
    damaged.delete_snapshot("one")
    damaged.close()
