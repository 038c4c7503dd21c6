"""The real program, recorded and replayed under QMP, HMP, signals; exit codes; the order of its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import ExecuteError

from tests.daemon import DEADLINE, command, irq_guest, qmp, run, running, status
from tests.peers import need
from tests.tmux import Tmux

RECORD = ["-icount", "shift=3,rr=record,rrfile=run.rr"]
REPLAY = ["-icount", "shift=3,rr=replay,rrfile=run.rr"]
QMP = ["-qmp", "unix:qmp,server=on,wait=off"]


def verify(path: Path) -> None:
    """By ``timevm log verify``."""
    checked = run(["log", "verify", str(path)], "main")
    assert checked.returncode == 0, checked


def recorded(folder: Path, typed: bytes = b"abq") -> bytes:
    """A short recording ``run.rr``; its console."""
    done = run([*irq_guest(), *RECORD, "-serial", "stdio"], typed=typed, cwd=folder)
    assert done.returncode == 0, done
    assert done.stdout.count(b"rx ") == len(typed) and b"bye " in done.stdout
    return done.stdout


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
        daemon.signal(number)
        assert await daemon.ends() == 0
        assert f"timevm-system-aarch64: terminating on signal {number.value}\n" in daemon.errors
        console = daemon.output
        assert sorted(os.listdir(tmp_path)) == ["run.rr", "stderr", "stdout"]
    verify(tmp_path / "run.rr")
    again = run([*irq_guest(), *REPLAY, "-serial", "stdio"], cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, console)


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


async def test_the_shared_terminal(tmp_path: Path) -> None:
    recorded(tmp_path)
    async with running([*irq_guest(), *REPLAY, "-serial", "mon:stdio"], tmp_path) as daemon:
        daemon.type(b"\x01cinfo status\n")
        await daemon.shows(b"VM status: ")
        assert b"timevm monitor - type 'help' for more information\r\n(timevm) " in daemon.output
        await daemon.shows(b"bye ")
        daemon.type(b"info chardev\n")
        await daemon.shows(b"serial0: filename=mux\r\nserial0-base: filename=stdio\r\n")
        daemon.type(b"\x01c\x01h")
        await daemon.shows(b"Ctrl-A x   leave timevm")
        daemon.type(b"\x01x")
        assert await daemon.ends() == 0
        assert daemon.output.endswith(b"timevm: Terminated\r\n")


async def test_the_prompt_of_qemu_for_scripts_that_wait_for_it(tmp_path: Path) -> None:
    guest = [*irq_guest(), "-M", "virt,prompt=qemu", "-serial", "null", "-monitor", "stdio", "-S"]
    async with running(guest, tmp_path) as daemon:
        await daemon.shows(b"QEMU 7.2.0 monitor - type 'help' for more information\r\n(qemu) ")
        daemon.type(b"quit\n")
        assert await daemon.ends() == 0


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


async def test_qmp_shell_of_the_package(tmp_path: Path) -> None:
    async with running([*irq_guest(), *QMP, "-S"], tmp_path) as daemon:
        await daemon.until((tmp_path / "qmp").exists, "there was a socket")
        shell = Path(command([])[0]).with_name("qmp-shell")
        terminal = Tmux(f"{shell} {tmp_path}/qmp")
        try:
            await terminal.shows("Connected to QEMU 7.2.0")
            terminal.type("query-status", "Enter")
            await terminal.shows(r'"status": "prelaunch"')
            terminal.type("replay-seek icount=5", "Enter")
            await terminal.shows("replay must be enabled to seek")
        finally:
            terminal.close()


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


async def test_a_pseudo_terminal_as_serial_port(tmp_path: Path) -> None:
    need("screen")
    async with running([*irq_guest(), "-S", "-no-shutdown", "-serial", "pty", *QMP], tmp_path) as daemon:
        await daemon.shows(b" (label serial0)\n")
        found = re.search(rb"char device redirected to (/dev/pts/\d+) ", daemon.output)
        assert found is not None
        terminal = Tmux(f"env SCREENDIR={tmp_path}/screens TERM=xterm screen {found[1].decode()}")
        try:
            async with qmp(daemon, tmp_path / "qmp") as client:
                await client.execute("cont")
                await terminal.shows("tick 0000")
                terminal.type("z")
                await terminal.shows("rx 7a")
                terminal.type("q")
                await terminal.shows("bye ticks=")
                await client.execute("quit")
        finally:
            terminal.close()
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


async def test_the_console_on_the_shared_terminal_of_a_guest_that_prints(tmp_path: Path) -> None:
    words = command(["-M", "virt", "-m", "16", "-kernel", str(irq_guest()[5]), "-nographic", *RECORD])
    quoted = " ".join(f"'{word}'" for word in words)
    terminal = Tmux(f"cd {tmp_path} && env TERM=xterm-256color {quoted}; cat", rows=12)
    try:
        await terminal.shows("tick 0000000[2-9]")
        terminal.type("C-a", "c")
        await terminal.shows(r"(?s)tick 0000\w+ cnt=\w+\n\(timevm\)\n running ● recording │ icount")
        terminal.type("info repl", "Tab")
        await terminal.shows(r"\(timevm\) info replay\n running ●")
        ticks = int(re.findall(r"tick (\w+)", terminal.screen())[-1], 16)
        await terminal.shows(rf"tick {ticks + 20:08x} cnt=\w+\n(?s:.*)\(timevm\) info replay\n running")
        terminal.type("Enter", "stop", "Enter")
        await terminal.shows(r"paused ● recording │ icount")
        assert re.search(r"Recording execution 'run\.rr': instruction count = \d+", terminal.screen())
        terminal.type("cont", "Enter", "C-a", "c")
        terminal.type("a")
        await terminal.shows("rx 61")
        terminal.type("C-a", "x")
        await terminal.shows("timevm: Terminated")
        await terminal.shows("(?m)^$")
    finally:
        terminal.close()
    verify(tmp_path / "run.rr")


@pytest.mark.parametrize("how", ["telnet", "nc", "screen"])
async def test_the_human_monitor_at_a_real_terminal(tmp_path: Path, how: str) -> None:
    need(how)
    recorded(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    place, client = {
        "telnet": (f"telnet:127.0.0.1:{port},server,nowait", f"env TERM=xterm-256color telnet 127.0.0.1 {port}"),
        "nc": ("unix:hmp,server,nowait", f"nc -U {tmp_path}/hmp"),
        "screen": ("pty", f"env SCREENDIR={tmp_path}/screens TERM=xterm screen "),
    }[how]
    guest = [*irq_guest(), *REPLAY, "-serial", "null", "-monitor", place, *QMP]
    async with running(guest, tmp_path) as daemon, qmp(daemon, tmp_path / "qmp") as qmp_client:
        await status(qmp_client, "paused")
        if how == "screen":
            await daemon.shows(b" (label compat_monitor0)\n")
            client += re.findall(r"/dev/pts/\d+", daemon.output.decode())[0]
        terminal = Tmux(client)
        try:
            if how != "screen":
                await terminal.shows(r"timevm monitor - type 'help'")
                await terminal.shows(r"\(timevm\)")
            else:
                terminal.type("", "Enter")  # what was said before there was anybody is gone
                await terminal.shows(r"\(timevm\)")
            terminal.type("info status", "Enter")
            await terminal.shows(r"info status\n(.*\n)*VM status: paused\n")
            terminal.type("replay_seek 1000", "Enter")
            await terminal.shows(r"replay_seek 1000\n(.*\n)*\(timevm\)")
            terminal.type("info replay", "Enter")
            await terminal.shows(r"info replay\n(.*\n)*Replaying execution 'run\.rr': instruction count = 1000\n")
            terminal.type("quit", "Enter")
            assert await daemon.ends() == 0
        finally:
            terminal.close()


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
