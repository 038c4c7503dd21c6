"""Real LLDB on the demo guest's replay: forward it works as with any target, and it stops where the recording ends."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.gdb.client import served
from tests.gdb.replays import PATIENCE, Session, in_order, record_demo, replaying
from tests.gdb.toy_guest import pc_at, toy
from timevm.engine.machine.outcome import MemoryRegion
from timevm.engine.machine.spec import MachineSpec
from timevm.gdb.target_description import memory_region
from timevm.guests import DEMO_AARCH64


def lldb_path() -> str:
    """Not among the programs that ``make check`` installs: with what it needs it is a quarter of a gigabyte."""
    for name in ("lldb", *(f"lldb-{version}" for version in range(25, 12, -1))):
        if found := shutil.which(name):
            return found
    pytest.skip("there is no lldb here: apt-get install lldb-14")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> MachineSpec:
    return record_demo(tmp_path_factory.mktemp("demo") / "demo.rr")[0]


class Lldb:
    """At its prompt, with commands from a pipe."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._output = ""

    async def says(self, command: str, until: str) -> str:
        """What it prints for ``command``, up to ``until`` (a regular expression) and the end of that line."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        self._output = ""
        try:
            async with asyncio.timeout(PATIENCE):
                while not re.search(until, self._output):
                    line = await self._process.stdout.readline()
                    assert line, f"lldb ended after {command!r}: {self._output}"
                    self._output += line.decode(errors="replace")
        except TimeoutError:
            raise AssertionError(f"no {until!r} after {command!r}: {self._output[-2000:]}") from None
        return self._output

    async def moves(self, command: str) -> str:
        return await self.says(command, r"frame #0: .*")

    async def pc(self) -> int:
        shown = await self.says("register read pc", r"pc = 0x\w+")
        return int(shown.rpartition("pc = ")[2].split()[0], 16)


@asynccontextmanager
async def lldb(session: Session) -> AsyncIterator[Lldb]:
    """Attached."""
    process = await asyncio.create_subprocess_exec(
        *(lldb_path(), "--no-lldbinit", "--no-use-colors", str(DEMO_AARCH64)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        made = Lldb(process)
        in_order(await made.moves(f"gdb-remote 127.0.0.1:{session.server.port}"), "_start at start.S:7")
        yield made
    finally:
        process.kill()
        await process.wait()


async def test_forward(spec: MachineSpec) -> None:
    async with replaying(spec) as session, lldb(session) as debugger:
        await debugger.says("breakpoint set -n board_start", "Breakpoint 1")
        in_order(await debugger.moves("continue"), "stop reason = breakpoint 1.1", "board_start")
        in_order(await debugger.says("bt", "frame #2"), "frame #1", "main at main.c:489")
        in_order(await debugger.moves("finish"), "stop reason = step out", "main at main.c:")
        before = await debugger.pc()
        await debugger.moves("stepi")
        assert await debugger.pc() != before
        await debugger.moves("next")
        shown = await debugger.says("expression commands + 1", r"\$0 = \d+")
        assert "error" not in shown and "Assertion" not in shown
        await debugger.says("watchpoint set variable commands", "Watchpoint created")
        in_order(await debugger.moves("continue"), "Watchpoint 1 hit", "stop reason = watchpoint 1")


async def test_at_the_end_of_the_recording_every_motion_ends(spec: MachineSpec) -> None:
    """As the end of a step it would be taken for one that has not arrived, and made again for ever."""
    async with replaying(spec) as session, lldb(session) as debugger:
        in_order(await debugger.moves("continue"), "stop reason = the recording ends here", "power_off")
        end = (await session.vm.replay_info()).icount
        for command in ("stepi", "step", "next", "finish", "continue", "thread step-inst-over"):
            in_order(await debugger.moves(command), f"stop reason = the recording ends at instruction {end}")
        await debugger.says("process interrupt", "error: ")
        await debugger.says("process plugin packet monitor info replay", f"instruction count = {end}")


async def test_back_by_the_monitor(spec: MachineSpec) -> None:
    """LLDB looks again when it has gone a step: one goes back one more, and forward by one."""
    async with replaying(spec) as session, lldb(session) as debugger:
        for _ in range(4):
            await debugger.moves("stepi")
        there = await debugger.pc()
        await debugger.moves("continue")
        shown = await debugger.says("process plugin packet monitor replay_seek 3", "response: ")
        in_order(shown, "LLDB still shows the one before", "response: OK")
        await debugger.moves("stepi")
        assert await debugger.pc() == there
        assert (await session.vm.replay_info()).icount == 4


async def test_killing_it(spec: MachineSpec) -> None:
    async with replaying(spec) as session, lldb(session) as debugger:
        in_order(await debugger.says("process kill", "exited"), "exited with status = 0")
        assert session.vm.over.done()


# -- without it


async def test_what_only_lldb_is_told() -> None:
    async with toy() as machine, served(machine.vm) as server:
        client = await server.connect()
        assert await client.ask(b"QThreadSuffixSupported") == b""
        await client.ask(b"qSupported:multiprocess+")
        await machine.vm.seek(1000)
        told = b"the recording ends here".hex().encode()
        assert await client.ask(b"c") == (b"T05reason:exception;description:%b;replaylog:end;thread:p01.01;" % told)
        assert await client.ask(b"s") == (b"T05reason:exception;description:%b;replaylog:end;thread:p01.01;" % told)
        assert await client.ask(b"bs") == b"T05thread:p01.01;"
        assert await client.register(32) == pc_at(999)
        client.close()


def test_regions_leave_nothing_out_and_one_is_free() -> None:
    ram = MemoryRegion("ram", 0x4000_0000, 1 << 27, "ram")
    at, free = 0, []
    while at < 1 << 64:
        fields = dict(part.split(":") for part in memory_region([ram], at).split(";")[:-1])
        assert int(fields["start"], 16) == at
        size = int(fields["size"], 16)
        assert fields == dict(part.split(":") for part in memory_region([ram], at + size - 1).split(";")[:-1])
        if "permissions" not in fields:
            free.append((at, size))
        at += size
    assert at == 1 << 64 and free == [(1 << 57, (1 << 63) - (1 << 57))]
