"""The real program at terminals: shared, pseudo, over telnet and nc; QEMU's own shell."""

from __future__ import annotations

import asyncio
import re
import shlex
import socket
from pathlib import Path

import pytest

from tests.daemon import (
    QMP,
    RECORD,
    REPLAY,
    command,
    irq_guest,
    qmp,
    recorded,
    run,
    running,
    status,
    verify,
    wait_for_end,
)
from tests.peers import need
from tests.tmux import Tmux


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
        await daemon.shows(b"Ctrl-A x        leave timevm")
        daemon.type(b"\x01x")
        assert await daemon.ends() == 0
        assert daemon.output.endswith(b"timevm: Terminated\r\n")


async def test_the_prompt_of_qemu_for_scripts_that_wait_for_it(tmp_path: Path) -> None:
    guest = [*irq_guest(), "-M", "virt,prompt=qemu", "-serial", "null", "-monitor", "stdio", "-S"]
    async with running(guest, tmp_path) as daemon:
        await daemon.shows(b"QEMU 7.2.0 monitor - type 'help' for more information\r\n(qemu) ")
        daemon.type(b"quit\n")
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


@pytest.mark.parametrize("place", ["-nographic", "-monitor"])
async def test_a_terminal_that_is_closed_ends_the_program_in_order(tmp_path: Path, place: str) -> None:
    front_ends = ["-nographic"] if place == "-nographic" else ["-serial", "null", "-monitor", "stdio"]
    words = command([*irq_guest()[:6], *front_ends, "-pidfile", "pid", *RECORD])
    terminal = Tmux(f"cd {tmp_path} && exec env TERM=xterm-256color {shlex.join(words)}")
    try:
        await terminal.shows("tick 0000000[2-9]" if place == "-nographic" else "running ● recording")
        pid = int((tmp_path / "pid").read_text())
    finally:
        terminal.close()
    await asyncio.to_thread(wait_for_end, pid)
    verify(tmp_path / "run.rr")


def test_commands_from_a_pipe_are_answered_before_the_end() -> None:
    """``printf … | timevm-system-… -monitor stdio``: the input ends at once, and `quit` is in it."""
    for _ in range(3):
        done = run([*irq_guest(), "-monitor", "stdio"], typed=b"info status\ninfo version\nquit\n")
        assert done.returncode == 0 and b"VM status: running" in done.stdout and b"7.2.0" in done.stdout, done
