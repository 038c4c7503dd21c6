"""Linux on the PC and the riscv board, fast against single steps: from moment to moment, in blocks and by instruction.

Blocks are what runs always; the reference lets no block be longer than one instruction (the CPU's ``limit_blocks``), so
that Unicorn translates each for itself, knowing nothing of the ones before, and the hooks look before each.  A boot is
recorded; its replay goes a window ahead in the one way, back to the window's beginning, ahead in the other, and must
look the same at its end: CPU, RAM, devices, virtual time, console.

``python -m tests.linux.stepped GUEST FIRST COUNT [EVERY]`` compares windows of a million instructions, COUNT of them
from the one numbered FIRST on, one of EVERY (1); GUEST is one of ``GUESTS``.  At 4 to 6 million instructions a second.
Exit code 1 if there was a difference, after its place was narrowed down to an instruction.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.linux.harness import Terminal, build, record
from tests.linux.test_debian_disk import ext4
from tests.linux.test_pc_debian import linux_pc, with_disk
from tests.linux.test_pc_i386 import linux_pc_32
from tests.linux.test_riscv_debian import linux_riscv
from tests.x86_suite.test_x86_suite import machine as suite_machine
from timevm.engine.cpu.riscv64 import Riscv64Cpu
from timevm.engine.cpu.x86_64 import X86Cpu
from timevm.engine.machine.outcome import RunEnd
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.machine.x86_unpack import EXTRA_LOAD_FLAGS, KERNEL_64
from timevm.engine.replay.events import Digest
from timevm.engine.snapshot.checkpoints import Checkpoint, Checkpoints
from timevm.engine.snapshot.position import Position
from timevm.errors import ReplayDivergence

WINDOW = 1_000_000
#: windows between two lines of progress
REPORT = 50


def with_work_on_a_disk(folder: Path) -> MachineSpec:
    spec = linux_pc("basic,disk,syms,rand,spin=20,off", folder / "boot.rr")
    return with_disk(spec, ext4(folder / "disk.qcow2"), "ide-hd")


def unpacking_itself(folder: Path) -> MachineSpec:
    """A kernel that denies its 64-bit entry is started at the 32-bit one: the guest unpacks it."""
    spec = linux_pc("off", folder / "boot.rr")
    assert spec.kernel is not None
    image = bytearray(spec.kernel.read_bytes())
    image[EXTRA_LOAD_FLAGS] &= ~KERNEL_64
    kernel = folder / "kernel"
    kernel.write_bytes(image)
    return replace(spec, kernel=kernel)


#: what they are good for: how a machine for them is made, whose files go into a folder
GUESTS: dict[str, Callable[[Path], MachineSpec]] = {
    "basic": lambda folder: linux_pc("basic,off", folder / "boot.rr"),
    "disk": with_work_on_a_disk,
    "unpack": unpacking_itself,
    "i386": lambda folder: linux_pc_32("basic,off", folder / "boot.rr"),
    "riscv": lambda folder: linux_riscv("basic,off", folder / "boot.rr", sleep=False),
    "suite": lambda folder: suite_machine("x86_64", folder)[0],
    "suite32": lambda folder: suite_machine("i386", folder)[0],
}


@dataclass(frozen=True, slots=True)
class Look:
    """All that must be the same at the end of a window.  ``end``: why the run stopped, or what is wrong with it."""

    end: RunEnd | str
    icount: int
    virtual_ns: int
    digest: Digest
    console: bytes


class Comparison:
    """A replay that goes each way twice.  ``spec`` is of a recording that is whole."""

    def __init__(self, spec: MachineSpec) -> None:
        self._terminal = Terminal()
        self.machine = build(replace(spec, mode="play"), self._terminal)
        assert isinstance(self.machine.cpu, X86Cpu | Riscv64Cpu)
        self._cpu = self.machine.cpu
        self._checkpoints = Checkpoints(self.machine, budget=64 << 20)
        #: host seconds in single steps, and instructions that were compared
        self.seconds = 0.0
        self.compared = 0

    @property
    def looks(self) -> int:
        """How often the native hooks took their slow path: once an instruction in single steps."""
        return int(self._cpu.native.engine.slow_blocks)

    def go_to(self, icount: int) -> Checkpoint:
        """Fast.  The machine stands there, and can go back there."""
        self._run(icount)
        self._checkpoints.forget_all_but_start()
        return self._checkpoints.take(Position(self.machine.icount, self.machine.settled))

    def _run(self, limit: int) -> RunEnd | str:
        try:
            while (result := self.machine.run(limit)).end is RunEnd.KICKED:
                pass
        except ReplayDivergence as error:  # the recording's own digests come every 100 million instructions
            return str(error)
        return result.end

    def _look(self, limit: int) -> Look:
        self._terminal.console.clear()
        end = self._run(limit)
        machine = self.machine
        return Look(end, machine.icount, machine.now_ns(), machine.digest(), bytes(self._terminal.console))

    def fast(self, origin: Checkpoint, limit: int) -> Look:
        self._checkpoints.restore(origin)
        return self._look(limit)

    def stepped(self, origin: Checkpoint, limit: int) -> Look:
        self._checkpoints.restore(origin)
        begin = time.process_time()
        self._cpu.limit_blocks(1)
        try:
            return self._look(limit)
        finally:
            self._cpu.limit_blocks(0)
            self.seconds += time.process_time() - begin

    def window(self, begin: int, end: int) -> str:
        """What differs, in a line; empty if nothing does.  The machine stands at ``end``."""
        origin = self.go_to(begin)
        fast = self._look(end)
        stepped = self.stepped(origin, end)
        self.compared += stepped.icount - begin
        return "" if fast == stepped else self._narrow(origin, begin, end)

    def _narrow(self, origin: Checkpoint, same: int, different: int) -> str:
        """The instruction after which they differ first, as far as stops there show it."""
        while different - same > 1:
            middle = (same + different) // 2
            if self.fast(origin, middle) == self.stepped(origin, middle):
                same = middle
            else:
                different = middle
        self.fast(origin, same)
        place = self.machine.cpu.pc
        names = [register.name for register in self._cpu.registers]
        fast = (self.fast(origin, different), {name: self._cpu.read_register(name) for name in names})
        stepped = (self.stepped(origin, different), {name: self._cpu.read_register(name) for name in names})
        registers = [f"{n} {fast[1][n]:#x} {stepped[1][n]:#x}" for n in names if fast[1][n] != stepped[1][n]]
        return f"at {same} (pc {place:#x}): {fast[0]} {stepped[0]} {', '.join(registers)}"


def main() -> int:
    guest, first, count, every = [*sys.argv[1:4], *(sys.argv[4:5] or ["1"])]
    differ = 0
    with TemporaryDirectory() as folder:
        spec = GUESTS[guest](Path(folder))
        length = record(spec).icount
        print(f"{guest}: a boot of {length} instructions", flush=True)
        comparison = Comparison(spec)
        begins = range(int(first) * WINDOW, length, int(every) * WINDOW)[: int(count)]
        for done, begin in enumerate(begins, 1):
            found = comparison.window(begin, min(begin + WINDOW, length))
            if found:
                differ += 1
                print(f"{guest} window {begin // WINDOW}: {found}", flush=True)
            if done % REPORT == 0 or done == len(begins):
                rate = comparison.compared / comparison.seconds / 1e6
                print(
                    f"{guest}: {done} windows up to {begin}, {comparison.compared} instructions compared "
                    f"({rate:.1f} million a second in single steps), {differ} windows differ",
                    flush=True,
                )
        comparison.machine.close()
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
