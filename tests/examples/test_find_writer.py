"""``examples/find_writer.py`` against the real program: the writes it names are those of the recording."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.daemon import DEADLINE, running
from tests.gdb.replays import record_demo
from tests.guests import ROOT
from timevm.demo import SESSION
from timevm.guests import DEMO_AARCH64

SCRIPT = ROOT / "examples" / "find_writer.py"
README = ROOT / "examples" / "README.md"
#: the damaged header, and the moment and place of the guilty write
CELL, MOMENT, PLACE = 0x40089060, 3850570, "40081534"


@pytest_asyncio.fixture
async def socket(tmp_path: Path) -> AsyncIterator[Path]:
    """Of a replay before its first instruction."""
    record_demo(tmp_path / "demo.rr", SESSION)
    arguments = ["-M", "virt", "-m", "16", "-kernel", str(DEMO_AARCH64), "-nodefaults", "-display", "none", "-S"]
    arguments += ["-icount", "shift=3,rr=replay,rrfile=demo.rr", "-qmp", "unix:qmp.sock,server=on,wait=off"]
    async with running(arguments, tmp_path) as daemon:
        path = tmp_path / "qmp.sock"
        await daemon.until(path.exists, "there was a socket")
        yield path


async def ask(*arguments: str | Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPT), *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), DEADLINE)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def position(path: Path) -> int:
    """Where the replay stands."""
    from qemu.qmp import QMPClient

    client = QMPClient("test")
    await client.connect(str(path))
    answer = await client.execute("query-replay")
    await client.disconnect()
    assert isinstance(answer, dict)
    return int(answer["icount"])


async def test_the_last_writes(socket: Path) -> None:
    code, output, errors = await ask("--at", "end", "--times", "3", "--length", "4", socket, hex(CELL))
    assert code == 0 and errors == ""
    found = re.findall(
        r"^instruction +(\d+)  writes to (0x[0-9a-f]+):  0x([0-9a-f]+): .* (\w+) +", output, re.MULTILINE
    )
    assert len(found) == 3 and found[0][:3] == (str(MOMENT), hex(CELL), PLACE) and "strb" in output
    moments = [int(line[0]) for line in found]
    assert moments == sorted(moments, reverse=True) and len(set(moments)) == 3
    assert await position(socket) == 0, "the machine is where it was"
    assert f"<!-- writers -->\n```text\n{output}```\n" in README.read_text(), "examples/README.md shows another answer"


async def test_from_a_moment(socket: Path) -> None:
    code, output, _ = await ask("--at", str(MOMENT), "--length", "4", socket, hex(CELL))
    assert code == 0 and f"{MOMENT}" not in output and output.startswith("instruction")


async def test_nothing_before_the_start(socket: Path) -> None:
    code, output, _ = await ask("--times", "5", socket, hex(CELL))
    assert code == 0 and output.startswith("before that, nobody has written to 0x40089060")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--at", "99999999999"), "cannot seek to the specified instruction count"),
        (("--length", "0"), "length must be at least 1"),
    ],
)
async def test_what_cannot_be(socket: Path, arguments: tuple[str, ...], message: str) -> None:
    code, output, errors = await ask(*arguments, socket, hex(CELL))
    assert code == 1 and output == "" and message in errors and len(errors.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("--at", "nowhere"), ("--times", "nowhere"), ("--length", "nowhere")])
async def test_what_is_no_number(socket: Path, arguments: tuple[str, ...]) -> None:
    code, output, errors = await ask(*arguments, socket, hex(CELL))
    assert code == 2 and output == "" and errors.endswith(f"argument {arguments[0]}: 'nowhere' is not a number\n")


async def test_nobody_there(tmp_path: Path) -> None:
    code, _, errors = await ask(tmp_path / "qmp.sock", "0x1000")
    assert code == 1 and errors.startswith("find_writer: ") and "Traceback" not in errors
