"""``docs/reverse-debugging.md`` tells the truth: its sessions are carried out again."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.daemon import qmp, running
from tests.gdb.replays import machine_of, record_demo, replaying
from tests.gdb.tutorial import DOCUMENT, Tutorial, carry_out, normalized, sessions
from tests.linux.harness import Terminal, build, linux, record
from timevm.demo import SESSION
from timevm.engine.control.port import RunEnd
from timevm.engine.machine.spec import MIB, MachineSpec
from timevm.engine.replay.gate import NEVER
from timevm.gdb.kernel_symbols import read_kallsyms, symbol_file
from timevm.guests import DEMO_AARCH64
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.hmp.line import run_hmp_line

MONITOR_PROMPT = "(timevm) "
#: typed to the Linux guest's shell; the echo of the line itself does not hold the word
KALLSYMS = b"echo 0 > /proc/sys/kernel/kptr_restrict; grep -i ' t ' /proc/kallsyms; exit\r"


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> MachineSpec:
    return record_demo(tmp_path_factory.mktemp("demo") / "demo.rr", SESSION)[0]


async def check(spec: MachineSpec, tutorial: Tutorial, program: Path) -> None:
    async with replaying(spec) as session:
        output = await carry_out(session, tutorial.commands, program)
    assert normalized(output) == normalized(tutorial.text), output


@pytest.mark.parametrize("name", ["heap", "steps", "helper"])
async def test_sessions_on_bare_metal(spec: MachineSpec, name: str) -> None:
    await check(spec, sessions()[name], DEMO_AARCH64)


async def test_a_session_of_a_recording(tmp_path: Path) -> None:
    spec = MachineSpec(kernel=DEMO_AARCH64, ram_bytes=16 * MIB, shift=3, mode="record", rrfile=tmp_path / "demo.rr")
    tutorial = sessions()["recording"]
    async with machine_of(spec) as session:
        output = await carry_out(session, tutorial.commands, DEMO_AARCH64)
    assert normalized(output) == normalized(tutorial.text), output


async def test_a_core_file_taken_and_read(spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("core-taken", "core-read"):
        await check(spec, sessions()[name], DEMO_AARCH64)


def test_no_session_is_left_out() -> None:
    bare = {"heap", "steps", "helper", "recording", "core-taken", "core-read"}
    assert set(sessions()) == bare | {"linux", "panic"}


def block(kind: str) -> str:
    found = re.search(rf"<!-- {kind} -->\n```\w+\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None, kind
    return found[1]


async def test_the_human_monitor(spec: MachineSpec) -> None:
    text = block("monitor")
    lines = [line.removeprefix(MONITOR_PROMPT) for line in text.splitlines() if line.startswith(MONITOR_PROMPT)]
    output = ""
    async with replaying(spec) as session:
        context = MonitorContext(session.vm)
        for line in lines:
            output += f"{MONITOR_PROMPT}{line}\n{await run_hmp_line(line, context)}"
    assert normalized(output) == normalized(text), output


async def test_the_script(spec: MachineSpec, tmp_path: Path) -> None:
    arguments = ["-M", "virt", "-m", "16", "-kernel", str(DEMO_AARCH64), "-nodefaults", "-display", "none", "-S"]
    arguments += ["-icount", f"shift=3,rr=replay,rrfile={spec.rrfile}", "-qmp", "unix:qmp.sock,server=on,wait=off"]
    folder = tmp_path / "run"
    async with running(arguments, folder) as daemon:
        async with qmp(daemon, folder / "qmp.sock"):
            pass
        script = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", block("script")), cwd=folder, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(script.communicate(), 60)
    assert re.fullmatch(
        r"instruction \d+ at 0x40081534\ninstruction \d+ at 0x[0-9a-f]+\ninstruction \d+ at 0x[0-9a-f]+\n",
        output.decode(),
    )


def record_until_panic(path: Path) -> MachineSpec:
    spec = replace(linux("off", path), append="console=ttyAMA0 quiet nokaslr rdinit=/sbin/int panic=-1")
    terminal = Terminal()
    machine = build(spec, terminal)
    try:
        while (result := machine.run(NEVER)).end is RunEnd.KICKED:
            pass
        machine.finish("reset")
    finally:
        machine.close()
    assert result.end is RunEnd.RESET and b"Kernel panic" in terminal.console, bytes(terminal.console)
    return spec


def kernel(path: Path, folder: Path, script: Sequence[tuple[bytes, bytes]]) -> tuple[MachineSpec, Path]:
    """A boot whose shell printed the kernel's symbols, and a file of them."""
    spec = linux("shell,off", path)
    outcome = record(spec, script)
    symbols = folder / "kernel.elf"
    symbols.write_bytes(symbol_file(read_kallsyms(outcome.console.decode(errors="replace"))))
    return spec, symbols


@pytest.mark.linux
async def test_sessions_on_linux(tmp_path: Path) -> None:
    """Of the first only the beginning: what runs at an instruction count is another kernel's business."""
    script = [(b"TIMEVM-GUEST shell", b""), (b"# ", KALLSYMS)]
    spec, symbols = kernel(tmp_path / "boot.rr", tmp_path, script)
    text = sessions()["linux"].text
    await check(spec, Tutorial(text[: text.index("(gdb) delete")]), symbols)
    await check(record_until_panic(tmp_path / "panic.rr"), sessions()["panic"], symbols)
