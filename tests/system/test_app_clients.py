"""Two hundred bad clients while a guest is recorded: it goes on, a good client is answered, memory is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.daemon import DEADLINE, irq_guest, qmp, run, running

#: of each kind at each of the four places
ROUNDS = 10
#: bytes that all of them together may cost: their unread bytes are bounded (see MAX_UNREAD and its like), 200 of them
MOST_MEMORY = 256 << 20

#: by which the guest, the monitor or the terminal would end in order
ENDS = b"q\x01"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def come_and_go() -> bytes:
    return b""


def half_close() -> bytes:
    return b'{"execute":"qmp_capabilities"}\ninfo status\n'


def flood() -> bytes:
    """Requests whose answers nobody reads."""
    return b'{"execute":"qmp_capabilities"}' + b'{"execute":"query-qmp-schema"}\ninfo registers\n' * 3000


def eight_megabytes() -> bytes:
    return b'{"execute":"' + b"a" * (8 << 20)


def garbage() -> bytes:
    return random.Random(1).randbytes(1 << 18).translate(None, ENDS)


BAD: tuple[Callable[[], bytes], ...] = (come_and_go, half_close, flood, eight_megabytes, garbage)


def misbehave(bad: Callable[[], bytes], place: str, writer: asyncio.StreamWriter) -> None:
    data = bad()
    writer.write(data.translate(None, ENDS) if place == "serial" else data)
    if bad is half_close:
        writer.write_eof()
    if bad is come_and_go:
        writer.close()


def memory(pid: int) -> int:
    """Bytes of the process in RAM at most so far."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


async def test_two_hundred_bad_clients(tmp_path: Path) -> None:
    places = ("qmp", "hmp", "gdb", "serial")
    guest = [*irq_guest(), "-icount", "shift=3,rr=record,rrfile=run.rr", "-qmp", "unix:good,server=on,wait=off"]
    guest += ["-qmp", "unix:qmp,server=on,wait=off", "-monitor", "unix:hmp,server=on,wait=off"]
    guest += ["-gdb", "unix:gdb,server=on,wait=off", "-chardev", "file,id=s,path=console"]
    guest += ["-serial", "mon:unix:serial,server=on,wait=off"]
    async with running(guest, tmp_path) as daemon, qmp(daemon, tmp_path / "good") as client:
        before, icount = memory(daemon.process.pid), -1
        opened: list[Streams] = []
        for round_ in range(ROUNDS):
            for place in places:
                for bad in BAD:
                    with contextlib.suppress(OSError):
                        streams = await asyncio.open_unix_connection(str(tmp_path / place), limit=1024)
                        opened.append(streams)
                        misbehave(bad, place, streams[1])
            async with asyncio.timeout(DEADLINE):
                position: Any = await client.execute("query-replay")
                await client.execute("cont")  # gdb stops the machine for every client that connects
            assert position["icount"] >= icount, f"round {round_}"
            icount = position["icount"]
        async with asyncio.timeout(DEADLINE):
            while (await client.execute("query-replay"))["icount"] <= icount:  # type: ignore[index]
                await client.execute("cont")
        assert len(opened) == ROUNDS * len(places) * len(BAD) == 200
        assert memory(daemon.process.pid) - before < MOST_MEMORY
        for _, writer in opened:
            writer.transport.abort()
        async with asyncio.timeout(DEADLINE):
            await client.execute("quit")
        assert await daemon.ends() == 0, daemon.errors
        assert "Traceback" not in daemon.errors and "bug" not in daemon.errors
    checked = run(["log", "verify", str(tmp_path / "run.rr")], "main")
    assert checked.returncode == 0, checked
    assert run([*irq_guest(), "-icount", "shift=3,rr=replay,rrfile=run.rr"], cwd=tmp_path).returncode == 0
