"""A bare client of the remote protocol for tests, and a served machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from timevm.engine.control.port import VmPort
from timevm.gdb.framing import Acknowledged, Packet, PacketReader, Refused, pack
from timevm.gdb.server import GdbServer

DEADLINE = 20.0


class Client:
    """Acknowledges as gdb does.  Every wait has a deadline."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._packets = PacketReader(1 << 20)
        self._waiting: list[bytes] = []
        self.acknowledging = True
        #: of our packets, in order: ``+`` or ``-``
        self.verdicts = ""

    async def receive(self) -> bytes:
        while not self._waiting:
            data = await asyncio.wait_for(self.reader.read(1 << 16), DEADLINE)
            if not data:
                raise ConnectionError("the server closed the connection")
            for item in self._packets.feed(data):
                match item:
                    case Packet(payload):
                        self._waiting.append(payload)
                        if self.acknowledging:
                            self.writer.write(b"+")
                    case Acknowledged():
                        self.verdicts += "+"
                    case Refused():
                        self.verdicts += "-"
                    case _:
                        raise AssertionError(f"the server sent {item}")
        return self._waiting.pop(0)

    def send(self, payload: bytes) -> None:
        self.writer.write(pack(payload))

    async def ask(self, payload: bytes) -> bytes:
        self.send(payload)
        return await self.receive()

    async def ask_all(self, payload: bytes, last: Callable[[bytes], bool]) -> list[bytes]:
        """With what comes before the last answer (console output)."""
        self.send(payload)
        answers = [await self.receive()]
        while not last(answers[-1]):
            answers.append(await self.receive())
        return answers

    async def document(self, name: bytes) -> str:
        text = b""
        while True:
            part = await self.ask(b"qXfer:%b:%x,100" % (name, len(text)))
            assert part[:1] in (b"m", b"l"), part
            text += part[1:]
            if part[:1] == b"l":
                return text.decode()

    async def register(self, number: int) -> int:
        return int.from_bytes(bytes.fromhex((await self.ask(b"p%x" % number)).decode()), "little")

    def close(self) -> None:
        self.writer.close()


class Served:
    """A gdb server on a TCP port of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def connect(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))


@contextlib.asynccontextmanager
async def served(vm: VmPort, monitor: Callable[[str], Awaitable[str]] | None = None) -> AsyncIterator[Served]:
    gdb = GdbServer(vm, monitor)
    failures: list[BaseException] = []
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await gdb.serve(reader, writer)
        except Exception as failure:  # noqa: BLE001 (the test fails with it)
            failures.append(failure)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(handle(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield Served(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not failures, failures
