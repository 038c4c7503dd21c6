"""The backtrace that real gdb makes of the machine as it stands, through timevm's own gdb server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from timevm.engine.control.port import VmPort
from timevm.guests import DEMO_SOURCES

PROGRAM = "gdb-multiarch"
#: seconds that it gets, on a busy host too; the demo has its own backtrace
PATIENCE = 6.0
#: gdb takes a stack that it does not understand for an endless one
_SETTINGS = ("set pagination off", "set confirm off", "set style enabled off", "set backtrace limit 64")
#: what gdb prints before is about connecting
_MARK = "--timevm--"


async def gdb_backtrace(vm: VmPort, program: Path) -> list[str] | None:
    """What ``backtrace`` prints, a line for each frame; None without gdb, or if it cannot tell.

    gdb detaches afterwards: the machine goes on from where it stands.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        return None
    async with _served(vm) as port:
        commands = ["set width 0", f"directory {DEMO_SOURCES}", f"target remote 127.0.0.1:{port}"]
        output = await _output_of([found, *_arguments(program, [*commands, f"echo \\n{_MARK}\\n", "backtrace"])])
    _, mark, answer = output.partition(f"{_MARK}\n")
    lines = [line.rstrip() for line in answer.splitlines() if line.startswith("#")]
    return lines if mark and lines else None


def _arguments(program: Path, commands: Sequence[str]) -> list[str]:
    """Nothing of the user's own settings; no question is asked."""
    arguments = ["-nx", "-batch", str(program)]
    for command in (*_SETTINGS, *commands):
        arguments += ["-ex", command]
    return arguments


async def _output_of(command: Sequence[str]) -> str:
    """Empty if it does not end in time."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        # it would look for the guest's debugging information in the network
        env={**os.environ, "DEBUGINFOD_URLS": ""},
    )
    try:
        async with asyncio.timeout(PATIENCE):
            output, _ = await process.communicate()
    except TimeoutError:
        return ""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output.decode(errors="replace")


@contextlib.asynccontextmanager
async def _served(vm: VmPort) -> AsyncIterator[int]:
    """The gdb server at a free port of this host."""
    from timevm.gdb.server import GdbServer  # nobody without gdb pays for it

    gdb = GdbServer(vm)
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await gdb.serve(reader, writer)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
