"""Random histories of an image against a model, and against the real qemu-img at the end and in between."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.blkreplay.qcow2.qemu import contents, qemu_img, qemu_io
from timevm.blkreplay.opening import open_image
from timevm.blkreplay.qcow2 import l2_cache, refcounts
from timevm.blkreplay.qcow2.check import check, repair
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.errors import UserError

SIZES = (1 << 20, (1 << 20) + 1536, 300_032)
OFFSETS = st.integers(0, (1 << 20) + 1535)
LENGTHS = st.sampled_from((1, 511, 512, 4096, 70_000, 400_000))
SEEDS = st.integers(0, 2**32)
TAGS = st.sampled_from(("a", "b", "é"))


class Images(RuleBasedStateMachine):
    """``disk``: what the image must read as; ``saved``: by tag, disk and VM state."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "image.qcow2"

    @initialize(
        bits=st.sampled_from((9, 12, 14, 16)),
        version=st.sampled_from((2, 3)),
        refcount_bits=st.sampled_from((1, 2, 4, 8, 16, 32, 64)),
        size=st.sampled_from(SIZES),
        backing_seed=st.none() | SEEDS,
        lazy=st.booleans(),
    )
    def create(
        self, bits: int, version: int, refcount_bits: int, size: int, backing_seed: int | None, lazy: bool
    ) -> None:
        self.size = size
        self.disk = bytearray(size)
        backing = None
        if backing_seed is not None:
            backing = "backing.raw"
            data = random.Random(backing_seed).randbytes(size // 2 // 512 * 512)
            (self.path.parent / backing).write_bytes(data)
            self.disk[: len(data)] = data
        self.options = CreateOptions(
            size,
            version=version,
            cluster_size=1 << bits,
            refcount_bits=refcount_bits if version == 3 else 16,
            lazy_refcounts=lazy and version == 3,
            backing_file=backing,
            backing_format="raw" if backing else None,
        )
        create_image(self.path, self.options)
        self.saved: dict[str, tuple[bytes, bytes, int]] = {}
        self.open()

    def open(self) -> None:
        image = open_image(self.path, "qcow2")
        assert isinstance(image, Qcow2Image)
        self.image = image

    def within(self, offset: int, length: int) -> tuple[int, int]:
        offset %= self.size
        return offset, min(length, self.size - offset)

    @rule(offset=OFFSETS, length=LENGTHS, seed=SEEDS)
    def write(self, offset: int, length: int, seed: int) -> None:
        offset, length = self.within(offset, length)
        data = random.Random(seed).randbytes(length)
        self.image.write(offset, data)
        self.disk[offset : offset + length] = data

    @rule(offset=OFFSETS, length=LENGTHS, unmap=st.booleans())
    def write_zeroes(self, offset: int, length: int, unmap: bool) -> None:
        offset, length = self.within(offset, length)
        self.image.write_zeroes(offset, length, unmap=unmap)
        self.disk[offset : offset + length] = bytes(length)

    @rule(offset=OFFSETS, length=LENGTHS)
    def discard(self, offset: int, length: int) -> None:
        offset, length = self.within(offset, length)
        self.image.discard(offset, length)
        cluster, end = self.image.cluster_size, offset + length
        first = offset + -offset % cluster
        last = end if end == self.size else end - end % cluster
        if first < last:
            self.disk[first:last] = bytes(last - first)

    @rule()
    def flush(self) -> None:
        self.image.flush()

    def refused_or(self, action: Callable[[], object]) -> bool:
        """Narrow reference counts allow few snapshots; a refusal must change nothing."""
        try:
            action()
        except UserError as error:
            assert "allow no more snapshots" in str(error)
            return False
        return True

    @rule(tag=TAGS, seed=SEEDS, length=st.integers(0, 150_000), icount=st.integers(-1, 2**62), share=st.booleans())
    def save(self, tag: str, seed: int, length: int, icount: int, share: bool) -> None:
        state = random.Random(seed % 3).randbytes(length)
        share_with = sorted(self.saved)[0] if share and self.saved else None
        done = self.refused_or(
            lambda: self.image.save_snapshot(tag, state, (seed, 5), 7, icount, share_with=share_with)
        )
        if done:
            self.saved[tag] = (bytes(self.disk), state, icount)

    @rule(tag=TAGS, seed=SEEDS, count=st.integers(1, 5))
    def save_with_overlay(self, tag: str, seed: int, count: int) -> None:
        rng, cluster = random.Random(seed), self.image.cluster_size
        disk, overlay = bytearray(self.disk), {}
        for number in rng.sample(range(-(-self.size // cluster)), min(count, -(-self.size // cluster))):
            overlay[number] = rng.randbytes(cluster)
            end = min(self.size, (number + 1) * cluster)
            disk[number * cluster : end] = overlay[number][: end - number * cluster]
        if self.refused_or(lambda: self.image.save_snapshot(tag, b"state", 5.5, 7, overlay=overlay)):
            self.saved[tag] = (bytes(disk), b"state", -1)

    @precondition(lambda self: bool(self.saved))
    @rule(data=st.data())
    def apply(self, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from(sorted(self.saved)))
        if self.refused_or(lambda: self.image.apply_snapshot(tag)):
            self.disk[:] = self.saved[tag][0]

    @precondition(lambda self: bool(self.saved))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from(sorted(self.saved)))
        self.image.delete_snapshot(tag)
        del self.saved[tag]

    @rule()
    def reopen(self) -> None:
        self.image.close()
        self.open()

    @rule()
    def kill_after_flush(self) -> None:
        """The process is gone without a word; another one repairs what leaked."""
        self.image.flush()
        self.image.abandon()
        qemu_img("check", "-q", self.path, status=(0, 3))
        self.open()
        repair(self.image, everything=False)

    @rule(offset=OFFSETS, pattern=st.integers(0, 255))
    def others_write(self, offset: int, pattern: int) -> None:
        """QEMU writes into our image in between."""
        offset, length = self.within(offset // 512 * 512, 4096)
        length -= length % 512
        self.image.close()
        if length:
            qemu_io(self.path, f"write -P {pattern} {offset} {length}")
            self.disk[offset : offset + length] = bytes([pattern]) * length
        self.open()

    @precondition(lambda self: bool(self.saved))
    @rule(data=st.data())
    def others_apply_or_delete(self, data: st.DataObject) -> None:
        """QEMU uses our snapshots."""
        tag = data.draw(st.sampled_from(sorted(self.saved)))
        self.image.close()
        if data.draw(st.booleans()):
            qemu_img("snapshot", "-d", tag, self.path)
            del self.saved[tag]
        elif self.options.refcount_bits >= 8:
            qemu_img("snapshot", "-a", tag, self.path)
            self.disk[:] = self.saved[tag][0]
        self.open()

    @rule()
    def compare(self) -> None:
        assert self.image.read(0, self.size) == bytes(self.disk)
        for tag, (disk, state, icount) in self.saved.items():
            assert self.image.snapshot_reader(tag).read(0, self.size) == disk
            assert self.image.load_vm_state(tag) == state
            assert self.image.find_snapshot(tag).icount == icount

    def teardown(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self.folder.cleanup)
            if not hasattr(self, "image"):
                return
            self.compare()
            self.image.close()
            qemu_img("check", "-q", self.path)
            assert contents(self.path) == bytes(self.disk)
            for tag, (disk, _, _) in self.saved.items():
                assert contents(self.path, tag) == disk
            self.open()
            result = check(self.image)
            assert (result.corruptions, result.leaks) == (0, 0)
            self.image.close()


SETTINGS = settings(
    max_examples=int(os.environ.get("TIMEVM_HISTORIES", "25")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_histories() -> None:
    run_state_machine_as_test(Images, settings=SETTINGS)


def test_histories_with_caches_of_a_few_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(l2_cache, "CACHE_BYTES", 0)
    monkeypatch.setattr(refcounts, "CACHE_BYTES", 0)
    run_state_machine_as_test(Images, settings=SETTINGS)
