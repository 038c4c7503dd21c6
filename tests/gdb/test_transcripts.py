"""Sessions as data: each is fed as whole packets and byte by byte."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.gdb.client import Client, served
from tests.gdb.toy_guest import toy
from tests.gdb.transcript import FOLDER, Line, read_transcript


@pytest.mark.parametrize("slowly", [False, True], ids=["whole", "byte-by-byte"])
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: str(path.stem))
async def test_transcript(path: Path, slowly: bool) -> None:
    transcript = read_transcript(path)
    async with toy(transcript.mode, transcript.end) as machine, served(machine.vm) as server:
        client = await server.connect()
        for line in transcript.lines:
            if line.sent:
                await send(client, line, slowly)
            else:
                answer = await client.receive()
                assert line.fits(answer), f"{path.name}:{line.number}: {answer!r}"
        client.close()


async def send(client: Client, line: Line, slowly: bool) -> None:
    if not slowly:
        client.writer.write(line.wire)
        return
    for byte in line.wire:
        client.writer.write(bytes([byte]))
        await client.writer.drain()
        await asyncio.sleep(0)
