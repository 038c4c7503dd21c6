"""Whatever moment a kill or a loss of power picks: at worst leaks, and nothing lost that was flushed or saved."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from tests.blkreplay.qcow2.crash_log import LoggedFile, after_kill, after_power_loss
from tests.peers import need
from timevm.blkreplay.opening import open_image
from timevm.blkreplay.qcow2.check import check
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.blkreplay.qcow2.image import Qcow2Image

SIZE = 3 << 20
LENGTHS = (512, 4096, 30_000, 200_000)


class Workload:
    """Random requests on one image; remembers what is promised from which moment of the log on."""

    def __init__(self, path: Path, seed: int, options: CreateOptions) -> None:
        self.rng = random.Random(seed)
        create_image(path, options)
        self.base = path.read_bytes()
        self.file = LoggedFile(path)
        self.image = Qcow2Image(self.file)
        self.model = bytearray(SIZE)
        #: (length of the log, snapshots that are there for sure)
        self.promises: list[tuple[int, dict[str, tuple[bytes, bytes]]]] = [(0, {})]
        #: (length of the log, the disk as it was flushed)
        self.flushed: list[tuple[int, bytes]] = []

    def step(self) -> None:
        rng, image = self.rng, self.image
        offset = rng.randrange(SIZE)
        length = min(SIZE - offset, rng.choice(LENGTHS))
        match rng.choice("wwwwwzdfsaxo"):
            case "w":
                data = rng.randbytes(length)
                image.write(offset, data)
                self.model[offset : offset + length] = data
            case "z":
                image.write_zeroes(offset, length, unmap=rng.random() < 0.5)
                self.model[offset : offset + length] = bytes(length)
            case "d":
                image.discard(offset, length)
                self.model[:] = image.read(0, SIZE)
            case "f":
                image.flush()
                self.flushed.append((len(self.file.log), bytes(self.model)))
            case "s":
                tag, state = rng.choice("abc"), rng.randbytes(rng.randrange(100_000))
                self._change(tag)
                image.save_snapshot(tag, state, icount=5, share_with=self._any())
                self._promise(tag, bytes(self.model), state)
            case "o":
                self._overlay()
            case "a" if self._current():
                tag = self._one()
                image.apply_snapshot(tag)
                self.model[:] = self._current()[tag][0]
            case "x" if self._current():
                tag = self._one()
                self._change(tag)
                image.delete_snapshot(tag)

    def _overlay(self) -> None:
        rng, size = self.rng, self.image.cluster_size
        disk, overlay = bytearray(self.model), {}
        for cluster in rng.sample(range(SIZE // size), 3):
            overlay[cluster] = rng.randbytes(size)
            disk[cluster * size : (cluster + 1) * size] = overlay[cluster]
        self._change("o")
        self.image.save_snapshot("o", b"state", overlay=overlay)
        self._promise("o", bytes(disk), b"state")

    def _current(self) -> dict[str, tuple[bytes, bytes]]:
        return self.promises[-1][1]

    def _one(self) -> str:
        return self.rng.choice(sorted(self._current()))

    def _any(self) -> str | None:
        return self._one() if self._current() else None

    def _change(self, tag: str) -> None:
        """While a tag is replaced or deleted, nothing is promised of it but that it is old or new."""
        rest = {name: what for name, what in self._current().items() if name != tag}
        self.promises.append((len(self.file.log), rest))

    def _promise(self, tag: str, disk: bytes, state: bytes) -> None:
        self.promises.append((len(self.file.log), self._current() | {tag: (disk, state)}))

    def promised_at(self, count: int) -> dict[str, tuple[bytes, bytes]]:
        return [what for at, what in self.promises if at <= count][-1]


def check_remains(
    path: Path, data: bytearray, promised: dict[str, tuple[bytes, bytes]], active: bytes | None = None
) -> None:
    path.write_bytes(data)
    image = open_image(path, "qcow2", read_only=True)
    try:
        assert isinstance(image, Qcow2Image)
        result = check(image)
        assert not result.corruptions, result.messages[:3]
        for tag, (disk, state) in promised.items():
            assert image.snapshot_reader(tag).read(0, SIZE) == disk
            assert image.load_vm_state(tag) == state
        assert active is None or image.read(0, SIZE) == active
    finally:
        image.close()


OPTIONS = (
    CreateOptions(SIZE, cluster_size=4096),
    CreateOptions(SIZE, cluster_size=512, refcount_bits=64),
    CreateOptions(SIZE, cluster_size=65536, version=2),
    CreateOptions(SIZE, cluster_size=1024, refcount_bits=8, lazy_refcounts=True),
)


@pytest.mark.parametrize("seed", range(4))
def test_every_crash_leaves_a_sound_image(tmp_path: Path, seed: int) -> None:
    work = Workload(tmp_path / "image", seed, OPTIONS[seed])
    for _ in range(40):
        work.step()
    work.image.close()
    log = work.file.log
    rng = random.Random(seed)
    remains = tmp_path / "remains"
    for number, count in enumerate(sorted(rng.sample(range(len(log)), min(len(log), 150)))):
        killed = after_kill(work.base, log, count)
        check_remains(remains, killed, work.promised_at(count))
        if number % 15 == 0:
            assert subprocess.run([need("qemu-img"), "check", "-q", remains]).returncode in (0, 3)
        lost = after_power_loss(work.base, log, count, seed + count)
        check_remains(remains, lost, work.promised_at(count))
    for count, disk in work.flushed:
        lost = after_power_loss(work.base, log, count, seed)
        check_remains(remains, lost, work.promised_at(count), disk)
