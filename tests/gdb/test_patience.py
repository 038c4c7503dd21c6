"""Monitor commands that take longer than gdb waits: lines meanwhile, Ctrl-C, and gdb's way of giving up."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.gdb.client import DEADLINE, Client, Served, served
from tests.gdb.toy_guest import Toy, pc_at, toy
from tests.peers import need
from timevm.engine.control import cpu_thread
from timevm.engine.control.run_state import RunState
from timevm.gdb import patience
from timevm.gdb import server as server_module
from timevm.gdb.unread import unread
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.hmp.line import run_hmp_line

HERE = 800
#: says that it is gdb
GDB = b"qSupported:swbreak+;qRelocInsn+"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is a twentieth."""
    monkeypatch.setattr(patience, "EVERY", 0.05)
    monkeypatch.setattr(cpu_thread, "PROGRESS_AFTER", 0.0)
    monkeypatch.setattr(cpu_thread, "PROGRESS_EVERY", 0.0)


class Slow:
    """A machine with a monitor: ``back`` goes back until ``let_go``, ``wait`` tells nothing meanwhile."""

    def __init__(self, machine: Toy) -> None:
        self.machine = machine
        self.may_end = asyncio.Event()
        self.begun = asyncio.Event()
        machine.timeline.blocked.set()

    def let_go(self) -> None:
        self.machine.timeline.blocked.clear()
        self.may_end.set()

    async def monitor(self, line: str) -> str:
        self.begun.set()
        match line.split():
            case ["back", *_]:
                result = await self.machine.vm.reverse_continue()
                return f"{result.end.name} at {result.icount}\n"
            case ["wait", *_]:
                await self.may_end.wait()
                return "waited\n"
            case _:
                return f"you said {line}\n"

    def moves(self) -> bool:
        return self.machine.vm.run_state is RunState.RUNNING


@asynccontextmanager
async def slow() -> AsyncIterator[tuple[Slow, Served]]:
    async with toy() as machine:
        await machine.vm.seek(HERE)
        made = Slow(machine)
        async with served(machine.vm, made.monitor) as server:
            yield made, server
        made.let_go()


def command(line: str) -> bytes:
    return b"qRcmd," + line.encode().hex().encode()


async def line_of(client: Client) -> str:
    """A line of console output."""
    packet = await client.receive()
    assert packet[:1] == b"O" and packet != b"OK", packet
    return bytes.fromhex(packet[1:].decode()).decode()


async def last_line_of(client: Client, end: bytes = b"OK") -> str:
    """Of all that comes before ``end``."""
    line = ""
    while (packet := await client.receive()) != end:
        line = bytes.fromhex(packet[1:].decode()).decode()
    return line


async def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
        await asyncio.sleep(0.001)


@pytest.mark.usefixtures("hurried")
async def test_how_far_it_is_is_told_until_it_is_done() -> None:
    async with slow() as (machine, server):
        client = await server.connect()
        client.send(command("back to the roots"))
        for _ in range(3):
            assert await line_of(client) == f"back: 25 %, {HERE // 4} of {HERE} instructions\n"
        machine.let_go()
        while (line := await line_of(client)) != "LIMIT at 0\n":
            assert line.startswith("back: 25 %")
        assert "another moment now (instruction 0)" in await last_line_of(client)
        client.close()


@pytest.mark.usefixtures("hurried")
async def test_what_has_no_progress_tells_the_time() -> None:
    async with slow() as (machine, server):
        client = await server.connect()
        client.send(command("wait"))
        for _ in range(3):
            assert await line_of(client) == "wait: 0 s\n"
        machine.let_go()
        assert await last_line_of(client) == "waited\n"
        client.close()


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("hello", [GDB, b"qSupported:swbreak+"])
async def test_an_interrupt_cancels_it(hello: bytes) -> None:
    async with slow() as (machine, server):
        client = await server.connect()
        await client.ask(hello)
        client.send(command("back"))
        await line_of(client)
        client.writer.write(b"\x03")
        assert await last_line_of(client) == f"KICKED at {HERE}\n"
        assert not machine.moves()
        client.close()


@pytest.mark.usefixtures("hurried")
async def test_gdb_that_asks_for_something_else_has_given_it_up() -> None:
    """It is not answered any more; gdb would take that for the other answer."""
    async with slow() as (machine, server):
        client = await server.connect()
        await client.ask(GDB)
        for line in ("back", "wait"):
            machine.may_end.clear()
            client.send(command(line))
            await line_of(client)
            client.send(b"qC")
            await asyncio.sleep(0)
            machine.may_end.set()
            packets = [await client.receive()]
            while packets[-1][:1] == b"O":
                packets.append(await client.receive())
            assert packets[-1] == b"QC01" and b"OK" not in packets
        assert await client.ask(b"?") == b"T05thread:01;"
        assert (await machine.machine.vm.replay_info()).icount == HERE
        client.close()


@pytest.mark.usefixtures("hurried")
async def test_others_may_ask_ahead() -> None:
    async with slow() as (machine, server):
        client = await server.connect()
        client.send(command("wait"))
        client.send(b"qC")
        await line_of(client)
        machine.let_go()
        assert await last_line_of(client) == "waited\n"
        assert await client.receive() == b"QC01"
        client.close()


@pytest.mark.usefixtures("hurried")
async def test_gdb_that_does_not_read_is_told_nothing_more_and_its_command_is_cancelled() -> None:
    """As it is at its prompt, after Ctrl-C."""
    async with slow() as (machine, server):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
        client = Client(reader, writer)
        await client.ask(GDB)
        await client.ask(b"QStartNoAckMode")
        client.acknowledging = False
        transport = writer.transport
        client.send(command("back"))
        await line_of(client)
        transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: not machine.moves(), "the command is cancelled")
        transport.resume_reading()  # type: ignore[attr-defined]
        # it was only busy: it reads on and has its answer
        assert await last_line_of(client) == f"KICKED at {HERE}\n"
        client.close()


@pytest.mark.usefixtures("hurried")
async def test_gdb_that_vanishes_leaves_its_seat() -> None:
    async with slow() as (machine, server):
        client = await server.connect()
        await client.ask(GDB)
        client.send(command("back"))
        await line_of(client)
        client.close()
        again = await server.connect()
        assert await again.ask(b"?") == b"T05thread:01;"
        assert not machine.moves()
        again.close()


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("hello", [GDB, b"qSupported:swbreak+"])
async def test_any_answer_may_take_its_time_with_gdb(hello: bytes) -> None:
    """The machine is being saved by somebody else: gdb hears notifications that mean nothing, others nothing."""
    async with toy() as machine, served(machine.vm) as server:
        client = await server.connect()
        await client.ask(hello)
        saved = threading.Event()
        saving = asyncio.ensure_future(machine.vm.inspect(lambda _: saved.wait(DEADLINE)))
        client.send(b"g")
        if hello == GDB:
            heard = await asyncio.wait_for(client.reader.readuntil(b"%Timevm:busy#6f"), DEADLINE)
            heard += await asyncio.wait_for(client.reader.readuntil(b"%Timevm:busy#6f"), DEADLINE)
            assert heard.replace(b"+", b"") == b"%Timevm:busy#6f" * 2
        saved.set()
        await saving
        assert len(await client.receive()) == 2 * (33 * 8 + 4)
        client.close()


@pytest.mark.parametrize("line", ["last_write 0x40000003", "find 0x40000008", "reverse_continue"])
async def test_a_search_that_was_cancelled_does_not_say_that_there_is_nothing(line: str) -> None:
    async with slow() as (machine, _):
        vm = machine.machine.vm
        work = asyncio.ensure_future(run_hmp_line(line, MonitorContext(vm)))
        await until(machine.machine.timeline.searching.is_set, "it searches")
        await vm.stop()
        assert (await work).startswith(f"instruction count = {HERE}: interrupted\n{pc_at(HERE):#010x}: ")


# -- whether somebody reads


@pytest.fixture(params=["127.0.0.1", "::1", "unix"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    unix = request.param == "unix"
    family = socket.AF_UNIX if unix else socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with closing(socket.socket(family)) as listener:
        try:
            listener.bind(str(tmp_path / "socket") if unix else (request.param, 0))
        except OSError:
            pytest.skip(f"this host has no {request.param}")
        listener.listen()
        with closing(socket.socket(family)) as client:
            client.connect(listener.getsockname())
            server = listener.accept()[0]
            with closing(server):
                yield server, client


def test_what_was_not_read(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    assert unread(server) == 0
    server.sendall(b"x" * 100)
    left = unread(server)
    assert left is not None and left >= 100
    client.recv(100)
    assert unread(server) == 0


def test_who_is_gone_or_of_another_host_is_not_known(pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    if server.family != socket.AF_UNIX:
        client.close()
        assert unread(server) is None
    server.close()
    assert unread(server) is None


# -- real gdb


async def gdb_at(server: Served) -> asyncio.subprocess.Process:
    """At its prompt, with commands from a pipe."""
    arguments = [need("gdb-multiarch"), "-nx", "-q", "-ex", "set pagination off", "-ex", "set confirm off"]
    arguments += ["-ex", "set remotetimeout 1", "-ex", "set architecture aarch64"]
    return await asyncio.create_subprocess_exec(
        *(*arguments, "-ex", f"target remote 127.0.0.1:{server.port}"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def shows(gdb: asyncio.subprocess.Process, *texts: str) -> str:
    """What it prints up to the line with the last of ``texts``, which come in this order."""
    assert gdb.stdout is not None
    output = ""
    async with asyncio.timeout(DEADLINE):
        for text in texts:
            while True:
                line = (await gdb.stdout.readline()).decode(errors="replace")
                assert line, f"gdb ended before it printed {text!r}: {output}"
                output += line
                if text in line:
                    break
    return output


def type_to(gdb: asyncio.subprocess.Process, *lines: str) -> None:
    assert gdb.stdin is not None
    gdb.stdin.write("".join(f"{line}\n" for line in lines).encode())


async def test_real_gdb_waits_as_long_as_it_takes() -> None:
    """It waits for one second, three times, and would complain then."""
    async with slow() as (machine, server):
        gdb = await gdb_at(server)
        type_to(gdb, "monitor wait", "monitor after")
        output = await shows(gdb, *(f"wait: {second} s" for second in range(1, 6)))
        machine.let_go()
        output += await shows(gdb, "waited", "you said after")
        type_to(gdb, "p $pc", "detach", "quit")
        output += (await asyncio.wait_for(gdb.communicate(), DEADLINE))[0].decode()
        assert "packet error" not in output and f"{pc_at(HERE):#x}" in output, output


async def test_ctrl_c_in_real_gdb_cancels_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it finds the machine where it was, its next question with the answer to it."""
    monkeypatch.setattr(patience, "EVERY", 0.5)
    async with slow() as (machine, server):
        gdb = await gdb_at(server)
        type_to(gdb, "monitor back")
        await shows(gdb, "back: ")
        gdb.send_signal(signal.SIGINT)
        await shows(gdb, "Quit")
        await until(lambda: not machine.moves(), "the command is cancelled, though nobody types anything")
        type_to(
            gdb, f"x/wx {pc_at(0):#x}", "monitor info", "tbreak *0x1000", "reverse-stepi", "p $pc", "detach", "quit"
        )
        output = (await asyncio.wait_for(gdb.communicate(), DEADLINE))[0].decode()
        assert f"you said info\n(gdb) Temporary breakpoint 1 at 0x1000\n(gdb) {pc_at(HERE - 1):#018x} in" in output
        assert "back: " not in output and "KICKED" not in output, output


async def test_ctrl_c_in_a_command_of_the_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    """``tvm timeline`` and the like are monitor commands, with hooks around them."""
    monkeypatch.setattr(patience, "EVERY", 0.5)
    async with slow() as (machine, server):
        gdb = await gdb_at(server)
        type_to(gdb, f"source {Path(server_module.__file__).with_name('gdbinit.py')}", "monitor back")
        await shows(gdb, "back: ")
        gdb.send_signal(signal.SIGINT)
        await until(lambda: not machine.moves(), "the command is cancelled")
        type_to(gdb, "tvm timeline", "print $icount()", "reverse-stepi", "print $_icount", "detach", "quit")
        output = (await asyncio.wait_for(gdb.communicate(), DEADLINE))[0].decode()
        assert "you said timeline\n" in output
        assert f"$1 = {HERE}\n" in output and f"$2 = {HERE - 1}\n" in output, output
