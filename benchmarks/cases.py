"""What is measured.  A case runs one program once and gives its figures; nothing here decides whether they are good."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.disks import throughput
from benchmarks.programs import BenchFailed, Side, run
from benchmarks.time_travel import WHAT
from tests.guests import bare, linux_arm64

LOOP_INSTRUCTIONS = 1_001_000_000  # between S and E of the bare guest
LINUX_STEPS = "basic,off"
MACHINE = ["-M", "virt", "-cpu", "cortex-a57", "-nographic", "-nodefaults", "-nic", "none"]
CONSOLE = ["-serial", "stdio", "-monitor", "none"]

#: name of a figure, with its unit -> value
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Case:
    """``measure(side, folder)`` runs once; files that a later case needs stay in ``folder``."""

    name: str
    measure: Callable[[Side, Path], Figures]
    #: which figures are better when larger
    larger_is_better: bool = False


def icount(mode: str | None, shift: str, log: Path) -> list[str]:
    if mode is None:
        return []
    return ["-icount", f"shift={shift}" + ("" if mode == "icount" else f",rr={mode},rrfile={log}")]


def loop(guest: str, mode: str | None) -> Callable[[Side, Path], Figures]:
    def measure(side: Side, folder: Path) -> Figures:
        log = folder / f"{side.name}-{guest}.rr"
        options = [*MACHINE, "-m", "128", *CONSOLE, "-kernel", str(bare(guest)), *icount(mode, "auto", log)]
        done = run(side, options)
        return {"MIPS": LOOP_INSTRUCTIONS / (done.moment(b"SE\n") - done.moment(b"S")) / 1e6}

    return measure


def unicorn_alone(guest: str, *flags: str) -> Callable[[Side, Path], Figures]:
    def measure(side: Side, folder: Path) -> Figures:
        if side.name != "timevm":
            raise BenchFailed("not for this side")
        command = [sys.executable, "-m", "benchmarks.bare_unicorn", str(bare(guest)), *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        if done.returncode:
            raise BenchFailed(done.stderr.strip()[-300:])
        return {"MIPS": float(done.stdout)}

    return measure


def time_travel(what: str) -> Callable[[Side, Path], Figures]:
    """In the engine, without a debugger in front of it: see ``benchmarks.time_travel``."""

    def measure(side: Side, folder: Path) -> Figures:
        if side.name != "timevm":
            raise BenchFailed("not for this side")
        command = [sys.executable, "-m", "benchmarks.time_travel", what, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        if done.returncode:
            raise BenchFailed(done.stderr.strip()[-300:])
        figures: Figures = json.loads(done.stdout)
        return figures

    return measure


def bad_clients(side: Side, folder: Path) -> Figures:
    """See ``benchmarks.clients``."""
    if side.name != "timevm":
        raise BenchFailed("not for this side")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, "-m", "benchmarks.clients", place]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise BenchFailed(done.stderr.strip()[-300:])
    figures: Figures = json.loads(done.stdout)
    return figures


def start_up(side: Side, folder: Path) -> Figures:
    """From the start of the process until the guest's first character: its eighth instruction or so."""
    done = run(side, [*MACHINE, "-m", "128", *CONSOLE, "-kernel", str(bare("arm64"))])
    return {"s": done.moment(b"S")}


def linux(mode: str, shift: str) -> Callable[[Side, Path], Figures]:
    def measure(side: Side, folder: Path) -> Figures:
        guest = linux_arm64()
        log, console = folder / f"{side.name}-linux-{shift}.rr", folder / f"{side.name}-linux-{shift}.console"
        options = [*MACHINE, "-m", "512", *CONSOLE, "-kernel", str(guest.kernel), "-initrd", str(guest.initrd)]
        options += ["-append", f"console=ttyAMA0 quiet nokaslr tvm={LINUX_STEPS}", *icount(mode, shift, log)]
        done = run(side, options)
        done.moment(b"TIMEVM-GUEST off")
        if mode == "record":
            console.write_bytes(done.output)
        elif done.output != console.read_bytes():
            raise BenchFailed("the replay printed something else than the recording")
        figures = {"cpu s": done.cpu, "wall s": done.wall, "peak MiB": done.peak_memory / (1 << 20)}
        return figures | ({"log KB": log.stat().st_size / 1000} if mode == "record" else {})

    return measure


def cases() -> Iterator[Case]:
    yield Case("start-up", start_up)
    yield Case("loop, Unicorn alone", unicorn_alone("arm64"), True)
    yield Case("loop, Unicorn alone, flat TLB", unicorn_alone("arm64", "flat"), True)
    for mode in (None, "icount", "record", "replay"):
        yield Case(f"loop, {mode or 'plain'}", loop("arm64", mode), True)
    yield Case("loop with MMU, Unicorn alone", unicorn_alone("arm64_mmu"), True)
    for mode in ("record", "replay"):
        yield Case(f"loop with MMU, {mode}", loop("arm64_mmu", mode), True)
    for mode in ("record", "replay"):
        yield Case(f"Linux, {mode}", linux(mode, "auto"))
    for mode in ("record", "replay"):
        yield Case(f"Linux, shift=2, {mode}", linux(mode, "2"))
    yield Case("disk behind blkreplay, Linux, record", throughput, True)
    yield Case("200 bad clients, Linux, record", bad_clients)
    for what in WHAT:
        yield Case(f"time travel, {what}", time_travel(what))
