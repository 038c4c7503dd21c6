"""``dump-guest-memory`` of a running program, by the PyPI client: plain, recording, replaying, and while it ends."""

from __future__ import annotations

import asyncio
import os
import select
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import ExecuteError, QMPClient

from tests.daemon import QMP, RECORD, REPLAY, irq_guest, qmp, recorded, run, running, status, verify
from tests.engine.vmcore.cores import read_core


async def dump(client: QMPClient, name: str, **further: Any) -> Any:
    return await client.execute("dump-guest-memory", {"paging": False, "protocol": f"file:{name}", **further})


async def go_to(client: QMPClient, icount: int) -> None:
    await client.execute("replay-seek", {"icount": icount})
    while True:
        found: Any = await client.execute("query-replay")
        if found["icount"] == icount:
            await status(client, "paused")
            return
        await asyncio.sleep(0.01)


async def test_at_any_instruction_of_a_recording_and_always_the_same(tmp_path: Path) -> None:
    console = recorded(tmp_path)
    async with running([*irq_guest(), *REPLAY, *QMP, "-S", "-serial", "stdio"], tmp_path / "run") as daemon:
        (tmp_path / "run.rr").rename(tmp_path / "run" / "run.rr")
        async with qmp(daemon, tmp_path / "run" / "qmp") as client:
            await client.execute("human-monitor-command", {"command-line": "replay_seek end"})
            end: Any = await client.execute("query-replay")
            moments = (0, 1, end["icount"] // 3, end["icount"] // 2, end["icount"] // 2 + 1, end["icount"] - 1)
            for attempt in ("first", "again"):
                for moment in moments if attempt == "first" else reversed(moments):
                    await go_to(client, moment)
                    await dump(client, f"{attempt}{moment}.core")
            await client.execute("cont")
            await daemon.until(lambda: daemon.output == console, "the whole console was shown")
            await client.execute("quit")
        assert await daemon.ends() == 0
    files = [
        [(tmp_path / "run" / f"{attempt}{moment}.core").read_bytes() for moment in moments]
        for attempt in ("first", "again")
    ]
    assert files[0] == files[1]
    assert len(set(files[0])) == len(moments)


async def test_a_recording_with_dumps_in_it_replays(tmp_path: Path) -> None:
    async with running([*irq_guest(), *RECORD, *QMP, "-serial", "stdio"], tmp_path) as daemon:
        async with qmp(daemon, tmp_path / "qmp") as client:
            for typed in (b"a", b"b"):
                daemon.type(typed)
                await daemon.shows(b"rx %02x" % typed[0])
                await dump(client, f"{typed.decode()}.core", detach=typed == b"b")
            daemon.type(b"q")
        assert await daemon.ends() == 0
        console = daemon.output
    verify(tmp_path / "run.rr")
    done = run([*irq_guest(), *REPLAY, "-serial", "stdio"], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, console)


async def test_events_and_progress(tmp_path: Path) -> None:
    async with running([*irq_guest(ram=64), *QMP], tmp_path) as daemon, qmp(daemon, tmp_path / "qmp") as client:
        events: list[Any] = []
        with client.listener(("DUMP_COMPLETED",)) as listener:
            assert await client.execute("query-dump") == {"status": "none", "completed": 0, "total": 0}
            await dump(client, "one.core", detach=True)
            events.append(await asyncio.wait_for(listener.get(), 30))
            with pytest.raises(ExecuteError, match="failed to write elf header: No space left on device"):
                await dump(client, "/dev/full")
            events.append(await asyncio.wait_for(listener.get(), 30))
        whole = 64 << 20
        assert events[0]["data"] == {"result": {"status": "completed", "completed": whole, "total": whole}}
        assert events[1]["data"] == {
            "result": {"status": "failed", "completed": 0, "total": whole},
            "error": "dump: failed to write elf header: No space left on device",
        }
        answer: Any = await client.execute("query-dump-guest-memory-capability")
        assert answer == {"formats": ["elf"]}
        assert len(read_core(tmp_path / "one.core").loads[0].data) == whole
        await client.execute("quit")
        assert await daemon.ends() == 0


async def test_quitting_ends_a_dump_that_nobody_reads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        async with running([*irq_guest(), *QMP], tmp_path) as daemon, qmp(daemon, tmp_path / "qmp") as client:
            await dump(client, "pipe", detach=True)
            with pytest.raises(ExecuteError, match="There is a dump in process, please wait"):
                await dump(client, "other.core")
            answer: Any = await client.execute("query-dump")
            assert answer["status"] == "active"
            told: Any = await client.execute("human-monitor-command", {"command-line": "info dump"})
            assert told.startswith("Status: active\r\nFinished: 0.")
            await client.execute("quit")
            assert await daemon.ends() == 0
            assert daemon.errors == ""
    finally:
        os.close(reader)
    assert {"pipe", "stdout", "stderr"} <= set(os.listdir(tmp_path)) <= {"pipe", "qmp", "stdout", "stderr"}


async def test_who_asks_may_go_away(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        async with running([*irq_guest(), *QMP], tmp_path) as daemon:
            async with qmp(daemon, tmp_path / "qmp") as client:
                asked = asyncio.create_task(dump(client, "pipe"))
                await daemon.until(lambda: select.select((reader,), (), (), 0)[0] and os.read(reader, 1), "it began")
            asked.cancel()
            async with qmp(daemon, tmp_path / "qmp") as client:
                answer: Any = await client.execute("query-dump")
                assert answer["status"] == "active"
                os.set_blocking(reader, True)
                size = await asyncio.to_thread(lambda: sum(map(len, iter(lambda: os.read(reader, 1 << 20), b""))))
                assert size > 16 << 20
                while answer["status"] == "active":
                    await asyncio.sleep(0.01)
                    answer = await client.execute("query-dump")
                assert answer["status"] == "completed"
                await client.execute("quit")
            assert await daemon.ends() == 0
    finally:
        os.close(reader)
