"""Linux boots under record while two hundred bad clients come to the monitors, and one good client asks all the time.

``python -m benchmarks.clients FOLDER`` prints JSON: how much slower the guest is than without them (in percent of CPU
time of its thread and of wall time), the good client's answers in ms, the process's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import statistics
import time
from pathlib import Path
from typing import Any

from tests.daemon import Daemon
from tests.guests import linux_arm64

CLIENTS, PAIRS, PATIENCE = 200, 3, 240.0
_NEGOTIATE = b'{"execute":"qmp_capabilities"}'


def _start(folder: Path) -> Daemon:
    guest = linux_arm64()
    folder.mkdir()
    arguments = ["-M", "virt", "-m", "512", "-nodefaults", "-display", "none", "-serial", "stdio"]
    arguments += ["-kernel", str(guest.kernel), "-initrd", str(guest.initrd)]
    arguments += ["-append", "console=ttyAMA0 quiet nokaslr tvm=basic,off"]
    arguments += ["-icount", "shift=2,rr=record,rrfile=run.rr"]
    arguments += ["-qmp", "unix:good,server=on,wait=off", "-qmp", "unix:qmp,server=on,wait=off"]
    return Daemon([*arguments, "-monitor", "unix:hmp,server=on,wait=off"], folder)


async def _bad_clients(folder: Path, seconds: float) -> None:
    """Evenly over ``seconds``."""
    chance = random.Random(1)
    opened = []
    for number in range(CLIENTS):
        place = str(folder / ("qmp" if number % 2 else "hmp"))
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_unix_connection(place, limit=1024)
            opened.append(writer)
            match number // 2 % 5:
                case 0:
                    writer.close()
                case 1:
                    writer.write_eof()
                case 2:
                    writer.write(_NEGOTIATE + b'{"execute":"query-qmp-schema"}\ninfo registers\n' * 300)
                case 3:
                    writer.write(b'{"execute":"' + b"a" * (8 << 20))
                case _:
                    writer.write(chance.randbytes(1 << 17).translate(None, b"qs"))  # quit, stop
        await asyncio.sleep(seconds / CLIENTS)
    for writer in opened:
        writer.transport.abort()


async def _good_client(path: Path) -> list[float]:
    """Until it is cut off; seconds of each answer."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 20)
    await reader.readline()
    writer.write(_NEGOTIATE)
    await reader.readline()
    answers: list[float] = []
    with contextlib.suppress(OSError):
        while True:
            begin = time.perf_counter()
            writer.write(b'{"execute":"query-replay"}')
            line = await reader.readline()
            while line and b'"event"' in line:
                line = await reader.readline()
            if not line:
                break
            answers.append(time.perf_counter() - begin)
            await asyncio.sleep(0.02)
    return answers


def _memory(pid: int) -> float:
    """MiB at most so far."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found is not None else 0.0


def _guest_seconds(pid: int) -> float:
    """CPU time of the thread that has used most: it runs the guest."""
    ticks = [0]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            ticks.append(int(fields[11]) + int(fields[12]))
    return max(ticks) / os.sysconf("SC_CLK_TCK")


async def _boot(folder: Path, *, bothered_for: float | None) -> dict[str, Any]:
    begin = time.perf_counter()
    daemon = _start(folder)
    try:
        await daemon.until((folder / "hmp").exists, "there were monitors")
        good = asyncio.create_task(_good_client(folder / "good"))
        bad = asyncio.create_task(_bad_clients(folder, bothered_for or 0)) if bothered_for else None
        guest, memory = 0.0, 0.0
        while daemon.process.poll() is None:
            guest, memory = max(guest, _guest_seconds(daemon.process.pid)), _memory(daemon.process.pid) or memory
            assert time.perf_counter() - begin < PATIENCE, "the guest never ended"
            await asyncio.sleep(0.1)
        assert daemon.process.returncode == 0 and b"TIMEVM-GUEST off" in daemon.output, daemon.errors
        if bad is not None:
            bad.cancel()
            await asyncio.gather(bad, return_exceptions=True)
        return {"wall": time.perf_counter() - begin, "guest": guest, "memory": memory, "answers": sorted(await good)}
    finally:
        daemon.close()


async def measure(folder: Path) -> dict[str, float]:
    """Of ``PAIRS`` boots alone and bothered, in turn: medians, and every answer of the bothered ones."""
    alone, bothered = [], []
    for number in range(PAIRS):
        alone.append(await _boot(folder / f"alone{number}", bothered_for=None))
        bothered.append(await _boot(folder / f"bothered{number}", bothered_for=alone[-1]["wall"] * 0.8))

    def slower(what: str) -> float:
        quiet, busy = (statistics.median(boot[what] for boot in boots) for boots in (alone, bothered))
        return float(busy / quiet - 1) * 100

    answers = sorted(answer for boot in bothered for answer in boot["answers"])
    return {
        "guest slower %": slower("guest"),
        "wall slower %": slower("wall"),
        "answer, median ms": answers[len(answers) // 2] * 1e3,
        "answer, 99 % ms": answers[len(answers) * 99 // 100] * 1e3,
        "answer, worst ms": answers[-1] * 1e3,
        "peak MiB more": max(boot["memory"] for boot in bothered) - max(boot["memory"] for boot in alone),
    }


if __name__ == "__main__":
    os.environ.pop("PYTHONASYNCIODEBUG", None)  # the daemon is measured as users run it
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="an empty folder for recordings and sockets")
    print(json.dumps(asyncio.run(measure(parser.parse_args().folder))))
