"""Machines in this process, recorded and replayed: what every test of this folder does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.guests import bare, linux_arm64
from timevm.blkreplay.iothread import Worker
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import RunEnd
from timevm.engine.machine.spec import MIB, DeviceOption, Drive, MachineSpec
from timevm.engine.replay.events import Digest, SerialInput
from timevm.engine.replay.gate import NEVER

#: instructions between two looks at the clock while recording
SLICE = 50_000_000
#: host seconds that a run may take
PATIENCE = 240.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: all that must be the same in a replay."""

    console: bytes
    icount: int
    virtual_ns: int
    digest: Digest


class Terminal:
    """The other end of the serial line: keeps what comes and, told to, answers.

    ``script`` is pairs of what to wait for and what to type then; each text is waited for behind the one before.
    """

    def __init__(self, script: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.console = bytearray()
        self._script = list(script)
        self._seen = 0
        self.machine: Machine | None = None

    @property
    def left(self) -> list[tuple[bytes, bytes]]:
        """What of the script never came."""
        return self._script

    def transmit(self, port: int, data: bytes) -> None:
        self.console += data
        while self._script:
            text, answer = self._script[0]
            at = self.console.find(text, self._seen)
            if at < 0:
                return
            self._seen = at + len(text)
            self._script.pop(0)
            assert self.machine is not None, "the guest wrote before the machine was there"
            self.machine.inject(SerialInput(port, answer))


def linux(steps: str, recording: Path, *, append: str = "", shift: int | None = 2, sleep: bool = True) -> MachineSpec:
    """Debian's arm64 kernel with our init doing ``steps``; to be recorded."""
    guest = linux_arm64()
    return MachineSpec(
        kernel=guest.kernel,
        initrd=guest.initrd,
        ram_bytes=256 * MIB,
        append=f"console=ttyAMA0 quiet nokaslr tvm={steps} {append}".strip(),
        shift=shift,
        sleep=sleep,
        mode="record",
        rrfile=recording,
    )


def bare_guest(name: str, recording: Path, *, shift: int = 3, sleep: bool = False) -> MachineSpec:
    return MachineSpec(kernel=bare(name), ram_bytes=16 * MIB, shift=shift, sleep=sleep, mode="record", rrfile=recording)


def build(spec: MachineSpec, terminal: Terminal, workers: Callable[[str], Worker] | None = None) -> Machine:
    machine = build_machine(spec, terminal.transmit, workers)
    terminal.machine = machine
    return machine


def finish(machine: Machine, terminal: Terminal, limits: Iterable[int], attend: Callable[[Machine], None]) -> Outcome:
    """Run from limit to limit, ``attend`` in between, until the guest powers off."""
    deadline = time.monotonic() + PATIENCE
    try:
        for limit in limits:
            while (result := machine.run(limit)).end is RunEnd.KICKED:
                pass
            assert time.monotonic() < deadline, f"not done after {PATIENCE} s; console: {bytes(terminal.console)!r}"
            if result.end is not RunEnd.LIMIT:
                break
            attend(machine)
        assert result.end in (RunEnd.POWERED_OFF, RunEnd.RECORDING_ENDED), f"{result}: {bytes(terminal.console)!r}"
        return Outcome(bytes(terminal.console), machine.icount, machine.now_ns(), machine.digest())
    finally:
        machine.finish("shutdown")
        machine.close()


def with_disks(spec: MachineSpec, *images: Path, snapshot: bool = False) -> MachineSpec:
    """A virtio-blk-device behind blkreplay for each image, as QEMU's documentation of record/replay has it."""
    drives: list[Drive] = []
    devices: list[DeviceOption] = []
    for number, image in enumerate(images):
        drives.append(Drive(f"direct{number}", image, snapshot=snapshot))
        drives.append(Drive(f"disk{number}", driver="blkreplay", image=f"direct{number}"))
        devices.append(DeviceOption("virtio-blk-device", None, (("drive", f"disk{number}"),)))
    return replace(spec, drives=tuple(drives), devices=tuple(devices))


def steps_of(step: int) -> Iterator[int]:
    """Limits at every ``step`` instructions."""
    limit = step
    while True:
        yield limit
        limit += step


def record(
    spec: MachineSpec, script: Sequence[tuple[bytes, bytes]] = (), workers: Callable[[str], Worker] | None = None
) -> Outcome:
    terminal = Terminal(script)
    outcome = finish(build(spec, terminal, workers), terminal, steps_of(SLICE), lambda machine: None)
    assert not terminal.left, f"never came: {terminal.left}; console: {outcome.console!r}"
    return outcome


def replay(
    spec: MachineSpec,
    limits: Iterable[int] = (NEVER,),
    attend: Callable[[Machine], None] = lambda machine: None,
    workers: Callable[[str], Worker] | None = None,
) -> Outcome:
    """A replay with stops at ``limits`` (ascending; the last one is followed by the rest)."""
    terminal = Terminal()

    def all_limits() -> Iterator[int]:
        yield from limits
        yield NEVER

    return finish(build(replace(spec, mode="play"), terminal, workers), terminal, all_limits(), attend)


def differences(left: Outcome, right: Outcome) -> str:
    """For people: what differs first."""
    found = []
    if left.icount != right.icount:
        found.append(f"icount {left.icount} and {right.icount}")
    if left.virtual_ns != right.virtual_ns:
        found.append(f"virtual time {left.virtual_ns} and {right.virtual_ns} ns")
    if left.digest != right.digest:
        names = ("cpu", "ram", "devices")
        found.append("digest of " + ", ".join(n for n in names if getattr(left.digest, n) != getattr(right.digest, n)))
    if left.console != right.console:
        pairs = enumerate(zip(left.console, right.console, strict=False))
        at = next((index for index, (one, other) in pairs if one != other), min(len(left.console), len(right.console)))
        found.append(f"console from byte {at}: {left.console[at : at + 80]!r} and {right.console[at : at + 80]!r}")
    return "; ".join(found)


def assert_same(recorded: Outcome, replayed: Outcome) -> None:
    assert recorded == replayed, differences(recorded, replayed)
