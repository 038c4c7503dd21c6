"""kill -9 at random moments of writes, savevm and delvm."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.blkreplay.qcow2 import writer_process
from tests.peers import need
from timevm.blkreplay.opening import open_image
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.blkreplay.qcow2.image import Qcow2Image

KILLS = int(os.environ.get("TIMEVM_KILLS", "6"))
#: seconds until the process has to have said something
PATIENCE = 60


def run_and_kill(path: Path, seed: int, after: float) -> list[list[str]]:
    """What the process promised, until it was killed ``after`` seconds after its first promise."""
    process = subprocess.Popen([sys.executable, writer_process.__file__, path, str(seed)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
        assert ready, "the writing process said nothing"
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    return [line.split() for line in output.decode().splitlines(keepends=True) if line.endswith("\n")]


def saved_for_sure(lines: list[list[str]], before: dict[str, int]) -> tuple[dict[str, int], list[str]]:
    """Snapshots that must be there, and what was under way: deleting a tag (there or not), replacing (old or new)."""
    saved, unsure = dict(before), ["nothing", ""]
    for line in lines:
        match line:
            case ["deleting" | "replacing", _]:
                unsure = line
            case ["deleted", tag]:
                del saved[tag]
                unsure = ["nothing", ""]
            case ["saved", tag, number]:
                saved[tag] = int(number)
                unsure = ["nothing", ""]
    return saved, unsure


@pytest.mark.parametrize("compat", [2, 3])
def test_no_kill_damages_the_image_or_loses_a_snapshot(tmp_path: Path, compat: int) -> None:
    path = tmp_path / "image.qcow2"
    create_image(path, CreateOptions(writer_process.SIZE, version=compat, cluster_size=16384 if compat == 3 else 65536))
    rng = random.Random(compat)
    saved: dict[str, int] = {}
    for number in range(KILLS):
        lines = run_and_kill(path, number + 1, rng.random() * 0.5)
        saved, unsure = saved_for_sure(lines, saved)
        done = subprocess.run([need("qemu-img"), "check", path], capture_output=True, text=True)
        assert done.returncode in (0, 3), done.stdout + done.stderr
        image = open_image(path, "qcow2", read_only=True)
        assert isinstance(image, Qcow2Image)
        there = {record.tag: record.icount for record in image.snapshots()}
        for tag, number_saved in saved.items():
            assert unsure == ["deleting", tag] or tag in there
            assert tag == unsure[1] or there[tag] == number_saved
        for tag, icount in there.items():
            assert image.load_vm_state(tag) == writer_process.state(icount)
            reader = image.snapshot_reader(tag)
            for place in range(writer_process.MARKS):
                at = place * (writer_process.SIZE // writer_process.MARKS)
                assert reader.read(at, 4096) == writer_process.mark(icount)
        saved = there
        image.close()
        if number % 4 == 3 and done.returncode == 3:
            subprocess.run([need("qemu-img"), "check", "-q", "-r", "leaks", path], check=True)
