"""QMP over real sockets: raw, the PyPI client, many clients, clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import ExecuteError, QMPClient

from tests.monitor.toy_vm import ToyVm
from timevm.engine.control.port import ReplayMode
from timevm.engine.control.run_state import RunState
from timevm.errors import HostError
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.endpoint import SocketEndpoint
from timevm.monitor.qmp import server as server_module
from timevm.monitor.qmp.server import run_qmp_server

DEADLINE = 20
NEGOTIATE = b'{"execute":"qmp_capabilities"}'


@contextlib.asynccontextmanager
async def served(context: MonitorContext, path: Path) -> AsyncIterator[str]:
    """A QMP server on a unix socket."""
    ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    endpoint = SocketEndpoint(path=str(path), label="compat_monitor0")
    task = asyncio.create_task(run_qmp_server(endpoint, context, ready.set_result))
    try:
        await asyncio.wait_for(ready, DEADLINE)
        yield str(path)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await context.close()


async def line(reader: asyncio.StreamReader) -> Any:
    return json.loads(await asyncio.wait_for(reader.readline(), DEADLINE))


async def until(reader: asyncio.StreamReader, key: str, value: Any) -> Any:
    """The next message whose ``key`` is ``value``."""
    while True:
        message = await line(reader)
        if message.get(key) == value:
            return message


async def connect(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
    assert "QMP" in await line(reader)
    writer.write(NEGOTIATE)
    assert await line(reader) == {"return": {}}
    return reader, writer


async def test_the_pypi_client_and_its_events(tmp_path: Path) -> None:
    vm = ToyVm(ReplayMode.PLAY, end=1000)
    async with served(MonitorContext(vm), tmp_path / "qmp") as path:
        client = QMPClient("test")
        await asyncio.wait_for(client.connect(path), DEADLINE)
        assert await client.execute("query-status") == {"status": "prelaunch", "running": False, "singlestep": False}
        with client.listener(("RESUME", "STOP")) as listener:
            await client.execute("replay-seek", {"icount": 500})
            assert (await asyncio.wait_for(listener.get(), DEADLINE))["event"] == "RESUME"
            assert (await asyncio.wait_for(listener.get(), DEADLINE))["event"] == "STOP"
        assert await client.execute("query-replay") == {"mode": "play", "filename": "boot.rr", "icount": 500}
        with pytest.raises(ExecuteError, match="cannot seek to the specified instruction count"):
            await client.execute("replay-seek", {"icount": -1})
        with pytest.raises(ExecuteError) as caught:
            await client.execute("nope")
        assert caught.value.error_class == "CommandNotFound"
        for name in ("query-commands", "query-events", "query-qmp-schema", "query-machines", "query-chardev"):
            assert await client.execute(name)
        await client.disconnect()


async def test_snapshot_jobs(tmp_path: Path) -> None:
    context = MonitorContext(ToyVm())
    async with served(context, tmp_path / "qmp") as path:
        reader, writer = await connect(path)
        save = {"job-id": "j0", "tag": "a", "vmstate": "disk0", "devices": ["disk0"]}
        writer.write(json.dumps({"execute": "snapshot-save", "arguments": save}).encode())
        seen = []
        while "concluded" not in seen:
            seen.append((await until(reader, "event", "JOB_STATUS_CHANGE"))["data"]["status"])
        assert seen == ["created", "running", "aborting", "concluded"]
        writer.write(b'{"execute":"query-jobs","id":1}')
        (job,) = (await until(reader, "id", 1))["return"]
        assert (job["id"], job["type"], job["error"]) == ("j0", "snapshot-save", "No block device node 'disk0'")
        writer.write(json.dumps({"execute": "snapshot-save", "arguments": save, "id": 2}).encode())
        assert (await until(reader, "id", 2))["error"]["desc"] == "Job ID 'j0' already in use"
        writer.write(b'{"execute":"job-dismiss","arguments":{"id":"j0"},"id":3}')
        assert (await until(reader, "id", 3))["return"] == {}
        writer.write(b'{"execute":"job-dismiss","arguments":{"id":"j0"},"id":4}')
        assert (await until(reader, "id", 4))["error"]["desc"] == "Job not found"
        writer.close()


async def test_what_was_asked_before_half_closing_is_answered(tmp_path: Path) -> None:
    async with served(MonitorContext(ToyVm()), tmp_path / "qmp") as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(NEGOTIATE + b'{"execute":"query-name","id":1}' * 50 + b'{"execute":"qu')
        writer.write_eof()
        messages = [json.loads(text) for text in (await asyncio.wait_for(reader.read(), DEADLINE)).splitlines()]
        assert [message.get("return") for message in messages[2:]] == [{"name": "fred"}] * 50


async def test_chardev_says_who_is_there(tmp_path: Path) -> None:
    context = MonitorContext(ToyVm())
    async with served(context, tmp_path / "qmp") as path:
        assert context.chardevs[0].filename == f"disconnected:unix:{path},server=on"
        _, writer = await connect(path)
        assert context.chardevs[0].filename == f"unix:{path},server=on"
        writer.close()
    assert context.chardevs == []
    assert not (tmp_path / "qmp").exists()


async def test_a_client_that_does_not_read_loses_events_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_UNREAD", 1 << 14)
    vm = ToyVm()
    async with served(MonitorContext(vm), tmp_path / "qmp") as path:
        lazy, lazy_writer = await connect(path)
        good, good_writer = await connect(path)
        rounds = 30
        for _ in range(rounds):
            for _ in range(1000):
                vm.send("STOP")
            good_writer.write(b'{"execute":"query-status","id":"x"}')
            await until(good, "id", "x")
        lazy_writer.write(b'{"execute":"query-status","id":"y"}')
        stops = lost = 0
        while True:
            message = await line(lazy)
            stops += message.get("event") == "STOP"
            if message.get("event") == "TIMEVM_EVENTS_LOST":
                lost += message["data"]["count"]
            if message.get("id") == "y":
                break
        assert stops + lost == rounds * 1000
        assert lost > 0
        lazy_writer.close()
        good_writer.close()


async def test_flooding_clients_do_not_bother_a_good_one(tmp_path: Path) -> None:
    vm = ToyVm()
    async with served(MonitorContext(vm), tmp_path / "qmp") as path:
        good, good_writer = await connect(path)
        writers = []
        for number in range(200):
            _, writer = await connect(path)
            writers.append(writer)
            match number % 4:
                case 0:
                    writer.write(b'{"execute":"query-qmp-schema"}' * 100)
                case 1:
                    writer.write(b"a" * (1 << 16))
                case 2:
                    writer.write(b"}" * 1000)
                case _:
                    writer.write_eof()
        _, liner = await connect(path)
        liner.write(b'{"execute":"' + b"a" * (8 << 20) + b'"}\n{"execute":"query-name","id":9}')
        writers.append(liner)
        for _ in range(5):
            good_writer.write(b'{"execute":"query-status","id":"x"}')
            assert (await until(good, "id", "x"))["return"]["status"] == "prelaunch"
        for writer in writers:
            writer.transport.abort()
        good_writer.close()


async def test_eight_megabytes_are_answered_with_an_error_and_the_session_goes_on(tmp_path: Path) -> None:
    async with served(MonitorContext(ToyVm()), tmp_path / "qmp") as path:
        reader, writer = await connect(path)
        writer.write(b'{"execute":"' + b"a" * (8 << 20) + b'"}\n{"execute":"query-name","id":9}')
        assert (await line(reader))["error"]["desc"] == "JSON token size limit exceeded"
        assert (await line(reader)) == {"return": {"name": "fred"}, "id": 9}
        writer.close()


async def test_out_of_band_overtakes(tmp_path: Path) -> None:
    vm = ToyVm(ReplayMode.PLAY, end=1000)
    started = asyncio.Event()
    released = asyncio.Event()

    async def slow(line: str, context: MonitorContext) -> str:
        started.set()
        await released.wait()
        return ""

    async with served(MonitorContext(vm, human_monitor=slow), tmp_path / "qmp") as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"execute":"qmp_capabilities","arguments":{"enable":["oob"]},"id":0}')
        await until(reader, "id", 0)
        vm.run_state = RunState.RUNNING
        writer.write(b'{"execute":"human-monitor-command","arguments":{"command-line":"x"},"id":1}')
        await asyncio.wait_for(started.wait(), DEADLINE)
        writer.write(b'{"execute":"query-name","id":2}{"exec-oob":"x-timevm-cancel","id":3}')
        assert (await until(reader, "id", 3))["return"] == {}
        released.set()
        assert (await until(reader, "id", 1))["return"] == ""
        assert (await until(reader, "id", 2))["return"] == {"name": "fred"}
        writer.close()


async def test_client_mode_and_what_cannot_be_had(tmp_path: Path) -> None:
    context = MonitorContext(ToyVm())
    greeting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def management(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting.set_result(await line(reader))
        writer.close()

    path = str(tmp_path / "management")
    async with await asyncio.start_unix_server(management, path):
        await asyncio.wait_for(run_qmp_server(SocketEndpoint(path=path, server=False), context), DEADLINE)
    assert "QMP" in await greeting
    missing = str(tmp_path / "missing")
    with pytest.raises(HostError, match=f"Failed to connect to '{missing}': No such file or directory"):
        await run_qmp_server(SocketEndpoint(path=missing, server=False), context)
    with pytest.raises(HostError, match=r"Failed to listen on 'unix:.*': No such file or directory"):
        await run_qmp_server(SocketEndpoint(path=str(tmp_path / "no" / "where")), context)
