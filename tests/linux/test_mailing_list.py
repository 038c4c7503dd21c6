"""The command line of the thread that brought reverse debugging to QEMU, on the real program, whole: Debian on ``pc``
with an IDE disk behind blkreplay, snapshots in its image, the monitor on telnet, and gdb."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.daemon import Daemon, run, running, verify
from tests.gdb.replays import in_order, output_of
from tests.gdb.test_daemon import free_port, listens
from tests.guests import linux_x86_64
from tests.linux.test_debian_disk import ext4
from tests.peers import need
from tests.tmux import Tmux
from timevm.gdb.kernel_symbols import symbol_file

pytestmark = pytest.mark.linux

ENTRY = "main_system_x86_64"
MARKS = itertools.count(1000)
SYMBOL = re.compile(r"syms ([0-9a-f]{16}) (\w+)")


@dataclass(frozen=True, slots=True)
class Recorded:
    """``folder`` holds the disk and the recording."""

    folder: Path
    console: bytes
    symbols: dict[str, int]


def the_line(rr: str) -> list[str]:
    """Without its two about the network."""
    guest = linux_x86_64()
    return [
        *("-M", "pc", "-m", "512", "-kernel", str(guest.kernel), "-initrd", str(guest.initrd), "-nographic"),
        *("-append", "console=ttyS0 quiet nokaslr tvm=syms,disk,off", "-net", "none"),
        *("-icount", f"shift=4,sleep=off,rr={rr},rrfile=replay.bin,rrsnapshot=init"),
        *("-drive", "file=disk.qcow2,if=none,id=img-direct"),
        *("-drive", "driver=blkreplay,if=none,image=img-direct,id=img-blkreplay"),
        *("-device", "ide-hd,drive=img-blkreplay"),
    ]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("thread")
    ext4(folder / "disk.qcow2")
    done = run([*the_line("record"), "-serial", "stdio", "-monitor", "none"], ENTRY, cwd=folder)
    assert done.returncode == 0, done
    console = done.stdout
    verify(folder / "replay.bin")
    assert b"TIMEVM-GUEST disk sda ext4 TVM hello" in console and b"BAD" not in console
    symbols = {name: int(address, 16) for address, name in SYMBOL.findall(console.decode(errors="replace"))}
    (folder / "kernel.elf").write_bytes(symbol_file(sorted((at, name, True) for name, at in symbols.items()), "x86_64"))
    return Recorded(folder, console, symbols)


async def gdb(recorded: Recorded, port: int, *lines: str) -> str:
    """What it prints of a session that leaves the machine where it is."""
    commands = [word for line in ("set width 0", f"target remote 127.0.0.1:{port}", *lines) for word in ("-ex", line)]
    process = await asyncio.create_subprocess_exec(
        *(need("gdb-multiarch"), "-nx", "-batch", *commands, "-ex", "disconnect", str(recorded.folder / "kernel.elf")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    return await output_of(process)


async def ask(terminal: Tmux, line: str, answer: str) -> str:
    """At the telnet monitor: the screen with ``answer`` behind the line, which a mark tells from earlier ones."""
    mark = next(MARKS)
    terminal.type(f"print {mark}", "Enter", line, "Enter")
    return await terminal.shows(rf"print {mark}\n(?s:.*){re.escape(line)}\n(?s:.*){answer}")


async def position(terminal: Tmux) -> int:
    screen = await ask(terminal, "info replay", r"Replaying execution 'replay\.bin': instruction count = \d+\n")
    return int(re.findall(r"instruction count = (\d+)", screen)[-1])


async def debug(recorded: Recorded, daemon: Daemon, port: int, terminal: Tmux) -> None:
    start = recorded.symbols["start_kernel"]
    await daemon.until(lambda: listens(port), "the gdb server listens")
    there = f"{start:#x} <start_kernel>"
    output = await gdb(
        recorded,
        port,
        *("monitor replay_seek 0", "maintenance flush register-cache", "break start_kernel", "continue"),
        *("stepi", "stepi", "stepi", "p $pc", "monitor savevm a", "reverse-continue", "p $pc"),
        *("monitor info replay", "monitor loadvm a", "maintenance flush register-cache", "p $pc", "reverse-stepi"),
        *("reverse-continue", "monitor info replay"),
    )
    in_order(output, "Breakpoint 1, ", "$1 = ", "Breakpoint 1, ", "$2 = ", there, "instruction count = ", "$3 = ")
    stepped, _, loaded = re.findall(r"\$\d+ = \S+ \S+ (0x[0-9a-f]+)", output)
    assert stepped == loaded, output
    at_start, again = (int(number) for number in re.findall(r"instruction count = (\d+)", output))
    assert at_start == again == await position(terminal)

    terminal.type("savevm b", "Enter", "loadvm a", "Enter")
    assert await position(terminal) == at_start + 3
    for tag, icount in (("init", 0), ("a", at_start + 3), ("b", at_start)):
        await ask(terminal, "info snapshots", rf" {tag} .* {icount}\n")

    output = await gdb(recorded, port, "p $pc", "reverse-stepi", "break start_kernel", "reverse-continue", "p $pc")
    in_order(output, stepped, "Breakpoint 1, ", there)
    terminal.type("loadvm b", "Enter", "replay_seek end", "Enter")
    await terminal.shows(r"(?s)paused ▶ replaying .*100 %|debug ▶ replaying .*100 %")
    output = await gdb(recorded, port, "reverse-stepi", "break start_kernel", "reverse-continue", "p $pc")
    in_order(output, "Breakpoint 1, ", there)
    assert await position(terminal) == at_start


async def test_the_line_recorded_replayed_and_debugged(recorded: Recorded) -> None:
    """``break start_kernel``, three steps, ``reverse-continue``; savevm and loadvm in the midst, by gdb and telnet."""
    need("telnet")
    port, monitor = free_port(), free_port()
    arguments = [*the_line("replay"), "-serial", "stdio", "-S", "-gdb", f"tcp:127.0.0.1:{port}"]
    arguments += ["-monitor", f"telnet:127.0.0.1:{monitor},server,nowait"]
    async with running(arguments, recorded.folder, entry=ENTRY) as daemon:
        await daemon.until(lambda: listens(monitor), "the monitor listens")
        terminal = Tmux(f"env TERM=xterm-256color telnet 127.0.0.1 {monitor}", columns=110, rows=40)
        try:
            await terminal.shows(r"\(timevm\)")
            await debug(recorded, daemon, port, terminal)
            terminal.type("quit", "Enter")
            assert await daemon.ends() == 0, daemon.errors
        finally:
            terminal.close()
        assert daemon.output == recorded.console, "each character is shown once"


def test_the_line_replays_to_its_end_and_leaves_the_disk_sound(recorded: Recorded) -> None:
    again = run([*the_line("replay"), "-serial", "stdio", "-monitor", "none"], ENTRY, cwd=recorded.folder)
    assert (again.returncode, again.stdout) == (0, recorded.console), again.stderr
    image = recorded.folder / "disk.qcow2"
    checked = subprocess.run([need("qemu-img"), "check", image], check=True, capture_output=True, timeout=60)
    assert b"No errors were found" in checked.stdout
