"""Virtual machine programs as a bench sees them: a command line, the moments of its serial output, its resources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

#: seconds after which a run counts as failed
PATIENCE = 240.0


class BenchFailed(Exception):
    """A run did not do what it is timed for; ``str()`` says what."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the programs compared: ``program`` is what is put in front of QEMU's options."""

    name: str
    program: tuple[str, ...]


def sides() -> list[Side]:
    """timevm of this checkout, and QEMU when it is installed."""
    ours = Path(sys.executable).with_name("timevm-system-aarch64")
    found = [Side("timevm", (str(ours),))]
    qemu = shutil.which("qemu-system-aarch64")
    if qemu:
        found.insert(0, Side("qemu", (qemu,)))
    return found


@dataclass(slots=True)
class Run:
    """One finished run: its serial output with the second (since the start) at which each piece came."""

    output: bytes = b""
    pieces: list[tuple[float, int]] = field(default_factory=list)  # (seconds, length of the output by then)
    wall: float = 0.0
    #: user and system seconds of the process and its children
    cpu: float = 0.0
    #: of the process at its largest, bytes
    peak_memory: int = 0

    def moment(self, text: bytes) -> float:
        """When ``text`` was complete.  Raises BenchFailed if it never came."""
        at = self.output.find(text)
        if at < 0:
            raise BenchFailed(f"{text!r} never came; the end was {self.output[-200:]!r}")
        return next(seconds for seconds, length in self.pieces if length >= at + len(text))


def run(side: Side, options: list[str], patience: float = PATIENCE) -> Run:
    """Run to the end of the process.  Raises BenchFailed if that takes too long or fails."""
    command = [*side.program, *options]
    done = Run()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONASYNCIODEBUG"}
    start = time.monotonic()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None and process.stderr is not None
    late = threading.Timer(patience, process.kill)
    late.start()
    try:
        while data := os.read(process.stdout.fileno(), 65536):
            done.output += data
            done.pieces.append((time.monotonic() - start, len(done.output)))
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    finally:
        late.cancel()
        process.stdout.close()
        process.stderr.close()
    done.wall = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    done.cpu, done.peak_memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    if process.returncode:
        why = f"was killed after {patience:.0f} s" if done.wall >= patience else f"exited with {process.returncode}"
        raise BenchFailed(f"{side.name} {why}: {errors.decode(errors='replace').strip()[-300:] or ' '.join(command)}")
    return done
