"""The real program: recorded, looked back at by QMP, the human monitor and gdb, and replayed afterwards."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import ExecuteError

from tests.daemon import QMP, RECORD, REPLAY, irq_guest, qmp, run, running, status, verify
from tests.peers import need

GUEST = [*irq_guest(), *QMP, "-serial", "stdio"]


async def hmp(client: Any, line: str) -> str:
    text: str = await client.execute("human-monitor-command", {"command-line": line})
    return text


async def test_by_qmp(tmp_path: Path) -> None:
    async with running([*GUEST, *RECORD], tmp_path) as daemon, qmp(daemon, tmp_path / "qmp") as client:
        daemon.type(b"abc")
        await daemon.until(lambda: daemon.output.count(b"rx ") == 3, "three keys arrived")
        with pytest.raises(ExecuteError, match="play mode: look_back"):
            await client.execute("x-timevm-reverse-step")
        with pytest.raises(ExecuteError, match=r"^replay must be enabled to seek$"):
            await client.execute("replay-seek", {"icount": 1})
        stands: Any = await client.execute("x-timevm-look-back")
        assert stands["reason"] == "recording-ended"
        end = stands["icount"]
        info: Any = await client.execute("query-replay")
        assert info == {"mode": "play", "filename": "run.rr", "icount": end}
        verify(tmp_path / "run.rr")
        shown = daemon.output
        back: Any = await client.execute("x-timevm-reverse-step", {"count": 10})
        assert (back["icount"], back["reason"]) == (end - 10, "arrived")
        await client.execute("replay-seek", {"icount": 0})
        await status(client, "paused")
        await client.execute("cont")
        await status(client, "paused")
        daemon.type(b"x")
        await daemon.until(lambda: "it takes no live input" in daemon.errors, "what is typed is refused")
        assert "looked back at" in daemon.errors
        assert daemon.output == shown, "what was shown is not shown again"
        with pytest.raises(ExecuteError, match="replaying already"):
            await client.execute("x-timevm-look-back")
        await client.execute("quit")
        assert await daemon.ends() == 0
    verify(tmp_path / "run.rr")
    replayed = run([*irq_guest(), *REPLAY, "-serial", "stdio"], cwd=tmp_path)
    assert (replayed.returncode, replayed.stdout) == (0, shown)


async def test_by_the_human_monitor(tmp_path: Path) -> None:
    little = ["-icount", "shift=3,rr=record,rrfile=run.rr,rrmem=8M"]
    async with running([*GUEST, *little], tmp_path) as daemon, qmp(daemon, tmp_path / "qmp") as client:
        daemon.type(b"a")
        await daemon.shows(b"rx ")
        await hmp(client, "stop")
        assert re.search(r"[0-9]+ checkpoints in .* of 8 MiB", await hmp(client, "info checkpoints"))
        assert "look_back" in await hmp(client, "reverse_stepi")
        assert "this is its replay now" in await hmp(client, "look_back")
        assert (await hmp(client, "info replay")).startswith("Replaying execution 'run.rr'")
        assert ": arrived" in await hmp(client, "reverse_stepi 3")
        assert "end" in await hmp(client, "timeline")
        assert await hmp(client, "last_write $sp-16 16")
        await hmp(client, "quit")
        assert await daemon.ends() == 0


async def test_after_the_power_is_off(tmp_path: Path) -> None:
    async with (
        running([*GUEST, *RECORD, "-no-shutdown"], tmp_path) as daemon,
        qmp(daemon, tmp_path / "qmp") as client,
    ):
        daemon.type(b"abq")
        await status(client, "shutdown")
        stands: Any = await client.execute("x-timevm-look-back")
        await status(client, "paused")
        back: Any = await client.execute("x-timevm-reverse-step")
        assert back["icount"] == stands["icount"] - 1
        await client.execute("quit")
        assert await daemon.ends() == 0


async def test_a_machine_that_is_not_recorded(tmp_path: Path) -> None:
    async with running(GUEST, tmp_path) as daemon, qmp(daemon, tmp_path / "qmp") as client:
        with pytest.raises(ExecuteError, match="nothing to look back at: start timevm with"):
            await client.execute("x-timevm-look-back")
        assert "nothing to look back at" in await hmp(client, "look_back")
        await client.execute("quit")


async def test_from_gdb(tmp_path: Path) -> None:
    """Without connecting again: the way back was offered from the start, and refused in words until then."""
    gdb_at = tmp_path / "gdb"
    arguments = [*GUEST, *RECORD, "-gdb", f"unix:{gdb_at},server=on,wait=off"]
    async with running(arguments, tmp_path) as daemon:
        daemon.type(b"ab")
        await daemon.until(lambda: daemon.output.count(b"rx ") == 2, "two keys arrived")
        await daemon.until(gdb_at.exists, "the gdb server listens")
        lines = ["set width 0", f"target remote {gdb_at}", "reverse-stepi", "monitor look_back", "print $pc"]
        lines += ["reverse-stepi", "reverse-stepi", "stepi", "monitor info replay", "reverse-continue", "kill"]
        process = await asyncio.create_subprocess_exec(
            *(need("gdb-multiarch"), "-nx", "-batch"),
            *(word for line in lines for word in ("-ex", line)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(60):
            text = (await process.communicate())[0].decode()
        parts = ("'monitor look_back' ends", "its replay now", "Replaying", "No more reverse")
        at = [text.find(part) for part in parts]
        assert -1 not in at and at == sorted(at), text
        assert await daemon.ends() == 0
