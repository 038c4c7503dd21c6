"""The real program, recorded and replayed under QMP, HMP, signals; exit codes; the order of its end."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import ExecuteError

from tests.daemon import DEADLINE, QMP, RECORD, REPLAY, command, irq_guest, qmp, recorded, run, running, status, verify


def test_a_replay_shows_the_recorded_console_and_exits_with_0(tmp_path: Path) -> None:
    console = recorded(tmp_path)
    verify(tmp_path / "run.rr")
    again = run([*irq_guest(), *REPLAY, "-serial", "stdio"], cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, console)
    typed = run([*irq_guest(), *REPLAY, "-serial", "stdio"], typed=b"zzz" * 3000, cwd=tmp_path)
    assert (typed.returncode, typed.stdout) == (0, console)
    assert typed.stderr.count(b"the machine is replaying: it takes no live input") == 1


async def test_record_under_qmp_and_replay(tmp_path: Path) -> None:
    async with running([*irq_guest(), *RECORD, *QMP, "-S", "-serial", "stdio", "-name", "fred"], tmp_path) as daemon:
        async with qmp(daemon, tmp_path / "qmp") as client:
            assert await client.execute("query-status") == {
                "running": False,
                "singlestep": False,
                "status": "prelaunch",
            }
            before = {"mode": "record", "filename": "run.rr", "icount": 0}
            assert await client.execute("query-replay") == before
            assert await client.execute("query-name") == {"name": "fred"}
            cpus: Any = await client.execute("query-cpus-fast")
            assert cpus[0]["thread-id"] in map(int, os.listdir(f"/proc/{daemon.process.pid}/task"))
            with client.listener() as events:
                await client.execute("cont")
                daemon.type(b"a")
                await daemon.shows(b"rx 61")
                await client.execute("stop")
                position: Any = await client.execute("query-replay")
                assert position["icount"] > 0
                assert await client.execute("query-replay") == position
                await client.execute("cont")
                with pytest.raises(ExecuteError, match="replay must be enabled to seek"):
                    await client.execute("replay-seek", {"icount": 0})
                daemon.type(b"q")
                names = []
                async with asyncio.timeout(DEADLINE):
                    while "SHUTDOWN" not in names:
                        event = await events.get()
                        names.append(event["event"])
                assert names == ["RESUME", "STOP", "RESUME", "SHUTDOWN"]
                assert event["data"] == {"guest": True, "reason": "guest-shutdown"}
        assert await daemon.ends() == 0, daemon.errors
        assert not (tmp_path / "qmp").exists()
        console = daemon.output
    verify(tmp_path / "run.rr")
    end = json.loads(run(["log", "stat", "--json", str(tmp_path / "run.rr")], "main").stdout.splitlines()[0])
    async with running([*irq_guest(), *REPLAY, *QMP, "-serial", "stdio"], tmp_path) as daemon:
        async with qmp(daemon, tmp_path / "qmp") as client:
            await status(client, "paused")
            at_end: Any = await client.execute("query-replay")
            assert at_end["mode"] == "play" and str(at_end["icount"]) in json.dumps(end)
            assert await client.execute("human-monitor-command", {"command-line": "info replay"}) == (
                f"Replaying execution 'run.rr': instruction count = {at_end['icount']}\r\n"
            )
            with client.listener() as events:
                await client.execute("quit")
                assert (await asyncio.wait_for(events.get(), DEADLINE))["data"] == {
                    "guest": False,
                    "reason": "host-qmp-quit",
                }
        assert await daemon.ends() == 0, daemon.errors
        assert daemon.output == console


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signals_close_the_recording_in_order(tmp_path: Path, number: signal.Signals) -> None:
    guest = [*irq_guest(), *RECORD, "-serial", "stdio", "-pidfile", "pid", *QMP]
    async with running(guest, tmp_path) as daemon:
        await daemon.shows(b"tick 00000003")
        assert int((tmp_path / "pid").read_text()) == daemon.process.pid
        for _ in range(3):  # a closed terminal hangs up more than once
            daemon.signal(number)
        assert await daemon.ends() == 0
        assert f"timevm-system-aarch64: terminating on signal {number.value}\n" in daemon.errors
        console = daemon.output
        assert sorted(os.listdir(tmp_path)) == ["run.rr", "stderr", "stdout"]
    verify(tmp_path / "run.rr")
    again = run([*irq_guest(), *REPLAY, "-serial", "stdio"], cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, console)


async def test_a_hangup_that_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    guest = [*irq_guest(), *RECORD, "-serial", "stdio"]
    async with running(guest, tmp_path, hangup="ignore") as daemon:
        await daemon.shows(b"tick 00000003")
        daemon.signal(signal.SIGHUP)
        daemon.type(b"a")
        await daemon.shows(b"rx 61")
        daemon.signal(signal.SIGTERM)
        assert await daemon.ends() == 0
        assert daemon.errors == "timevm-system-aarch64: terminating on signal 15\n"
    verify(tmp_path / "run.rr")


async def test_a_machine_that_nobody_can_start_is_told_so(tmp_path: Path) -> None:
    async with running([*irq_guest(), "-nodefaults", "-S", "-serial", "null"], tmp_path) as daemon:
        await daemon.until(lambda: "-S waits for ever: there is no monitor or debugger" in daemon.errors, "a warning")


async def test_a_machine_with_nothing_to_execute_is_told_so_and_obeys(tmp_path: Path) -> None:
    async with running(["-M", "virt", "-m", "16", "-nodefaults", "-display", "none", *QMP], tmp_path) as daemon:
        async with qmp(daemon, tmp_path / "qmp") as client:
            assert "nothing to execute" in daemon.errors
            await client.execute("stop")
            await status(client, "paused")
            await client.execute("cont")
        daemon.signal(signal.SIGTERM)
        assert await daemon.ends() == 0


def test_a_full_disk_ends_the_recording_and_not_the_machine(tmp_path: Path) -> None:
    rr = "shift=3,sleep=off,rr={},rrfile=run.rr"
    limited = shlex.join(command([*irq_guest(), "-icount", rr.format("record"), "-serial", "null"]))
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 8; exec {limited}"], cwd=tmp_path, capture_output=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count(b"cannot be continued after instruction") == 1 == done.stderr.count(b"\n")
    again = run([*irq_guest(), "-icount", rr.format("replay"), "-serial", "null"], cwd=tmp_path)
    assert again.returncode == 0 and b"the recording ends at instruction" in again.stderr


async def test_qmp_on_telnet_stdio_and_a_chardev(tmp_path: Path) -> None:
    guest = [*irq_guest(), "-S", "-chardev", "socket,id=q,path=q,server=on,wait=off", "-mon", "chardev=q,mode=control"]
    guest += ["-qmp", "telnet:127.0.0.1:0,server,nowait", "-qmp-pretty", "stdio"]
    async with running(guest, tmp_path) as daemon:
        await daemon.shows(b'{\n    "QMP": {')
        daemon.type(b'{"execute":"qmp_capabilities"}{"execute":"query-chardev"}')
        await daemon.shows(b'"label": "compat_monitor1"')
        async with qmp(daemon, tmp_path / "q") as client:
            lines: Any = await client.execute("query-chardev")
            assert [(line["label"], line["frontend-open"]) for line in lines] == [
                ("q", True),
                ("compat_monitor0", True),
                ("compat_monitor1", True),
            ]
            assert lines[0]["filename"] == "unix:q,server=on" and lines[2]["filename"] == "stdio"
            await client.execute("quit")
        assert await daemon.ends() == 0


async def test_wait_on_waits_and_a_signal_ends_the_waiting(tmp_path: Path) -> None:
    guest = [*irq_guest(), "-serial", "stdio", "-chardev", "socket,id=c,path=c,server=on", "-mon", "chardev=c"]
    async with running(guest, tmp_path) as daemon:
        notice = "info: QEMU waiting for connection on: disconnected:unix:c,server=on\n"
        await daemon.until(lambda: notice in daemon.errors, "it waited")
        assert daemon.output == b""
        _, writer = await asyncio.open_unix_connection(str(tmp_path / "c"))
        await daemon.shows(b"irq ready")
        writer.close()
        daemon.signal(signal.SIGTERM)
        assert await daemon.ends() == 0
    async with running(guest, tmp_path) as daemon:
        await daemon.until(lambda: notice in daemon.errors, "it waited")
        daemon.signal(signal.SIGINT)
        assert await daemon.ends() == 0
        assert daemon.output == b""


async def test_an_inherited_socket(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    os.set_inheritable(listener.fileno(), True)
    chardev = f"socket,id=c,fd={listener.fileno()},server=on,wait=off"
    guest = [*irq_guest(), "-S", "-chardev", chardev, "-mon", "chardev=c,mode=control"]
    async with running(guest, tmp_path, [listener.fileno()]) as daemon:
        listener.close()
        async with qmp(daemon, tmp_path / "s") as client:
            await client.execute("quit")
        assert await daemon.ends() == 0


async def test_a_serial_peer_that_reads_nothing_stops_the_guest_and_nobody_else(tmp_path: Path) -> None:
    guest = ["-M", "virt", "-m", "16", "-kernel", str(irq_guest()[5]), "-nodefaults", "-display", "none", *RECORD]
    guest += ["-icount", "shift=3,sleep=off,rr=record,rrfile=run.rr", "-serial", "unix:serial,server=on,wait=off", *QMP]
    async with running([*guest, "-S"], tmp_path) as daemon:
        async with qmp(daemon, tmp_path / "qmp") as client:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "serial"), limit=1024)
            await client.execute("cont")
            before = -1
            while True:
                await asyncio.sleep(1.0)
                position: Any = await client.execute("query-replay")
                if position["icount"] == before:
                    break
                before = position["icount"]
            assert (await client.execute("query-status"))["status"] == "running"  # type: ignore[index]
            writer.write(b"q")
            console = await asyncio.wait_for(reader.read(1 << 30), DEADLINE)
            while piece := await asyncio.wait_for(reader.read(1 << 16), DEADLINE):
                console += piece
        assert await daemon.ends() == 0, daemon.errors
        numbers = [int(line.split()[1], 16) for line in console.splitlines() if line.startswith(b"tick ")]
        assert numbers == list(range(1, len(numbers) + 1)), "bytes were lost"
        assert b"bye ticks=" in console
        writer.close()


async def test_no_shutdown_and_no_reboot(tmp_path: Path) -> None:
    async with running([*irq_guest(), "-no-shutdown", "-serial", "stdio", *QMP], tmp_path) as daemon:
        async with qmp(daemon, tmp_path / "qmp") as client:
            await daemon.shows(b"tick ")
            daemon.type(b"q")
            await daemon.shows(b"bye ")
            await status(client, "shutdown")
            with pytest.raises(ExecuteError, match="Resetting the Virtual Machine is required"):
                await client.execute("cont")
            await client.execute("quit")
        assert await daemon.ends() == 0


async def test_gdb_server_at_run_time(tmp_path: Path) -> None:
    async with running([*irq_guest(), "-S", *QMP], tmp_path) as daemon:
        async with qmp(daemon, tmp_path / "qmp") as client:

            async def monitor(line: str) -> Any:
                return await client.execute("human-monitor-command", {"command-line": line})

            assert await monitor("gdbserver unix:gdb") == "Waiting for gdb connection on device 'unix:gdb'\r\n"
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "gdb"))
            writer.write(b"$?#3f")
            assert (await asyncio.wait_for(reader.readuntil(b"#"), DEADLINE)).startswith(b"+$T")
            writer.close()
            assert await monitor("gdbserver none") == "Disabled gdbserver\r\n"
            assert not (tmp_path / "gdb").exists()
            assert "Could not open gdbserver on device 'nonsense'" in await monitor("gdbserver nonsense")
            await client.execute("quit")
        assert await daemon.ends() == 0


async def test_the_log(tmp_path: Path) -> None:
    recorded(tmp_path)
    replay = [*irq_guest(), *REPLAY, "-serial", "null", "-D", "log", "-d", "trace:replay,cpu_reset"]
    assert run(replay, cwd=tmp_path).returncode == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split()[2] for line in lines if "SerialInput" in line] == ["SerialInput(port=0," for _ in range(3)]
    async with running([*irq_guest(), *QMP, "-d", "cpu_reset"], tmp_path) as daemon:
        async with qmp(daemon, tmp_path / "qmp") as client:
            await client.execute("system_reset")
            reset = "timevm-system-aarch64: CPU Reset (CPU 0): host-qmp-system-reset\n"
            await daemon.until(lambda: reset in daemon.errors, "the reset was logged")
            await client.execute("quit")
        assert await daemon.ends() == 0
    again = run([*irq_guest(), *REPLAY, "-serial", "null", "-d", "in_asm,nochain,exec,trace:virtio*"], cwd=tmp_path)
    said = "timevm-system-aarch64: -d in_asm,exec,trace:virtio*: timevm has no such log"
    assert again.returncode == 0 and again.stderr.decode().startswith(said)


async def test_the_console_of_a_replay_is_shown_once(tmp_path: Path) -> None:
    console = recorded(tmp_path, b"abcdefghq")
    replay = [*irq_guest(), *REPLAY, "-serial", "file:console", "-S", *QMP]
    async with running(replay, tmp_path) as daemon, qmp(daemon, tmp_path / "qmp") as client:

        async def monitor(line: str) -> str:
            return str(await client.execute("human-monitor-command", {"command-line": line}))

        await monitor("replay_seek end")
        end: Any = await client.execute("query-replay")
        await monitor("reverse_stepi 100")
        await monitor("reverse_continue")
        assert (await client.execute("query-replay"))["icount"] == 0  # type: ignore[index]
        for part in range(1, 8):
            await monitor(f"replay_seek {end['icount'] * part // 8}")
            await monitor("reverse_stepi 10")
            await monitor("stepi 20")
        await client.execute("cont")
        await status(client, "paused")
        assert await client.execute("query-replay") == end
        await client.execute("quit")
        assert await daemon.ends() == 0, daemon.errors
    assert (tmp_path / "console").read_bytes() == console


async def test_a_long_seek_is_watched_cancelled_and_left(tmp_path: Path) -> None:
    """The guest is ``b .``: so many instructions that going there takes seconds on any host."""
    spin = [
        "-device",
        "loader,addr=0x40000000,data=0x14000000,data-len=4",
        "-device",
        "loader,addr=0x40000000,cpu-num=0",
    ]
    guest = ["-M", "virt", "-m", "16", *spin, "-nodefaults", "-display", "none"]
    async with running([*guest, *RECORD, *QMP], tmp_path) as daemon, qmp(daemon, tmp_path / "qmp") as client:
        end = 0
        async with asyncio.timeout(DEADLINE):
            while end < 2_000_000_000:
                position: Any = await client.execute("query-replay")
                end = position["icount"]
                await asyncio.sleep(0.1)
        await client.execute("quit")
        assert await daemon.ends() == 0, daemon.errors
    async with running([*guest, *REPLAY, *QMP, "-S"], tmp_path) as daemon, qmp(daemon, tmp_path / "qmp") as client:
        for leave in (False, True):
            with client.listener() as events:
                await client.execute("replay-seek", {"icount": end})
                async with asyncio.timeout(DEADLINE):
                    while (event := await events.get())["event"] != "TIMEVM_PROGRESS":
                        assert event["event"] in ("RESUME", "STOP")  # the STOP of the round before
                progress: Any = event["data"]
                assert progress["operation"] == "seek" and 0 < progress["done"] < progress["total"]
                position = await client.execute("query-replay")
                assert 0 < position["icount"] < end
                await client.execute("quit" if leave else "x-timevm-cancel")
                if not leave:
                    position = await client.execute("query-replay")
                    assert position["icount"] == 0
                    await status(client, "paused")
        assert await daemon.ends() == 0, daemon.errors
