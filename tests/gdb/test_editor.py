"""What editors say to gdb over MI, said to real gdb: how they attach, go on, go back, pause and leave.

The commands and their order are those of the public sources of VS Code's C/C++ extension (MIEngine: launch with
``miDebuggerServerAddress``, break mode) and of the extensions that have buttons for going back (``--reverse``).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.gdb.replays import DEMO_SOURCES, PATIENCE, Session, record_demo, record_loop, replaying, until
from tests.guests import bare
from tests.peers import need
from timevm.engine.control.run_state import RunState
from timevm.engine.machine.spec import MachineSpec
from timevm.guests import DEMO_AARCH64


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> MachineSpec:
    return record_demo(tmp_path_factory.mktemp("demo") / "demo.rr")[0]


class Mi:
    """``gdb --interpreter=mi2``, as an editor has it.  Every wait has a deadline."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._token = 1000
        #: records that nobody has taken
        self._records: list[str] = []

    async def _record(self, pattern: str) -> str:
        """The next one that begins so."""
        assert self._process.stdout is not None
        seen: list[str] = []
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    if not self._records:
                        line = (await self._process.stdout.readline()).decode(errors="replace")
                        assert line, f"gdb ended before {pattern!r}: {seen}"
                        self._records.append(line.rstrip())
                    seen.append(self._records.pop(0))
                    if re.match(pattern, seen[-1]):
                        return seen[-1]
        except TimeoutError:
            raise AssertionError(f"no {pattern!r} in {seen[-20:]}") from None

    async def says(self, command: str, answer: str = "done") -> str:
        """What is answered to ``command``."""
        assert self._process.stdin is not None
        self._token += 1
        self._process.stdin.write(f"{self._token}{command}\n".encode())
        record = await self._record(rf"{self._token}\^")
        assert record.startswith(f"{self._token}^{answer}"), f"{command}: {record}"
        return record

    async def stops(self) -> str:
        return await self._record(r"\*stopped")

    async def goes(self, command: str) -> str:
        """Where and why it stops."""
        await self.says(command, "running")
        return await self.stops()

    async def console(self, command: str) -> str:
        """A line of the editor's debug console, ``-exec COMMAND``, that sets the machine in motion."""
        return await self.goes(f'-interpreter-exec console "{command}"')


@asynccontextmanager
async def editor(session: Session, program: Path = DEMO_AARCH64, *breakpoints: str) -> AsyncIterator[Mi]:
    """Attached, as the C/C++ extension does it; it stands."""
    process = await asyncio.create_subprocess_exec(
        *(need("gdb-multiarch"), "-nx", "--interpreter=mi2"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=DEMO_SOURCES,
    )
    try:
        mi = Mi(process)
        await mi.says("-gdb-set mi-async on")
        await mi.says("-enable-pretty-printing")
        await mi.says('-interpreter-exec console "set pagination off"')
        await mi.says(f"-environment-cd {DEMO_SOURCES}")
        await mi.says(f"-file-exec-and-symbols {program}")
        await mi.says('-interpreter-exec console "show architecture"')
        await mi.says(f"-target-select remote 127.0.0.1:{session.server.port}", "connected")
        for place in breakpoints:
            await mi.says(f"-break-insert -f {place}")
        yield mi
        process.stdin.write(b"-gdb-exit\n")  # type: ignore[union-attr]
        await asyncio.wait_for(process.wait(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def where(record: str) -> tuple[str, int]:
    """Function and line of a ``*stopped``."""
    function, line = re.search(r'func="([^"]*)"', record), re.search(r'line="(\d+)"', record)
    assert function is not None and line is not None, record
    return function[1], int(line[1])


async def shown_when_it_stands(mi: Mi) -> str:
    """What the extension asks for whenever the machine stands; the value of a variable object."""
    await mi.says("-thread-info")
    await mi.says("-stack-list-frames 0 1000")
    await mi.says("-stack-list-arguments 0 0 0")
    await mi.says("-stack-select-frame 0")
    assert "length" in await mi.says("-stack-list-variables 0")
    created = await mi.says('-var-create - * "length"')
    name = re.search(r'name="([^"]*)"', created)
    assert name is not None
    value = re.search(r'value="([^"]*)"', await mi.says(f"-var-evaluate-expression {name[1]}"))
    await mi.says(f"-var-delete {name[1]}")
    assert value is not None
    return value[1]


async def test_the_buttons_of_an_editor(spec: MachineSpec) -> None:
    """Continue, step, step back, reverse: by MI's own commands."""
    async with replaying(spec) as session, editor(session, DEMO_AARCH64, "main.c:84") as mi:
        first = await mi.goes("-exec-continue")
        assert 'reason="breakpoint-hit"' in first and where(first) == ("text_value", 84)
        begin = (await session.vm.replay_info()).icount
        value = await shown_when_it_stands(mi)
        stepped = await mi.goes("-exec-next")
        assert 'reason="end-stepping-range"' in stepped and where(stepped)[1] > 84
        back = await mi.goes("-exec-step --reverse")
        assert where(back) == ("text_value", 84) and await shown_when_it_stands(mi) == value
        second = await mi.goes("-exec-continue")
        assert where(second) == ("text_value", 84)
        assert (await session.vm.replay_info()).icount > begin
        again = await mi.goes("-exec-continue --reverse")
        assert 'reason="breakpoint-hit"' in again and await shown_when_it_stands(mi) == value
        assert (await session.vm.replay_info()).icount == begin
        start = await mi.goes("-exec-continue --reverse")
        assert "breakpoint-hit" not in start and where(start)[0] == "_start"
        await mi.says("-break-delete 1")
        end = await mi.goes("-exec-continue")
        assert "breakpoint-hit" not in end and where(end)[0] == "power_off"


async def test_the_debug_console_of_an_editor_without_such_buttons(spec: MachineSpec) -> None:
    """``-exec reverse-step`` and the like: the editor follows, for gdb says that it runs and where it stops."""
    async with replaying(spec) as session, editor(session, DEMO_AARCH64, "text_value") as mi:
        hit = await mi.goes("-exec-continue")
        begin = (await session.vm.replay_info()).icount
        await mi.goes("-exec-next")
        await mi.goes("-exec-next")
        while (await session.vm.replay_info()).icount > begin:
            back = await mi.console("reverse-step")
        assert where(back) == where(hit)
        await mi.says('-interpreter-exec console "monitor info replay"')
        assert where(await mi.console("reverse-stepi"))[0] != ""
        assert (await session.vm.replay_info()).icount == begin - 1
        assert where(await mi.console("reverse-continue"))[0] == "_start"


async def test_a_data_breakpoint_on_the_way_back(spec: MachineSpec) -> None:
    async with replaying(spec) as session, editor(session) as mi:
        await mi.goes("-exec-continue")
        await mi.says("-break-watch *(int*)(&stack_depth)")
        found = await mi.goes("-exec-continue --reverse")
        assert 'reason="watchpoint-trigger"' in found and where(found)[0] == "do_push", found


async def test_pausing_both_ways(tmp_path: Path) -> None:
    loop = bare("arm64")
    instructions = 400_000_000
    async with replaying(record_loop(tmp_path / "loop.rr", instructions)) as session, editor(session, loop) as mi:
        for command in ("-exec-continue", "-exec-continue --reverse"):
            if command.endswith("reverse"):
                await session.vm.seek(instructions - 1000)
                await mi.says("-break-watch *(char*)0x40082800")  # in the loop's page of data, never written
            await mi.says(command, "running")
            await until(lambda: session.vm.run_state is RunState.RUNNING, "the machine is in motion")
            await mi.says("-exec-interrupt")
            assert 'signal-name="SIGINT"' in await mi.stops()
        assert (await session.vm.replay_info()).icount == instructions - 1000


async def test_leaving(spec: MachineSpec) -> None:
    async with replaying(spec) as session, editor(session, DEMO_AARCH64, "main") as mi:
        await mi.goes("-exec-continue")
        await mi.says("-target-detach")
        await until(lambda: session.vm.run_state is RunState.PAUSED, "it has run to the end")
    async with replaying(spec) as session, editor(session) as mi:
        await mi.says('-interpreter-exec console "kill"')
        assert session.vm.over.done()
