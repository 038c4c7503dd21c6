"""``inject-nmi`` and ``nmi`` of a whole timevm: in the recording, in its replay, and in the log's dump."""

from __future__ import annotations

from pathlib import Path

import pytest
from qemu.qmp import ExecuteError

from tests.daemon import irq_guest, qmp, run, running
from tests.engine.machine.pc_guests import kernel
from tests.engine.machine.test_nmi import GUEST, HANDLERS

ENTRY = "main_system_x86_64"


async def test_what_was_recorded_comes_again(tmp_path: Path) -> None:
    image = kernel(GUEST, tmp_path / "kernel", HANDLERS)
    pc = ["-M", "pc", "-m", "16", "-kernel", str(image), "-nodefaults", "-display", "none", "-serial", "stdio"]
    control = ["-qmp", "unix:qmp,server,nowait"]
    async with (
        running([*pc, *control, "-icount", "shift=4,rr=record,rrfile=x.rr"], tmp_path, entry=ENTRY) as daemon,
        qmp(daemon, tmp_path / "qmp") as client,
    ):
        for count in range(1, 4):
            await client.execute("inject-nmi")
            await daemon.shows(b"N" * count)
        answer = await client.execute("human-monitor-command", {"command-line": "nmi"})
        assert answer == ""
        await daemon.shows(b"NNNN")
        await client.execute("quit")
        assert await daemon.ends() == 0
        console = daemon.output
    assert console == b"NNNN"
    dump = run(["log", "dump", "x.rr"], "main", cwd=tmp_path)
    assert dump.returncode == 0 and dump.stdout.count(b"nmi") == 4, dump
    again = run([*pc, "-icount", "shift=4,rr=replay,rrfile=x.rr"], ENTRY, cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, console), again
    (tmp_path / "qmp").unlink(missing_ok=True)
    replay = [*pc, *control, "-S", "-icount", "shift=4,rr=replay,rrfile=x.rr"]
    async with running(replay, tmp_path, entry=ENTRY) as daemon, qmp(daemon, tmp_path / "qmp") as client:
        with pytest.raises(ExecuteError, match="the machine is replaying"):
            await client.execute("inject-nmi")
        await client.execute("quit")
        assert await daemon.ends() == 0


async def test_the_arm_board_takes_none(tmp_path: Path) -> None:
    guest = [*irq_guest(), "-S", "-qmp", "unix:qmp,server,nowait"]
    async with running(guest, tmp_path) as daemon, qmp(daemon, tmp_path / "qmp") as client:
        with pytest.raises(ExecuteError, match="this feature or command is not currently supported"):
            await client.execute("inject-nmi")
        await client.execute("quit")
        assert await daemon.ends() == 0
