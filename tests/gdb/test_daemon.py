"""The real program and real gdb: attach, end by either side, an IDE's protocol, recordings made under a debugger."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tests.daemon import Daemon, qmp, running
from tests.gdb.replays import DEMO_SOURCES, gdb, in_order, machine_of, output_of, record_demo, record_loop, replaying
from tests.guests import bare
from tests.peers import need
from timevm.engine.machine.spec import MachineSpec
from timevm.guests import DEMO_AARCH64


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> MachineSpec:
    return record_demo(tmp_path_factory.mktemp("demo") / "demo.rr")[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def replay_of(spec: MachineSpec, port: int) -> list[str]:
    return [
        *("-M", "virt", "-cpu", "cortex-a57", "-m", "16", "-kernel", str(DEMO_AARCH64), "-nodefaults", "-nic", "none"),
        *("-display", "none", "-monitor", "none", "-serial", "stdio", "-S", "-gdb", f"tcp:127.0.0.1:{port}"),
        *("-icount", f"shift=3,rr=replay,rrfile={spec.rrfile}", "-qmp", "unix:qmp,server=on,wait=off"),
    ]


async def start(daemon: Daemon, port: int, *arguments: str) -> asyncio.subprocess.Process:
    """gdb with ``arguments``, when the port is open."""
    await daemon.until(lambda: listens(port), "the gdb server listens")
    return await asyncio.create_subprocess_exec(
        *(need("gdb-multiarch"), "-nx", "-ex", "set width 0", "-ex", f"directory {DEMO_SOURCES}", *arguments),
        str(DEMO_AARCH64),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


def listens(port: int) -> bool:
    """Without connecting: that would be a client."""
    return f"0100007F:{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()


def commands(port: int, *lines: str) -> list[str]:
    arguments = ["-batch", "-ex", f"target remote 127.0.0.1:{port}"]
    for line in lines:
        arguments += ["-ex", line]
    return arguments


async def test_gdb_ends_the_program(spec: MachineSpec, tmp_path: Path) -> None:
    port = free_port()
    async with running(replay_of(spec, port), tmp_path / "run") as daemon:
        process = await start(daemon, port, *commands(port, "continue", "reverse-stepi", "monitor info replay", "kill"))
        in_order(await output_of(process), "No more reverse-execution history", "instruction count = ", "killed]")
        assert await daemon.ends() == 0
        assert b"heap corrupted" in daemon.output


async def test_the_program_ends_under_gdb(spec: MachineSpec, tmp_path: Path) -> None:
    """Its end comes to a gdb that waits, in order."""
    port = free_port()
    arguments = [argument for argument in replay_of(spec, port) if not argument.startswith("shift=3,rr")]
    arguments.remove("-icount")
    async with running(arguments, tmp_path / "run") as daemon:
        process = await start(daemon, port, *commands(port, "continue"))
        await daemon.shows(b"notebook, ready")
        async with qmp(daemon, tmp_path / "run" / "qmp") as client:
            await client.execute("quit")
        in_order(await output_of(process), "[Inferior 1 (process 1) exited normally]")
        assert await daemon.ends() == 0


async def test_detached_it_runs_to_the_end(spec: MachineSpec, tmp_path: Path) -> None:
    port = free_port()
    async with running(replay_of(spec, port), tmp_path / "run") as daemon:
        process = await start(daemon, port, *commands(port, "stepi", "detach"))
        in_order(await output_of(process), "detached")
        await daemon.shows(b"heap corrupted")


async def test_the_protocol_of_ides(spec: MachineSpec, tmp_path: Path) -> None:
    """gdb/MI, which VS Code, Eclipse and Emacs speak to gdb."""
    port = free_port()
    script = [
        f"-target-select remote 127.0.0.1:{port}",
        *("-break-insert text_value", "-exec-continue"),
        *("-exec-next", "-exec-next", "-exec-next --reverse", "-exec-step-instruction --reverse"),
        *("-stack-list-frames", "-exec-continue --reverse", "-data-list-register-values x 32"),
        *("-exec-continue --reverse", "-gdb-exit"),
    ]
    async with running(replay_of(spec, port), tmp_path / "run") as daemon:
        await daemon.until(lambda: listens(port), "the gdb server listens")
        output = await mi(script)
    in_order(
        output,
        *("^connected", "^done,bkpt=", 'reason="breakpoint-hit"', 'func="text_value"'),
        *('reason="end-stepping-range"', 'line="84"', 'line="86"', 'line="84"', "^done,stack="),
        *('reason="breakpoint-hit"', 'value="0x40081504"', "No more reverse-execution history", 'func="_start"'),
    )


async def mi(script: list[str]) -> str:
    """Each line when the one before has been carried out."""
    process = await asyncio.create_subprocess_exec(
        *(need("gdb-multiarch"), "-nx", "-q", "--interpreter=mi2", str(DEMO_AARCH64)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdin is not None and process.stdout is not None
    output = ""
    async with asyncio.timeout(60):
        for line in script:
            process.stdin.write(f"{line}\n".encode())
            ends = "*stopped" if line.startswith("-exec") else "^"
            while text := (await process.stdout.readline()).decode():
                output += text
                if text.startswith((ends, "^error")):
                    break
        await process.wait()
    return output


async def test_a_recording_made_under_gdb_replays(tmp_path: Path) -> None:
    """Stops and steps are no part of what happened."""
    loop = bare("arm64")
    spec = replace(record_loop(tmp_path / "short.rr", 1), rrfile=tmp_path / "debugged.rr")
    async with machine_of(spec) as session:
        output = await gdb(
            session,
            ["break p1", "continue", "stepi 1000", "watch *(long *) &buf", *["continue"] * 20, "delete", "p $x3"],
            loop,
        )
        in_order(output, "Breakpoint 1, p1", "Hardware watchpoint 2", "Old value = ", "New value = ")
        await session.vm.stop()
        await session.vm.step(100_000)
        length = (await session.vm.replay_info()).icount
    plain = record_loop(tmp_path / "plain.rr", length)
    async with replaying(spec) as again, replaying(plain) as other:
        await again.vm.seek(length)
        await other.vm.seek(length)
        digests = [await one.vm.inspect(lambda machine: one.machine.digest()) for one in (again, other)]  # noqa: B023
        assert digests[0] == digests[1]
