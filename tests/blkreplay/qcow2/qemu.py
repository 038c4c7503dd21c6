"""The real qemu-img and qemu-io."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.peers import need


def qemu_img(*arguments: object, status: int | tuple[int, ...] = 0) -> str:
    """Its stdout; its exit status must be as said."""
    done = subprocess.run([need("qemu-img"), *map(str, arguments)], capture_output=True, text=True, timeout=120)
    allowed = (status,) if isinstance(status, int) else status
    assert done.returncode in allowed, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def qemu_io(path: Path, *commands: str) -> str:
    """Runs commands on an image."""
    arguments = [part for command in commands for part in ("-c", command)]
    done = subprocess.run([need("qemu-io"), *arguments, path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def contents(path: Path, snapshot: str | None = None) -> bytes:
    """The disk as qemu-img reads it."""
    target = path.with_suffix(".contents")
    chosen = ("-l", f"snapshot.name={snapshot}") if snapshot is not None else ()
    qemu_img("convert", *chosen, "-O", "raw", path, target)
    data = target.read_bytes()
    target.unlink()
    return data
