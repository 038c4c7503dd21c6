"""The demo guest run to its end: recorded while lines are typed to it, and replayed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from timevm.engine.control.port import RunEnd
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.spec import MIB, MachineSpec
from timevm.engine.replay.events import Digest, SerialInput
from timevm.engine.replay.gate import NEVER
from timevm.errors import GuestError
from timevm.guests import DEMO_AARCH64

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
