"""The monitors' commands on a kernel's own addresses, whose highest bit is set: QMP and its twins for people."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import ExecuteError, QMPClient

from tests.daemon import QMP, qmp, run, running, status
from tests.guests import linux_arm64

pytestmark = [pytest.mark.linux, pytest.mark.timeout(300)]


def guest() -> list[str]:
    files = linux_arm64()
    options = ["-M", "virt", "-m", "256", "-nodefaults", "-display", "none"]
    options += ["-kernel", str(files.kernel), "-initrd", str(files.initrd)]
    return [*options, "-append", "console=ttyAMA0 quiet nokaslr tvm=syms,off"]


def icount(mode: str) -> list[str]:
    return ["-icount", f"shift=2,rr={mode},rrfile=run.rr"]


async def test_every_way_back_in_a_kernel(tmp_path: Path) -> None:
    recorded = run([*guest(), *icount("record"), "-serial", "stdio"], cwd=tmp_path)
    assert recorded.returncode == 0, recorded
    symbols = {name.decode(): int(at, 16) for at, name in re.findall(rb"syms ([0-9a-f]+) (\w+)", recorded.stdout)}
    schedule, start = symbols["schedule"], symbols["start_kernel"]
    async with (
        running([*guest(), *icount("replay"), "-serial", "null", "-S", *QMP], tmp_path) as daemon,
        qmp(daemon, tmp_path / "qmp") as client,
    ):

        async def ask(name: str, **arguments: Any) -> Any:
            answer: Any = await client.execute(f"x-timevm-{name}", arguments)
            return answer

        async def hmp(line: str) -> str:
            answer: Any = await client.execute("human-monitor-command", {"command-line": line})
            return str(answer)

        await client.execute("replay-seek", {"icount": 300_000_000})
        await arrived(client, 300_000_000)
        there = await ask("reverse-continue", breakpoints=[schedule])
        assert (there["reason"], there["pc"]) == ("breakpoint", schedule)
        back = await ask("reverse-step", count=3)
        assert back["icount"] == there["icount"] - 3 and back["pc"] >> 63
        assert await ask("step", count=3) == there | {"reason": "arrived"}
        stack = int((await hmp("print/x $sp")).strip(), 16)
        written = await ask("last-write", address=stack, length=8)
        assert written["reason"] == "watchpoint" and stack - 8 < written["address"] < stack + 8, written
        found = await ask("find", breakpoints=[start])
        first = found["icount"]
        assert found == {"icount": first, "reason": "breakpoint", "pc": start}
        assert 0 < first < there["icount"]
        marks = (await ask("timeline"))["marks"]
        assert [mark["kind"] for mark in marks] == ["start", "now", "end"]
        # the same by hand
        assert "arrived" in await hmp("reverse_stepi") and "arrived" in await hmp("stepi")
        assert f"count = {written['icount']}: watchpoint, write to" in await hmp(f"last_write {stack:#x} 8")
        assert f"{schedule:x}" in await hmp(f"x/2i {schedule:#x}")
        assert f"count = {first}: breakpoint\r\n{start:#018x}" in await hmp(f"find {start:#x}")
        assert f"{there['icount']}" in await hmp("info replay")
        for line in (f"memsave {stack:#x} 64 0", "memsave $sp 64 1", "pmemsave 0x40000000 64 2"):
            assert not await hmp(line)
        await client.execute("memsave", {"val": stack, "size": 64, "filename": "3"})
        await client.execute("memsave", {"val": stack - (1 << 64), "size": 64, "filename": "4"})
        assert len({(tmp_path / name).read_bytes() for name in "0134"}) == 1
        for line in ("info registers", f"x/4gx {stack:#x}", "print/x $pc", "timeline", "gva2gpa $sp"):
            assert await hmp(line)
        with pytest.raises(ExecuteError, match="expected: integer"):
            await ask("last-write", address=-1)
        await status(client, "paused")


async def arrived(client: QMPClient, where: int) -> None:
    while True:
        answer: Any = await client.execute("query-replay")
        state: Any = await client.execute("query-status")
        if answer["icount"] == where and not state["running"]:
            return
