"""``system_powerdown`` and ``system_reset`` over QMP: the guest hears of them, and so does its replay."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import ExecuteError

from tests.daemon import DEADLINE, qmp, run, running
from tests.guests import bare

GUEST = ["-M", "virt", "-m", "16", "-kernel", str(bare("power")), "-nodefaults", "-display", "none", "-serial", "stdio"]


async def test_a_guest_that_switches_itself_off_when_asked(tmp_path: Path) -> None:
    record = [*GUEST, "-icount", "shift=3,rr=record,rrfile=x.rr", "-qmp", "unix:qmp,server,nowait"]
    async with running(record, tmp_path) as daemon, qmp(daemon, tmp_path / "qmp") as client:
        await daemon.shows(b"boot 0001\n")
        with client.listener() as events:
            await client.execute("system_reset")
            await daemon.shows(b"boot 0002\n")
            daemon.type(b"x")
            await daemon.shows(b"boot 0002\nx")
            await client.execute("system_powerdown")
            names: list[tuple[str, Any]] = []
            async with asyncio.timeout(DEADLINE):
                async for event in events:
                    data: Any = event.get("data", {})
                    names.append((str(event["event"]), data.get("reason")))
                    if event["event"] == "SHUTDOWN":
                        break
        assert ("RESET", "host-qmp-system-reset") in names
        assert names[-2:] == [("POWERDOWN", None), ("SHUTDOWN", "guest-shutdown")]
        assert await daemon.ends() == 0
        console = daemon.output
    assert console == b"boot 0001\nboot 0002\nxpower button\n"
    again = run([*GUEST, "-icount", "shift=3,rr=replay,rrfile=x.rr"], cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, console), again


async def test_a_replay_takes_no_power_button(tmp_path: Path) -> None:
    done = run([*GUEST, "-icount", "shift=3,rr=record,rrfile=x.rr"], typed=b"xq", cwd=tmp_path)
    assert done.returncode == 0, done
    replay = [*GUEST, "-icount", "shift=3,rr=replay,rrfile=x.rr", "-S", "-qmp", "unix:qmp,server,nowait"]
    async with running(replay, tmp_path) as daemon, qmp(daemon, tmp_path / "qmp") as client:
        for command in ("system_powerdown", "system_reset"):
            with pytest.raises(ExecuteError, match="the machine is replaying"):
                await client.execute(command)
        await client.execute("cont")
        await daemon.shows(b"off\n")
        await client.execute("quit")
        assert await daemon.ends() == 0
