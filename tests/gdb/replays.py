"""Recordings of the bare guests, replayed behind a gdb server, and real gdb to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.gdb.client import Served, served
from tests.guests import ROOT, bare
from tests.linux.harness import SLICE, Outcome, Terminal, build, finish, steps_of
from tests.peers import need
from timevm.engine.control.port import ReplayMode
from timevm.engine.control.vm import Vm, VmDescription, VmPolicy
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.spec import MIB, Drive, MachineSpec
from timevm.guests import DEMO_AARCH64
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.hmp.line import run_hmp_line
from timevm.system.history import history_of

DEMO_SOURCES = ROOT / "examples" / "guests" / "demo"
#: what is typed to the demo guest: the fifth line does the damage, the eighth finds it
DAMAGE = (
    'let name = "Ada Lovelace"',
    "let count = 7",
    'let note = "first program"',
    "push count + 1",
    'let note = "sixteen letters!"',
    "print count * 6",
    "primes 300",
    "time",
)
#: seconds that one gdb may take
PATIENCE = 60.0


def record_demo(
    path: Path, lines: Sequence[str] = DAMAGE, drives: tuple[Drive, ...] = ()
) -> tuple[MachineSpec, Outcome]:
    """The demo guest, which is typed ``lines`` at its prompts and then switches itself off."""
    spec = MachineSpec(kernel=DEMO_AARCH64, ram_bytes=16 * MIB, shift=3, mode="record", rrfile=path, drives=drives)
    terminal = Terminal([(b"> ", line.encode() + b"\r") for line in lines])
    machine = build(spec, terminal)
    try:
        return spec, finish(machine, terminal, steps_of(SLICE), lambda machine: None)
    finally:
        machine.close()


def record_loop(path: Path, instructions: int, name: str = "arm64") -> MachineSpec:
    """The beginning of the loop guest."""
    spec = MachineSpec(kernel=bare(name), ram_bytes=16 * MIB, shift=3, mode="record", rrfile=path, seed=1, rtc_base=0)
    machine = build_machine(spec, lambda port, data: None)
    machine.run(instructions)
    machine.finish("quit")
    machine.close()
    return spec


@dataclass
class Session:
    """A served machine."""

    machine: Machine
    vm: Vm
    server: Served


@contextlib.asynccontextmanager
async def machine_of(spec: MachineSpec) -> AsyncIterator[Session]:
    """``spec`` as it is: live, recording or replaying, with a gdb server and the human monitor in it."""
    mode = ReplayMode(spec.mode)
    machine = build_machine(spec, lambda port, data: None)
    history = history_of(machine, spec, mode, looks_back=True)
    description = VmDescription(spec.architecture, spec.machine, spec.cpu, spec.ram_bytes, mode=mode)
    vm = Vm(
        machine,
        description,
        VmPolicy(no_shutdown=True),
        time_travel=history.time_travel,
        look_back=history.look_back,
        snapshots=history.snapshots,
        run=history.run,
    )
    vm.start()
    context = MonitorContext(vm)
    try:
        async with served(vm, lambda line: run_hmp_line(line, context)) as server:
            yield Session(machine, vm, server)
    finally:
        await vm.leave("quit")
        machine.close()


def replaying(spec: MachineSpec) -> contextlib.AbstractAsyncContextManager[Session]:
    return machine_of(replace(spec, mode="play"))


async def start_gdb(session: Session, commands: Sequence[str], elf: Path = DEMO_AARCH64) -> asyncio.subprocess.Process:
    """Real gdb, attached, with symbols and sources; it carries out ``commands`` and then detaches by itself."""
    setup = ["set width 0", "set pagination off", "set confirm off", f"directory {DEMO_SOURCES}"]
    setup += [f"target remote 127.0.0.1:{session.server.port}"]
    arguments = [need("gdb-multiarch"), "-nx", "-batch", str(elf)]
    for command in [*setup, *commands]:
        arguments += ["-ex", command]
    return await asyncio.create_subprocess_exec(
        *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )


async def output_of(process: asyncio.subprocess.Process) -> str:
    try:
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    except TimeoutError:
        raise AssertionError(f"gdb did not end within {PATIENCE} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output.decode(errors="replace")


async def gdb(session: Session, commands: Sequence[str], elf: Path = DEMO_AARCH64) -> str:
    """What real gdb prints."""
    return await output_of(await start_gdb(session, commands, elf))


def in_order(output: str, *texts: str) -> None:
    """``texts`` are in ``output``, one behind the other."""
    at = 0
    for text in texts:
        found = output.find(text, at)
        assert found >= 0, f"{text!r} is not in:\n{output[at:]}\n--- of:\n{output}"
        at = found + len(text)


async def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"not within {PATIENCE} s: {what}"
        await asyncio.sleep(0.001)
