"""``timevm demo``: the shipped guest is recorded, replayed twice and compared; then who damaged its heap is found.

The guest is a notebook with a bug (``examples/guests/demo``).  The session below makes it damage its heap early and
notice late.  Nothing outside the package is needed.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from capstone import CS_ARCH_ARM64, CS_MODE_ARM, Cs
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from timevm.engine.control.port import RunEnd
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.spec import MIB, MachineSpec
from timevm.engine.replay.events import Digest, SerialInput
from timevm.engine.replay.gate import NEVER
from timevm.errors import GuestError, RecordingError
from timevm.guests import DEMO_AARCH64
from timevm.guests.source_places import place_of

#: what is typed, a line at each prompt; the eleventh does the damage, after the sixteenth the guest looks at its heap
SESSION = (
    'let name = "Ada Lovelace"',
    "let year = 1843",
    'let note = "first program"',
    "let count = 7",
    "push year + 1",
    'print name + ", " + note',
    "time",
    "list",
    'let note = "Analytical Engine"',
    "primes 30000",
    'let note = "sixteen letters!"',
    "print count * 6",
    "pop next",
    "print next",
    "primes 40000",
    "time",
)
PROMPT = b"> "
LAST_LINE = "bye"
CORRUPTED = re.compile(rb"heap corrupted: cell (\d+) at 0x([0-9a-f]+)")
#: bytes of a cell's header that must not change by themselves: size and guard (examples/guests/demo/heap.h)
HEADER = 8
#: looks at the guest's memory in each pass over the recording
LOOKS = 64


class Typist:
    """Types the next line whenever the guest shows its prompt, and keeps what the guest prints.

    Called on the CPU thread by the serial port; what it types goes through the machine's one door like anything typed.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self.console = bytearray()
        self._waiting = [*lines, LAST_LINE]
        self._machine: Machine | None = None

    def attend(self, machine: Machine) -> None:
        self._machine = machine

    def transmit(self, port: int, data: bytes) -> None:
        for byte in data:
            self.console.append(byte)
            if self._machine is not None and self._waiting and self.console.endswith(b"\n" + PROMPT):
                line = self._waiting.pop(0)
                self._machine.inject(SerialInput(port, line.encode("utf-8", "surrogateescape") + b"\r"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run ended: its console, its length in instructions, and what the machine looked like."""

    console: bytes
    icount: int
    virtual_ns: int
    digest: Digest
    seconds: float

    def same_as(self, other: Outcome) -> bool:
        """Everything but the time that it took on the host."""
        return replace(self, seconds=other.seconds) == other


@dataclass(frozen=True, slots=True)
class GuiltyWrite:
    """The instruction at ``pc`` that, being number ``icount`` (from 0), changed ``before`` into ``after``."""

    icount: int
    pc: int
    instruction: str
    before: bytes
    after: bytes
    #: the last line on the console then
    line: str


def specification(recording: Path) -> MachineSpec:
    return MachineSpec(kernel=DEMO_AARCH64, ram_bytes=16 * MIB, shift=3, mode="record", rrfile=recording)


def run_to_end(machine: Machine, console: bytearray) -> Outcome:
    """Until the guest switches itself off.  Raises GuestError if it ends in another way."""
    start = time.monotonic()
    while True:
        result = machine.run(NEVER)
        if result.end is not RunEnd.KICKED:
            break
    seconds = time.monotonic() - start
    if result.end not in (RunEnd.POWERED_OFF, RunEnd.RECORDING_ENDED):
        raise GuestError(f"the demo guest ended in an unexpected way: {result.end.name} {result.detail}".rstrip())
    outcome = Outcome(bytes(console), machine.icount, machine.now_ns(), machine.digest(), seconds)
    machine.finish("shutdown")
    return outcome


def record(spec: MachineSpec, lines: Sequence[str]) -> Outcome:
    typist = Typist(lines)
    machine = build_machine(spec, typist.transmit)
    typist.attend(machine)
    return run_to_end(machine, typist.console)


def open_replay(spec: MachineSpec) -> tuple[Machine, bytearray]:
    """A replay before its first instruction, and where its console will be."""
    listener = Typist(())
    return build_machine(replace(spec, mode="play"), listener.transmit), listener.console


def find_guilty_write(spec: MachineSpec, address: int, size: int, end: int) -> GuiltyWrite:
    """Who gave the ``size`` bytes at ``address`` the value that they have at icount ``end``?

    Only replays forward: each pass looks at LOOKS moments of what is left of the recording, and keeps the last piece
    in which the bytes become what they are at the end.  Raises RecordingError if they have been so from the start.
    """
    machine, _ = open_replay(spec)
    machine.run(end)
    final = machine.read_memory(address, size, physical=True)
    machine.close()
    first, last = 0, end
    while last - first > 1:
        first, last = narrow(spec, address, final, first, last)
    machine, console = open_replay(spec)
    machine.run(first)
    pc, before = machine.read_register("pc"), machine.read_memory(address, size, physical=True)
    code = machine.read_memory(pc, 4)
    machine.close()
    if before == final:
        raise RecordingError(f"the bytes at {address:#x} did not change in this recording")
    disassembled = next(Cs(CS_ARCH_ARM64, CS_MODE_ARM).disasm(code, pc))
    lines = console.decode(errors="replace").replace("\r", "").rstrip("\n").split("\n")
    instruction = f"{disassembled.mnemonic} {disassembled.op_str}"
    return GuiltyWrite(first, pc, instruction, before, final, lines[-1])


def narrow(spec: MachineSpec, address: int, final: bytes, first: int, last: int) -> tuple[int, int]:
    """The last piece of ``first``…``last`` (icounts) at whose end the bytes are ``final`` and were not before."""
    machine, _ = open_replay(spec)
    step = max(1, (last - first) // LOOKS)
    before, found = first, (first, last)
    was_final = True
    for moment in [*range(first, last, step), last]:
        machine.run(moment)
        is_final = machine.read_memory(address, len(final), physical=True) == final
        if is_final and not was_final:
            found = (before, moment)
        before, was_final = moment, is_final
    machine.close()
    return found if found != (first, last) else (last - 1, last)


def show_runs(screen: Console, runs: dict[str, Outcome]) -> None:
    """A table of at most 80 columns."""
    recorded = next(iter(runs.values()))
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("run", no_wrap=True)
    for heading in ("instructions", "virtual", "console", "state digest", "host"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("same", no_wrap=True)
    for name, run in runs.items():
        table.add_row(
            name,
            f"{run.icount:,}",
            f"{run.virtual_ns / 1e6:.3f} ms",
            f"{len(run.console)} bytes",
            f"{run.digest.cpu ^ run.digest.ram ^ run.digest.devices:016x}",
            f"{run.seconds * 1e3:.0f} ms",
            "" if run is recorded else "yes" if run.same_as(recorded) else "NO",
        )
    screen.print("One guest, three times:\n")
    screen.print(table)


def show_guilty(screen: Console, spec: MachineSpec, outcome: Outcome, corrupted: re.Match[bytes]) -> None:
    cell, address = int(corrupted[1]), int(corrupted[2], 16)
    guilty = find_guilty_write(spec, address, HEADER, outcome.icount)
    place = place_of(DEMO_AARCH64, guilty.pc)
    distance = outcome.icount - guilty.icount
    screen.print(f"\nThe guest found cell {cell} damaged and gave up.  Going back, the guilty write was")
    screen.print(f"  {distance:,} instructions earlier, instruction {guilty.icount:,}")
    screen.print(f"  in {escape(str(place or hex(guilty.pc)))}:  {escape(guilty.instruction)}")
    screen.print(f"  header {guilty.before.hex(' ', 4)} became {guilty.after.hex(' ', 4)}")
    screen.print(f"  while it worked on:  {escape(guilty.line.removeprefix('> '))}")


def run_demo(argv: Sequence[str]) -> int:
    """The demo with ``argv`` behind ``timevm demo``.  0 if both replays were the same as the recording."""
    parser = argparse.ArgumentParser(prog="timevm demo", description="record and replay the shipped guest")
    parser.add_argument("--input", type=Path, metavar="FILE", help="lines to type instead of the built-in session")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="where the recording goes (default: removed)")
    parser.add_argument("--show-console", action="store_true", help="print what the guest printed")
    options = parser.parse_args(argv)
    lines = options.input.read_text("utf-8", "surrogateescape").splitlines() if options.input else SESSION
    screen = Console(highlight=False, soft_wrap=True)
    screen.width = max(screen.width, 80)
    with tempfile.TemporaryDirectory(prefix="timevm-demo-") as folder:
        spec = specification(options.keep or Path(folder) / "demo.rr")
        runs = {"record": record(spec, lines)}
        for name in ("replay", "again"):
            runs[name] = run_to_end(*open_replay(spec))
        recorded = runs["record"]
        if options.show_console:
            screen.print(escape(recorded.console.decode(errors="replace").replace("\r", "")))
        show_runs(screen, runs)
        corrupted = CORRUPTED.search(recorded.console)
        if corrupted:
            show_guilty(screen, spec, recorded, corrupted)
        else:
            screen.print("\nThe guest's heap stayed sound with this input.")
    return 0 if all(run.same_as(recorded) for run in runs.values()) else 1
