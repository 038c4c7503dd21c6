"""Real gdb on a core file of the demo guest: the same backtrace, registers and memory as gdb has there itself."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.engine.vmcore.core_guests import ENOUGH, GUESTS, TEXT, CoreGuest
from tests.gdb.replays import DEMO_SOURCES, gdb, output_of, record_demo, replaying
from tests.gdb.test_reverse_with_gdb import CELL
from tests.peers import need
from timevm.engine.machine.builder import build_machine
from timevm.engine.vmcore.core_dump import CoreDump, DumpRequest
from timevm.guests import DEMO_AARCH64

#: said by gdb of the machine and of the core file
QUESTIONS = (
    "bt",
    "info registers",
    "p/x $v0.q.u",
    "p/x $v31.q.u",
    "p/x (unsigned)$fpsr",
    "info locals",
    "x/16i $pc",
    "x/16gx $sp",
    f"x/32bx {CELL:#x}",
)


async def gdb_of(core: Path, commands: tuple[str, ...], program: Path | None = None) -> str:
    arguments = [need("gdb-multiarch"), "-nx", "-batch", *([str(program)] if program else [])]
    for command in ("set width 0", "set pagination off", f"directory {DEMO_SOURCES}", f"core-file {core}", *commands):
        arguments += ["-ex", command]
    return await output_of(
        await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    )


def answers(output: str) -> str:
    """What is between the marks, but for the registers that a core file has not."""
    [found] = re.findall(r"^<<$(.*?)^>>$", output, re.MULTILINE | re.DOTALL)
    return "\n".join(line for line in found.splitlines() if not re.match(r"[A-Z_\d]+_EL\d|fpsr|fpcr", line))


@pytest.mark.parametrize("option", ["", "-p "], ids=["physical", "mapped"])
async def test_a_core_file_of_the_moment_before_the_damage(option: str, tmp_path: Path) -> None:
    spec, outcome = record_demo(tmp_path / "demo.rr")
    core = tmp_path / "before.core"
    marked = ("echo <<\\n", *QUESTIONS, "echo >>\\n")
    async with replaying(spec) as session:
        live = await gdb(
            session,
            (
                *("break fatal", "continue", "delete", f"watch *(char[4] *) {CELL:#x}", "reverse-continue"),
                f"monitor dump-guest-memory {option}{core}",
                *("monitor info dump", *marked, "delete", "continue"),
            ),
        )
        assert "Status: completed" in live
        assert session.machine.icount == outcome.icount
        assert session.machine.digest() == outcome.digest
    dead = await gdb_of(core, marked, DEMO_AARCH64)
    assert "warning" not in dead.lower(), dead
    assert answers(live) == answers(dead)
    assert len(answers(dead).splitlines()) > 60


@pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.architecture)
async def test_gdb_finds_registers_and_what_is_mapped(guest: CoreGuest, tmp_path: Path) -> None:
    machine = build_machine(guest.spec(tmp_path), lambda port, data: None)
    machine.run(ENOUGH)
    CoreDump(DumpRequest(str(tmp_path / "core"), None, True)).take(machine)
    pc = machine.read_register("pc" if guest.architecture in ("aarch64", "riscv64") else "rip")
    machine.close()
    said = await gdb_of(tmp_path / "core", ("info registers pc", "info registers", f"x/s {guest.high:#x}"))
    assert re.search(rf"^pc\s+{pc:#x}\s", said, re.MULTILINE), said
    assert TEXT[:-1].decode() in said
    for value in guest.general.values():
        assert f"{value:#x}" in said, said
