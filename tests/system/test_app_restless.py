"""stop, cont, step, quit and signals at random moments of recordings: nothing hangs, nothing is lost, replays agree."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from pathlib import Path

import pytest

from tests.daemon import DEADLINE, irq_guest, run, running
from tests.guests import bare
from timevm.engine.control.port import ReplayMode, RunEnd, VmEvent
from timevm.engine.control.vm import Vm, VmDescription, VmPolicy
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.spec import MIB, MachineSpec
from timevm.engine.replay.events import SerialInput
from timevm.engine.replay.gate import NEVER

#: recordings in this process, and of the real program (TIMEVM_RESTLESS: how many)
IN_PROCESS, OF_THE_PROGRAM = 100, int(os.environ.get("TIMEVM_RESTLESS", "8"))


def specification(path: Path, *, sleep: bool) -> MachineSpec:
    return MachineSpec(kernel=bare("irq"), ram_bytes=16 * MIB, shift=3, sleep=sleep, mode="record", rrfile=path)


async def record_restlessly(spec: MachineSpec, chance: random.Random) -> tuple[bytes, int]:
    """Console and icount at the end."""
    console = bytearray()
    ticked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def transmit(port: int, data: bytes) -> None:
        console.extend(data)
        if data == b"t":
            loop.call_soon_threadsafe(ticked.set)

    machine = build_machine(spec, transmit)
    vm = Vm(machine, VmDescription(mode=ReplayMode.RECORD), VmPolicy())
    events: list[VmEvent] = []

    async def listen() -> None:
        with vm.subscribe() as stream:
            async for event in stream:
                events.append(event)

    listener = asyncio.create_task(listen())
    await asyncio.sleep(0)
    vm.start()
    async with asyncio.timeout(DEADLINE):
        for _ in range(chance.randint(1, 12)):
            await vm.cont()
            await asyncio.sleep(chance.random() * 0.004)
            match chance.randrange(4):
                case 0:
                    vm.inject(SerialInput(0, bytes(chance.choices(b"abcdef", k=chance.randint(1, 9)))))
                case 1:
                    await vm.stop()
                    here = (await vm.replay_info()).icount
                    result = await vm.step(chance.randint(1, 50))
                    assert result.icount >= here and (result.end is not RunEnd.LIMIT or result.icount > here)
                case 2:
                    await asyncio.gather(vm.stop(), vm.cont(), vm.stop(), vm.replay_info())
                case _:
                    await vm.stop()
        if chance.random() < 0.5:
            await vm.cont()
            await ticked.wait()  # the guest takes no end before its first one, in QEMU neither
            vm.inject(SerialInput(0, b"q"))
            assert (await vm.over).reason.value == "guest"
        await vm.leave("quit")
    await asyncio.sleep(0)
    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)
    motions = [event.name for event in events if event.name in ("STOP", "RESUME")]
    assert motions == [("RESUME", "STOP")[index % 2] for index in range(len(motions))], "an event was lost"
    return bytes(console), machine.icount


def replayed(spec: MachineSpec) -> tuple[bytes, int]:
    console = bytearray()
    machine: Machine = build_machine(
        MachineSpec(kernel=spec.kernel, ram_bytes=spec.ram_bytes, shift=3, mode="play", rrfile=spec.rrfile),
        lambda port, data: console.extend(data),
    )
    with contextlib.closing(machine.gate):
        while (result := machine.run(NEVER)).end is RunEnd.KICKED:
            pass
        assert result.end in (RunEnd.RECORDING_ENDED, RunEnd.POWERED_OFF), result
        return bytes(console), machine.icount


async def test_a_hundred_restless_recordings(tmp_path: Path) -> None:
    for seed in range(IN_PROCESS):
        spec = specification(tmp_path / f"{seed}.rr", sleep=seed % 2 == 0)
        recorded = await record_restlessly(spec, random.Random(seed))
        assert replayed(spec) == recorded, f"seed {seed}"


@pytest.mark.parametrize("seed", range(OF_THE_PROGRAM))
async def test_the_program_ended_at_a_random_moment(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    rr = "shift=3,rr={},rrfile=run.rr"
    record = [*irq_guest(), "-icount", rr.format("record"), "-serial", "mon:stdio"]
    async with running(record, tmp_path) as daemon:
        await asyncio.sleep(chance.random() * 1.2)
        with contextlib.suppress(BrokenPipeError):
            for _ in range(chance.randrange(4)):
                daemon.type(chance.choice([b"a", b"bcd", b"\x01cstop\n\x01c", b"\x01cinfo replay\ncont\n\x01c"]))
                await asyncio.sleep(chance.random() * 0.2)
            match chance.randrange(4):
                case 0:
                    daemon.type(b"\x01x")
                case 1:
                    daemon.type(b"\x01cstop\nquit\n")
                case _:
                    daemon.signal(chance.choice([signal.SIGTERM, signal.SIGHUP, signal.SIGINT]))
        code = await daemon.ends()
        if not (tmp_path / "run.rr").exists():
            return  # the signal came before there was a program to take it
        assert code == 0, daemon.errors
        console = daemon.output
    checked = run(["log", "verify", str(tmp_path / "run.rr")], "main")
    assert checked.returncode == 0, checked
    again = run([*irq_guest(), "-icount", rr.format("replay"), "-serial", "stdio"], cwd=tmp_path)
    assert again.returncode == 0, again
    # the monitor spoke on the same terminal, maybe in mid-line: what the guest printed is in there, in order
    heard = iter(console)
    missing = next((at for at, byte in enumerate(again.stdout) if byte not in heard), None)
    assert missing is None, (again.stdout[missing:], console)
