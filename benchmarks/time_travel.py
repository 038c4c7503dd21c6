"""``python -m benchmarks.time_travel WHAT FOLDER``: what going back costs, measured in the engine; JSON on stdout.

WHAT is a name of ``WHAT``; those about Linux have a twin for each other board (``linux-steps-x86_64``).

Times are of the CPU thread's own clock (``time.thread_time``): what the algorithms cost, whatever else the host does.
What a debugger sees besides is a socket and two threads, about a millisecond.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tests.guests import LinuxGuest, bare, linux_arm64, linux_riscv64, linux_x86_64
from timevm.engine.cpu.base import WatchKind, Watchpoint
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import ReplayMode, RunEnd, RunResult, Stops
from timevm.engine.machine.ram import PAGE
from timevm.engine.machine.spec import MIB, Drive, MachineSpec
from timevm.engine.timeline.timeline import FAR, Timeline
from timevm.system.history import history_of

Figures = dict[str, float]
NEVER = (1 << 62) - 1


class Patient:
    """A journey that nobody cancels."""

    def cancelled(self) -> bool:
        return False

    def progress(self, done: int, total: int) -> None:
        pass


PATIENT = Patient()


@dataclass(slots=True)
class Travel:
    machine: Machine
    timeline: Timeline

    def milliseconds(self, action: Callable[[], object]) -> float:
        begin = time.thread_time()
        action()
        return (time.thread_time() - begin) * 1000

    def come_upon(self, icount: int) -> None:
        """Be there as at a breakpoint: the way did not know where it would end."""
        while (rest := icount - self.machine.icount) > 0:
            self.timeline.run(self.machine.icount + min(rest, FAR - 1))

    def step(self) -> float:
        return self.milliseconds(lambda: self.timeline.reverse_step(1, PATIENT))

    def seek(self, icount: int) -> float:
        return self.milliseconds(lambda: self.timeline.seek(icount, PATIENT))

    def back(self, stops: Stops) -> float:
        return self.milliseconds(lambda: self.timeline.reverse_continue(stops, PATIENT))

    @property
    def end(self) -> int:
        end = self.machine.end
        assert end is not None
        return end


def record(spec: MachineSpec) -> None:
    machine = build_machine(spec, lambda port, data: None)
    while (result := machine.run(NEVER)).end is RunEnd.KICKED:
        pass
    assert result.end is RunEnd.POWERED_OFF, result
    machine.finish("shutdown")
    machine.close()


def replay(spec: MachineSpec) -> Machine:
    machine = build_machine(replace(spec, mode="play"), lambda port, data: None)
    gc.freeze()  # as the daemon does, or the collector goes through all that was imported
    return machine


def travel(spec: MachineSpec) -> Travel:
    machine = replay(spec)
    timeline = history_of(machine, replace(spec, mode="play"), ReplayMode.PLAY).time_travel
    assert isinstance(timeline, Timeline)
    return Travel(machine, timeline)


@dataclass(frozen=True, slots=True)
class Linux:
    """A board and its Debian; ``stack`` is the name of the stack pointer."""

    architecture: str
    machine: str
    cpu: str
    guest: Callable[[], LinuxGuest]
    console: str
    stack: str = "sp"

    def recorded(self, folder: Path) -> MachineSpec:
        """A boot to power-off, made when it is not there."""
        guest = self.guest()
        spec = MachineSpec(
            architecture=self.architecture,
            machine=self.machine,
            cpu=self.cpu,
            kernel=guest.kernel,
            initrd=guest.initrd,
            ram_bytes=512 * MIB,
            append=f"console={self.console} quiet nokaslr tvm=basic,off",
            shift=2,
            sleep=False,
            mode="record",
            rrfile=folder / f"travel-linux-{self.architecture}.rr",
        )
        if not (folder / f"travel-linux-{self.architecture}.rr").exists():
            record(spec)
        return spec


ARM64 = Linux("aarch64", "virt", "cortex-a57", linux_arm64, "ttyAMA0")
OTHERS = (
    Linux("x86_64", "pc", "qemu64", linux_x86_64, "ttyS0", "rsp"),
    Linux("riscv64", "virt", "rv64", linux_riscv64, "ttyS0"),
)


def loop(folder: Path) -> MachineSpec:
    spec = MachineSpec(
        kernel=bare("arm64"), ram_bytes=128 * MIB, shift=3, sleep=False, mode="record", rrfile=folder / "travel-loop.rr"
    )
    if not (folder / "travel-loop.rr").exists():
        record(spec)
    return spec


def steps(spec: MachineSpec, places: list[float], count: int = 200) -> Figures:
    there = travel(spec)
    first, foreseen, following = [], [], []
    for place in places:
        there.come_upon(int(there.end * place))
        first.append(there.step())
        following += [there.step() for _ in range(count)]
        there.timeline.run(int(there.end * (place + 0.04)))
        foreseen.append(there.step())
    return {
        "first step ms": statistics.median(first),
        "first step, worst ms": max(first),
        "first step at a replay-break, worst ms": max(foreseen),
        "step ms": statistics.median(following),
        "step, worst ms": max(following),
    }


def linux_steps(folder: Path, linux: Linux) -> Figures:
    return steps(linux.recorded(folder), [0.2, 0.35, 0.5, 0.65, 0.8, 0.95])


def loop_steps(folder: Path) -> Figures:
    """At 10 M, 100 M and 1 G: flat."""
    figures: Figures = {}
    for name, place in (("10M", 0.01), ("100M", 0.1), ("1G", 0.99)):
        found = steps(loop(folder), [place], 50)
        figures |= {f"{name} first ms": found["first step ms"], f"{name} next ms": found["step ms"]}
    return figures


def linux_seeks(folder: Path, linux: Linux) -> Figures:
    there, generator = travel(linux.recorded(folder)), random.Random(1)
    there.timeline.run(NEVER)
    seeks = [there.seek(generator.randrange(there.end)) for _ in range(20)]
    return {"seek ms": statistics.median(seeks), "seek, worst ms": max(seeks)}


def linux_reverse_continue(folder: Path, linux: Linux) -> Figures:
    """From half-way: in a hot kernel page, the last hit a few instructions back; a hot variable; far back."""
    there = travel(linux.recorded(folder))
    machine, timeline = there.machine, there.timeline
    half = there.end // 2
    timeline.run(half)
    seen: dict[int, int] = {}
    for _ in range(200):
        timeline.run(machine.icount + 997)
        pc = machine.cpu.pc
        seen[pc] = seen.get(pc, 0) + 1
    hot = Stops(frozenset(sorted(seen, key=lambda pc: -seen[pc])[:1]))
    machine.set_stops(hot)
    timeline.run(NEVER)
    timeline.run(machine.icount + 15)
    figures = {"hot page ms": there.back(hot), "hot page, next ms": there.back(hot)}
    stack = Stops(watchpoints=frozenset({Watchpoint(machine.read_register(linux.stack) - 64, 128, WatchKind.WRITE)}))
    machine.set_stops(stack)
    figures["hot variable ms"] = there.back(stack)
    figures["hot variable, next ms"] = there.back(stack)
    nowhere = Stops(frozenset({4}))
    machine.set_stops(nowhere)
    there.seek(half)
    figures["all the way back ms"] = there.back(nowhere)
    return figures


def in_turns(machines: Sequence[Machine], runs: Sequence[Callable[[int], RunResult]], end: int) -> list[float]:
    """Seconds of each to ``end``, in turns of a short way: what the host does to one it does to the other, too."""
    seconds = [0.0 for _ in runs]
    sides = list(range(len(runs)))
    for turn, limit in enumerate((*range(FAR - 1, end, FAR - 1), end)):
        for side in sides if turn % 2 else reversed(sides):
            begin = time.thread_time()
            while machines[side].icount < limit and runs[side](limit).end is RunEnd.KICKED:
                pass
            seconds[side] += time.thread_time() - begin
    for machine in machines:
        machine.close()
    return seconds


def checkpoints(folder: Path, linux: Linux) -> Figures:
    """Two replays of a boot, one with and one without."""
    spec = replace(linux.recorded(folder), mode="play")
    machines = [replay(spec), replay(spec)]
    end = machines[0].end
    assert end is not None
    without, with_them = in_turns(
        machines,
        [
            history_of(machine, spec, ReplayMode.PLAY, looks_back=goes_back).run
            for machine, goes_back in zip(machines, (False, True), strict=True)
        ],
        end,
    )
    return {"replay s": without, "with checkpoints s": with_them, "cost %": (with_them / without - 1) * 100}


def recording(folder: Path, linux: Linux) -> Figures:
    """A boot recorded with and without checkpoints, and looked back at from two thirds of it."""
    recorded = linux.recorded(folder)
    end = travel(recorded).end
    specs = [replace(recorded, rrfile=folder / f"travel-again-{name}.rr") for name in ("without", "with")]
    machines = [build_machine(spec, lambda port, data: None) for spec in specs]
    without, with_them = in_turns(
        machines,
        [
            history_of(machine, spec, ReplayMode.RECORD, looks_back=looks_back).run
            for machine, spec, looks_back in zip(machines, specs, (False, True), strict=True)
        ],
        end,
    )
    machine = build_machine(specs[1], lambda port, data: None)
    history = history_of(machine, specs[1], ReplayMode.RECORD, looks_back=True)
    while history.run(end * 2 // 3).end is RunEnd.KICKED:
        pass
    timeline = history.time_travel
    assert isinstance(timeline, Timeline) and history.look_back is not None
    there = Travel(machine, timeline)
    figures = {"record s": without, "cost %": (with_them / without - 1) * 100}
    figures["look back ms"] = there.milliseconds(history.look_back.look_back)
    figures["first step ms"] = there.step()
    figures["next step ms"] = there.step()
    machine.close()
    return figures


def last_write(folder: Path, linux: Linux) -> Figures:
    """From the end of a boot, of words that were written in its first twentieth only."""
    there, generator = travel(linux.recorded(folder)), random.Random(1)
    machine, timeline = there.machine, there.timeline
    ram = machine.ram
    before = ram.read(ram.base, ram.size)
    timeline.run(there.end // 20)
    early = ram.read(ram.base, ram.size)
    timeline.run(NEVER)
    after = ram.read(ram.base, ram.size)
    pages = range(0, ram.size, PAGE)
    changed = [at for at in pages if before[at : at + PAGE] != early[at : at + PAGE] == after[at : at + PAGE]]
    first, again = [], []
    for page in generator.sample(changed, 10):
        at = next(at for at in range(page, page + PAGE, 8) if before[at : at + 8] != after[at : at + 8])
        stops = Stops(watchpoints=frozenset({Watchpoint(ram.base + at, 8, WatchKind.WRITE, physical=True)}))
        find = partial(timeline.find_last, stops, PATIENT)
        first.append(there.milliseconds(find))
        again.append(there.milliseconds(find))
    return {"last write ms": statistics.median(first), "worst ms": max(first), "again ms": statistics.median(again)}


def snapshots(folder: Path) -> Figures:
    """128 MiB, 112 of them filled; then 200 000 instructions between two."""
    image = folder / "travel-vm.qcow2"
    image.unlink(missing_ok=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1M"], check=True)
    spec = replace(loop(folder), mode="none", rrfile=None, drives=(Drive("vm", image, "qcow2"),))
    machine = build_machine(spec, lambda port, data: None)
    store = history_of(machine, spec, ReplayMode.NONE).snapshots
    assert store is not None
    numbers = random.Random(1)
    machine.ram.view[16 * MIB :] = numbers.randbytes(112 * MIB)

    def milliseconds(action: Callable[[], object]) -> float:
        begin = time.perf_counter()
        action()
        return (time.perf_counter() - begin) * 1000

    figures = {"first save ms": milliseconds(lambda: store.save("a")), "MiB": image.stat().st_size / MIB}
    machine.run(machine.icount + 200_000)
    figures["next save ms"] = milliseconds(lambda: store.save("b"))
    machine.run(machine.icount + 200_000)
    figures["load ms"] = milliseconds(lambda: store.load("a"))
    machine.close()
    machine = build_machine(spec, lambda port, data: None)
    fresh = history_of(machine, spec, ReplayMode.NONE).snapshots
    assert fresh is not None
    figures["load in a fresh process ms"] = milliseconds(lambda: fresh.load("b"))
    machine.close()
    return figures


LINUX: dict[str, Callable[[Path, Linux], Figures]] = {
    "linux-steps": linux_steps,
    "linux-seeks": linux_seeks,
    "linux-reverse-continue": linux_reverse_continue,
    "checkpoints": checkpoints,
    "recording": recording,
    "last-write": last_write,
}


def _of(work: Callable[[Path, Linux], Figures], linux: Linux, folder: Path) -> Figures:
    return work(folder, linux)


WHAT: dict[str, Callable[[Path], Figures]] = {
    **{name: partial(_of, work, ARM64) for name, work in LINUX.items()},
    **{f"{name}-{linux.architecture}": partial(_of, work, linux) for linux in OTHERS for name, work in LINUX.items()},
    "loop-steps": loop_steps,
    "snapshots": snapshots,
}

if __name__ == "__main__":
    print(json.dumps(WHAT[sys.argv[1]](Path(sys.argv[2]))))
