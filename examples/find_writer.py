#!/usr/bin/env python3
"""Who wrote this memory last?  Asks a replaying timevm, over QMP; the machine is afterwards where it was.

    find_writer.py qmp.sock 0x40089060                    the last write before the moment at which the machine stands
    find_writer.py --at end --times 3 qmp.sock 0x40089060 the last three of the whole recording

Needs the package qemu.qmp.  timevm has been started with -icount …,rr=replay and -qmp unix:qmp.sock,server=on,wait=off.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError


def number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def moment(text: str) -> int | str:
    return text if text == "end" else number(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="who wrote this memory last?")
    parser.add_argument("socket", help="path of the QMP socket, or HOST:PORT")
    parser.add_argument("address", type=number, help="guest virtual address, e.g. 0x40089060")
    parser.add_argument("--length", type=number, default=8, help="bytes that are watched (default: 8)")
    parser.add_argument(
        "--times", type=number, default=1, help="so many writes, each before the one before (default: 1)"
    )
    parser.add_argument(
        "--at", type=moment, metavar="ICOUNT", help="look back from there, or from the 'end' (default: from here)"
    )
    return parser.parse_args()


async def seek(qmp: QMPClient, icount: int) -> None:
    """The command answers at once; the machine has arrived when it says STOP."""
    with qmp.listener("STOP") as stops:
        await qmp.execute("replay-seek", {"icount": icount})
        await stops.get()


async def last_writes(qmp: QMPClient, options: argparse.Namespace) -> None:
    await qmp.execute("stop")
    timeline: Any = await qmp.execute("x-timevm-timeline")
    moments = {mark["kind"]: mark["icount"] for mark in timeline["marks"]}
    if options.at is not None:
        await seek(qmp, moments["end"] if options.at == "end" else options.at)
    for _ in range(options.times):
        write: Any = await qmp.execute("x-timevm-last-write", {"address": options.address, "length": options.length})
        if write["reason"] != "watchpoint":
            print(f"before that, nobody has written to {options.address:#x} since the recording began")
            break
        line: Any = await qmp.execute("human-monitor-command", {"command-line": f"x/1i {write['pc']:#x}"})
        print(f"instruction {write['icount']:>9}  writes to {write['address']:#x}:  {line.strip()}")
        await seek(qmp, write["icount"])
    await seek(qmp, moments["now"])


async def main() -> int:
    options = arguments()
    host, colon, port = options.socket.rpartition(":")
    qmp = QMPClient("find_writer")
    try:
        await qmp.connect((host, int(port)) if colon and port.isdigit() else options.socket)
        try:
            await last_writes(qmp, options)
        finally:
            await qmp.disconnect()
    except ExecuteError as refusal:
        print(f"find_writer: {refusal}", file=sys.stderr)
        return 1
    except (QMPError, OSError, ValueError) as failure:
        print(f"find_writer: {options.socket}: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
