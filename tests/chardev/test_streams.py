"""A device as streams: what a session has said goes out, however the session ends."""

from __future__ import annotations

import asyncio

import pytest

from timevm.chardev.streams import serve_device


class _SlowDevice:
    """Takes a piece at each turn of the loop that the test gives it; reads nothing, or ``typed`` and the end."""

    description = "slow"

    def __init__(self, typed: list[bytes]) -> None:
        self._typed = typed
        self.sent = b""
        self.may_send = asyncio.Event()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def receive(self) -> bytes:
        if self._typed:
            return self._typed.pop(0)
        await asyncio.Event().wait()
        return b""

    async def send(self, data: bytes) -> None:
        await self.may_send.wait()
        await asyncio.sleep(0)
        self.sent += data


ANSWER = b"an answer of more than one piece " * 400


@pytest.mark.parametrize("typed", [[b"quit\n", b""], [b"quit\n"]], ids=["input ends", "input stays"])
async def test_what_was_said_before_the_end_goes_out(typed: list[bytes]) -> None:
    device = _SlowDevice(typed)
    said = asyncio.Event()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read(100) == b"quit\n"
        writer.write(ANSWER)
        said.set()
        assert not await reader.read(100)  # waits for ever where the input stays

    serving = asyncio.create_task(serve_device(device, session))
    async with asyncio.timeout(10):
        await said.wait()
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the session has ended now, if its input has
        serving.cancel()
        await asyncio.sleep(0)
        device.may_send.set()
        with pytest.raises(asyncio.CancelledError):
            await serving
    assert device.sent == ANSWER


async def test_a_device_that_takes_nothing_holds_up_the_end_for_a_moment_only() -> None:
    device = _SlowDevice([b"quit\n"])

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWER)
        await reader.read(100)
        await asyncio.Event().wait()

    serving = asyncio.create_task(serve_device(device, session))
    await asyncio.sleep(0)
    serving.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await serving
    assert not device.sent
