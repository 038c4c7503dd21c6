"""``python -m benchmarks.images``: qcow2 without a machine, beside ``qemu-img bench`` on the same image."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from timevm.blkreplay.opening import open_image
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.blkreplay.qcow2.image import Qcow2Image

DISK = 1 << 30
BYTES = 128 << 20
LENGTHS = (4096, 65536, 1 << 20)
STATE = 64 << 20


def opened(path: Path) -> Qcow2Image:
    image = open_image(path, "qcow2")
    assert isinstance(image, Qcow2Image)
    return image


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def ours(path: Path, length: int, *, write: bool) -> float:
    """Seconds a request, one behind the other."""
    image, data = opened(path), os.urandom(length)
    count = min(BYTES // length, 4000)

    def run() -> None:
        for number in range(count):
            if write:
                image.write(number * length, data)
            else:
                image.read(number * length, length)

    taken = seconds(run) / count
    image.close()
    return taken


def theirs(path: Path, length: int, *, write: bool) -> float:
    """The same with a queue of one request."""
    program = shutil.which("qemu-img")
    if program is None:
        return float("nan")
    count = min(BYTES // length, 4000)
    options = [
        "-f",
        "qcow2",
        "-t",
        "writeback",
        "-d",
        "1",
        "-c",
        str(count),
        "-s",
        str(length),
        *(["-w"] if write else []),
    ]
    done = subprocess.run([program, "bench", *options, path], capture_output=True, text=True, check=True)
    return float(done.stdout.split("completed in ")[1].split()[0]) / count


def snapshots(path: Path) -> dict[str, float]:
    """Seconds of each operation with 64 MiB of VM state."""
    image = opened(path)
    pieces = [os.urandom(1 << 20) for _ in range(STATE >> 20)]
    changed = [*pieces[:60], *(os.urandom(1 << 20) for _ in range(4))]
    taken = {
        "save, 64 MiB": seconds(lambda: image.save_snapshot("a", iter(pieces))),
        "save, 4 of 64 MiB changed": seconds(lambda: image.save_snapshot("b", iter(changed), share_with="a")),
        "save, no state": seconds(lambda: image.save_snapshot("c")),
        "load, 64 MiB in pieces": seconds(lambda: sum(map(len, image.vm_state_pieces("b")))),
        "load, 64 MiB at once": seconds(lambda: image.load_vm_state("b")),
        "apply": seconds(lambda: image.apply_snapshot("a")),
        "delete": seconds(lambda: image.delete_snapshot("a")),
    }
    image.close()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="rounds (default 5); medians are shown")
    runs = parser.parse_args().runs
    table = Table("", "timevm", "qemu-img bench", title="medians")
    with tempfile.TemporaryDirectory(prefix="timevm-images-") as folder:
        path = Path(folder) / "image.qcow2"
        create_image(path, CreateOptions(DISK))
        image = opened(path)
        for at in range(0, BYTES, 1 << 20):
            image.write(at, os.urandom(1 << 20))
        image.close()
        for write in (False, True):
            for length in LENGTHS:
                pairs = [(ours(path, length, write=write), theirs(path, length, write=write)) for _ in range(runs)]
                mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
                name = f"{'write' if write else 'read'} {length >> 10} KiB, one behind the other"
                table.add_row(name, f"{mine * 1e6:.0f} µs", f"{other * 1e6:.0f} µs")
        rounds = [snapshots(path) for _ in range(runs)]
        for name in rounds[0]:
            table.add_row(name, f"{statistics.median(taken[name] for taken in rounds) * 1e3:.0f} ms", "")
    Console().print(table)


if __name__ == "__main__":
    main()
