"""A published x86 instruction test suite in Linux on the pc board: its results are the host's and real QEMU's.

All programs run in one boot: 64-bit and 32-bit ones under Debian's amd64 kernel, 32-bit ones again under its i386
kernel.  What may differ is listed, with the reason, in ``differences.py``.
"""

from __future__ import annotations

import base64
import gzip
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.guests import LinuxGuest, linux_i386, linux_x86_64
from tests.initramfs import Entry, compressed
from tests.linux.harness import Outcome, assert_same, record, replay
from tests.linux.test_debian import random_limits
from tests.x86_suite.differences import FAILING, Peer, comparable
from tests.x86_suite.programs import programs
from timevm.engine.machine.spec import MIB, MachineSpec

pytestmark = [pytest.mark.linux, pytest.mark.timeout(900)]

INIT = Path(__file__).with_name("init")
#: SMAP off: QEMU 7.2 takes a far return to user code for an access by the kernel (so does Unicorn)
APPEND = "console=ttyS0 quiet nokaslr clearcpuid=smap"
#: more differences than these are not shown
SHOWN = 10
#: how subprocess has a program that SIGILL ended
NO_SUCH_INSTRUCTION = -4


@dataclass(frozen=True, slots=True)
class Result:
    """How a program of the suite ended, as a shell has it, and all that it printed."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Suite:
    """The suite on one machine: what to boot, what came of it, and who else ran the same files."""

    spec: MachineSpec
    outcome: Outcome
    paths: dict[str, Path]
    results: dict[str, Result]


def image(guest: LinuxGuest, paths: dict[str, Path], target: Path) -> Path:
    """The guest's initramfs with the suite and its init behind."""
    entries = [Entry.folder("suite"), *(Entry.folder(f"suite/{bits}") for bits in ("64", "32"))]
    entries += [Entry.file(f"suite/{name}", path.read_bytes(), 0o755) for name, path in paths.items()]
    entries.append(Entry.file("suite/list", "".join(f"{name}\n" for name in paths).encode()))
    entries.append(Entry.file("init", INIT.read_bytes(), 0o755))
    ready = guest.initrd.read_bytes()
    target.write_bytes(ready + bytes(-len(ready) % 4) + compressed(entries))
    return target


def results(console: bytes) -> dict[str, Result]:
    found = re.finditer(rb"SUITE (\S+) (\d+)\r\n(.*?)SUITE end\r\n", console, re.DOTALL)
    return {
        match[1].decode(): Result(int(match[2]), gzip.decompress(base64.b64decode(match[3])).decode("latin-1"))
        for match in found
    }


def machine(architecture: str, folder: Path) -> tuple[MachineSpec, dict[str, Path]]:
    """One that runs the suite and switches itself off, to be recorded; and the programs."""
    guest = linux_x86_64() if architecture == "x86_64" else linux_i386()
    paths = {name: path for name, path in programs().items() if architecture == "x86_64" or name.startswith("32/")}
    spec = MachineSpec(
        architecture=architecture,
        machine="pc",
        cpu="max",
        kernel=guest.kernel,
        initrd=image(guest, paths, folder / "initrd.gz"),
        ram_bytes=512 * MIB,
        append=APPEND,
        shift=2,
        mode="record",
        rrfile=folder / "suite.rr",
    )
    return spec, paths


@pytest.fixture(scope="module", params=["x86_64", "i386"])
def suite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    spec, paths = machine(request.param, tmp_path_factory.mktemp("suite"))
    outcome = record(spec)
    found = results(outcome.console)
    assert list(found) == list(paths), f"not all programs ended: {outcome.console[-2000:]!r}"
    return Suite(spec, outcome, paths, found)


def on_the_host(path: Path) -> Result | None:
    """None where the host has not the program's instructions, or runs no 32-bit programs."""
    try:
        done = subprocess.run([path], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    except OSError:
        return None
    if done.returncode == NO_SUCH_INSTRUCTION:
        return None
    return Result(done.returncode, (done.stdout + done.stderr).decode("latin-1"))


def on_qemu(spec: MachineSpec) -> dict[str, Result]:
    program = shutil.which(f"qemu-system-{spec.architecture}")
    if program is None:
        pytest.skip(f"qemu-system-{spec.architecture} is not installed: apt-get install qemu-system-x86")
    command = [program, "-M", "pc", "-accel", "tcg", "-cpu", "max", "-m", str(spec.ram_bytes // MIB)]
    command += ["-kernel", str(spec.kernel), "-initrd", str(spec.initrd), "-append", spec.append]
    command += ["-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot", "-nodefaults"]
    done = subprocess.run(command, capture_output=True, timeout=400, stdin=subprocess.DEVNULL)
    return results(done.stdout)


def compare(name: str, ours: Result, theirs: Result, peer: Peer) -> list[str]:
    """Sentences about differences that are not in the list."""
    plain = name.split("/")[1]
    if plain in FAILING:
        found = len(ours.text.splitlines())
        most = FAILING[plain].lines
        said = [f"{name} prints {found} failures, {most} are known"] if found > most else []
        return said + ([f"{name} ends with {ours.status}"] if ours.status not in (0, 1) else [])
    said = [f"{name} ends with {ours.status}, on {peer} with {theirs.status}"] if ours.status != theirs.status else []
    left, right = comparable(ours.text, peer), comparable(theirs.text, peer)
    if len(left) != len(right):
        said.append(f"{name} prints {len(left)} lines, on {peer} {len(right)}")
    pairs = zip(left, right, strict=False)
    return said + [f"{name}: {one!r}, on {peer} {other!r}" for one, other in pairs if one != other][:SHOWN]


def test_results_are_the_hosts(suite: Suite) -> None:
    said: list[str] = []
    compared = 0
    for name, ours in suite.results.items():
        theirs = on_the_host(suite.paths[name])
        if theirs is not None:
            compared += 1
            said += compare(name, ours, theirs, "host")
    assert not said, "\n".join(said)
    assert compared, "the host could run none of the programs"


def test_results_are_qemus(suite: Suite) -> None:
    theirs = on_qemu(suite.spec)
    assert list(theirs) == list(suite.results), "not all programs ended in QEMU"
    said = [line for name, ours in suite.results.items() for line in compare(name, ours, theirs[name], "qemu")]
    assert not said, "\n".join(said)


def test_the_replay_is_the_same(suite: Suite) -> None:
    """In pieces of all sizes: single-stepping and code that changes itself are among what is cut."""
    assert_same(suite.outcome, replay(suite.spec, random_limits(7, 500_000, 20_000_000)))
