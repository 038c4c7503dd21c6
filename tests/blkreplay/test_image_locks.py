"""One writer an image, among timevm and QEMU alike."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.blkreplay.qcow2.qemu import qemu_img
from tests.peers import need
from timevm.blkreplay.image_locks import LockedImageError
from timevm.blkreplay.opening import open_image
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.blkreplay.qcow2.image import Qcow2Image

PATIENCE = 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create_image(tmp_path / "image.qcow2", CreateOptions(1 << 20))
    return tmp_path / "image.qcow2"


@contextmanager
def opened_by_qemu(path: Path, *options: str) -> Iterator[None]:
    """qemu-io has it open, and waits for commands."""
    command = [need("qemu-io"), *options, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"length\n")
        process.stdin.flush()
        answer = b""
        while b"1 MiB" not in answer:
            piece = os.read(process.stdout.fileno(), 4096)
            assert piece, "qemu-io ended"
            answer += piece
        yield
        process.stdin.close()
        process.wait(PATIENCE)


def test_a_second_writer_is_refused(path: Path) -> None:
    first = open_image(path)
    with pytest.raises(LockedImageError, match=r'Failed to get "write" lock\nIs another process using the image \['):
        open_image(path)
    with pytest.raises(LockedImageError, match='Failed to get shared "write" lock'):
        open_image(path, read_only=True)
    open_image(path, read_only=True, share=True).close()
    first.close()
    open_image(path).close()


def test_readers_share_and_keep_writers_out(path: Path) -> None:
    readers = [open_image(path, read_only=True) for _ in range(3)]
    with pytest.raises(LockedImageError, match='"write" lock'):
        open_image(path)
    for reader in readers:
        reader.close()
    open_image(path).close()


def test_qemu_refuses_what_we_have_open(path: Path) -> None:
    image = open_image(path)
    done = subprocess.run([need("qemu-img"), "snapshot", "-c", "x", path], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'Failed to get "write" lock' in done.stderr
    qemu_img("info", path, status=1)
    qemu_img("info", "-U", path)
    image.close()
    reader = open_image(path, read_only=True)
    qemu_img("info", path)
    qemu_img("snapshot", "-c", "x", path, status=1)
    reader.close()
    qemu_img("snapshot", "-c", "x", path)


def test_we_refuse_what_qemu_has_open(path: Path) -> None:
    with opened_by_qemu(path), pytest.raises(LockedImageError, match='"write" lock'):
        open_image(path)
    with opened_by_qemu(path), pytest.raises(LockedImageError, match='shared "write" lock'):
        open_image(path, read_only=True)
    with opened_by_qemu(path, "-r"):
        open_image(path, read_only=True).close()
        with pytest.raises(LockedImageError):
            open_image(path)
    open_image(path).close()


def test_a_backing_file_cannot_be_written_meanwhile(path: Path, tmp_path: Path) -> None:
    top = tmp_path / "top.qcow2"
    create_image(top, CreateOptions(1 << 20, backing_file=path.name, backing_format="qcow2"))
    image = open_image(top)
    with pytest.raises(LockedImageError):
        open_image(path)
    qemu_img("snapshot", "-c", "x", path, status=1)
    image.close()
    open_image(path).close()


def test_a_killed_process_leaves_no_lock(path: Path) -> None:
    program = "import sys, time\nfrom timevm.blkreplay.opening import open_image\nimage = open_image(sys.argv[1])\n"
    program += "print('open', flush=True)\ntime.sleep(60)\n"
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(LockedImageError):
            open_image(path)
        process.kill()
        process.wait(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            image = open_image(path)
            break
        except LockedImageError:
            assert time.monotonic() < deadline, "the lock outlived its process"
    assert isinstance(image, Qcow2Image)
    image.close()
