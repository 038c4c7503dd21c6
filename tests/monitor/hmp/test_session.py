"""The human monitor over real connections: raw sockets, socat, telnet in a real terminal (tmux)."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.monitor.toy_vm import RAM, ToyVm
from tests.peers import need
from tests.tmux import Tmux
from timevm.engine.control.port import ReplayMode
from timevm.engine.control.run_state import RunState
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.endpoint import SocketEndpoint
from timevm.monitor.hmp import session as session_module
from timevm.monitor.hmp.lines import Interrupt, Line, LineReader
from timevm.monitor.hmp.server import run_hmp_server
from timevm.monitor.hmp.telnet import EchoAccepted, TelnetServer, TerminalNamed, WindowSized

DEADLINE = 20
BANNER = b"timevm monitor - type 'help' for more information\r\n(timevm) "


@contextlib.asynccontextmanager
async def served(context: MonitorContext, endpoint: SocketEndpoint) -> AsyncIterator[Any]:
    ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run_hmp_server(endpoint, context, ready.set_result))
    try:
        yield await asyncio.wait_for(ready, DEADLINE)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_plain_client_gets_plain_lines_at_once(tmp_path: Path) -> None:
    async with served(MonitorContext(ToyVm()), SocketEndpoint(path=str(tmp_path / "hmp"))) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        assert await asyncio.wait_for(reader.readexactly(len(BANNER)), DEADLINE) == BANNER
        writer.write(b"info status\r\n")
        expected = b"VM status: paused (prelaunch)\r\n(timevm) "
        assert await asyncio.wait_for(reader.readexactly(len(expected)), DEADLINE) == expected
        writer.write(b"foo\ninfo na")
        writer.write(b"me\r")
        writer.write_eof()
        rest = await asyncio.wait_for(reader.read(), DEADLINE)
        assert rest == b"unknown command: 'foo'\r\n(timevm) fred\r\n(timevm) "
        writer.close()


async def test_an_answer_of_megabytes_comes_whole_and_the_session_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than what may wait for a client who does not read (``info tlb`` of a Linux has eight megabytes)."""
    for name in ("MAX_UNREAD", "PIECE"):  # the toy's memory is small: a hundredth of everything
        monkeypatch.setattr(session_module, name, getattr(session_module, name) // 100)
    words = 16_384
    async with served(MonitorContext(ToyVm()), SocketEndpoint(path=str(tmp_path / "hmp"))) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        await asyncio.wait_for(reader.readexactly(len(BANNER)), DEADLINE)
        writer.write(f"xp/{words}xb {RAM:#x}\ninfo name\n".encode())
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), DEADLINE)
        assert len(answer) > 5 * session_module.MAX_UNREAD and answer.count(b"\r\n") == words // 8 + 1
        assert answer.endswith(b"\r\n(timevm) fred\r\n(timevm) ")
        writer.close()


async def test_prompt_of_qemu_for_scripts_that_wait_for_it(tmp_path: Path) -> None:
    context = MonitorContext(ToyVm(), prompt="(qemu) ")
    async with served(context, SocketEndpoint(path=str(tmp_path / "hmp"))) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        greeting = await asyncio.wait_for(reader.readuntil(b"(qemu) "), DEADLINE)
        assert greeting == b"QEMU 7.2.0 monitor - type 'help' for more information\r\n(qemu) "
        writer.close()


async def test_ctrl_c_cancels_what_takes_long(tmp_path: Path) -> None:
    vm = ToyVm(ReplayMode.PLAY, end=1000)
    vm.may_arrive.clear()
    vm.run_state = RunState.PAUSED
    async with served(MonitorContext(vm), SocketEndpoint(path=str(tmp_path / "hmp"))) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        await asyncio.wait_for(reader.readexactly(len(BANNER)), DEADLINE)
        with vm.subscribe() as events:
            writer.write(b"replay_seek 500\n")
            assert (await asyncio.wait_for(anext(events), DEADLINE)).name == "RESUME"
            writer.write(b"\x03")
            assert (await asyncio.wait_for(anext(events), DEADLINE)).name == "STOP"
        assert vm.calls[-1] == "stop"
        vm.may_arrive.set()
        writer.close()


async def test_socat_asks_and_is_answered(tmp_path: Path) -> None:
    socat = need("socat")
    async with served(MonitorContext(ToyVm()), SocketEndpoint(path=str(tmp_path / "hmp"))) as path:
        process = await asyncio.create_subprocess_exec(
            socat, "-t5", "-", f"UNIX-CONNECT:{path}", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        printed, _ = await asyncio.wait_for(process.communicate(b"info name\ninfo version\n"), DEADLINE)
        assert printed == BANNER + b"fred\r\n(timevm) 7.2.0 (timevm 0.1.0)\r\n(timevm) "


async def test_many_clients_and_one_that_floods(tmp_path: Path) -> None:
    async with served(MonitorContext(ToyVm()), SocketEndpoint(path=str(tmp_path / "hmp"))) as path:
        flooders = []
        for _ in range(50):
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(b"info registers\n" * 2000 + b"\xff\xfe" + bytes(range(256)) * 40)
            flooders.append(writer)
        reader, writer = await asyncio.open_unix_connection(path)
        await asyncio.wait_for(reader.readexactly(len(BANNER)), DEADLINE)
        writer.write(b"info name\n")
        assert await asyncio.wait_for(reader.readline(), DEADLINE) == b"fred\r\n"
        for flooder in flooders:
            flooder.transport.abort()
        writer.close()


# -- the cores


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_lines_come_out_the_same_byte_by_byte(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    whole, single = LineReader(), LineReader()
    whole.echo = single.echo = True
    found = [item for index in range(len(data)) for item in single.feed(data[index : index + 1])]
    assert whole.feed(data) == found
    assert whole.take_echo() == single.take_echo()


def test_line_endings_editing_and_echo() -> None:
    lines = LineReader()
    lines.echo = True
    found = lines.feed("a\r\nb\nc\r\0d\x7fä\x08e\r".encode())
    assert found == [Line("a"), Line("b"), Line("c"), Line("e")]
    assert lines.take_echo().startswith(b"a\r\nb\r\nc\r\nd\x08 \x08")
    assert lines.feed(b"junk\x03") == [Interrupt()]
    assert lines.feed(b"x" * 5000 + b"\nok\n") == [Line("x" * 4096, too_long=True), Line("ok")]


NEGOTIATION = (
    b"\xff\xfd\x01\xff\xfd\x03\xff\xfb\x18\xff\xfb\x1f\xff\xfa\x1f\x00\x50\x00\x18\xff\xf0"
    b"hi\xff\xff\xff\xfa\x18\x00XTERM\xff\xf0\xff\xfb\x22!"
)


def test_telnet_negotiation() -> None:
    expected = [EchoAccepted(), WindowSized(80, 24), b"hi\xff", TerminalNamed("xterm"), b"!"]
    telnet = TelnetServer()
    assert telnet.feed(NEGOTIATION) == expected
    assert telnet.take_replies() == b"\xff\xfa\x18\x01\xff\xf0" + b"\xff\xfe\x22"
    single = TelnetServer()
    events = [event for byte in NEGOTIATION for event in single.feed(bytes((byte,)))]
    assert [event for event in events if not isinstance(event, bytes)] == [
        event for event in expected if not isinstance(event, bytes)
    ]
    assert b"".join(event for event in events if isinstance(event, bytes)) == b"hi\xff!"


@given(st.binary(max_size=300))
def test_telnet_garbage(garbage: bytes) -> None:
    telnet = TelnetServer()
    telnet.feed(garbage)
    assert len(telnet.take_replies()) <= 6 * len(garbage)


# -- a real telnet in a real terminal


@pytest.fixture
def in_tmux() -> Iterator[Callable[[str], Tmux]]:
    need("telnet")
    opened: list[Tmux] = []

    def opener(command: str) -> Tmux:
        opened.append(Tmux(command))
        return opened[-1]

    yield opener
    for tmux in opened:
        tmux.close()


async def test_telnet_in_a_terminal_gets_the_console(in_tmux: Callable[[str], Tmux]) -> None:
    vm = ToyVm(ReplayMode.PLAY, end=1000)
    vm.machine.go_to(250)
    await vm.save_snapshot("before-crash")
    vm.run_state = RunState.PAUSED
    async with served(MonitorContext(vm), SocketEndpoint(port=0, telnet=True)) as (host, port):
        tmux = in_tmux(f"env TERM=xterm-256color telnet {host} {port}")
        await tmux.shows(r"paused ▶ replaying │ icount 250 │ 0\.000000 s │ \[█+◆─+\] 25 %")
        tmux.type("info repl", "Tab")
        await tmux.shows(r"info replay")
        tmux.type("Enter")
        await tmux.shows(r"Replaying execution 'boot\.rr': instruction count = 250")
        tmux.type("loadvm bef", "Tab")
        await tmux.shows(r"loadvm before-crash")
        tmux.type("C-u")
        tmux.type("replay_seek 500", "Enter")
        await tmux.shows(r"icount 500 │")
        tmux.type("nonsense", "Enter")
        await tmux.shows(r"\x1b\[31mnonsense\nunknown command: 'nonsense'\n\x1b\[39m", colours=True)
        tmux.type("Up", "Up", "Enter")
        await tmux.shows(r"icount 500 │")
        vm.may_arrive.clear()
        tmux.type("replay_seek 900", "Enter")
        deadline = time.monotonic() + DEADLINE
        while vm.run_state is not RunState.RUNNING:
            assert time.monotonic() < deadline, "the seek never began"
            await asyncio.sleep(0.01)
        vm.send("TIMEVM_PROGRESS", {"operation": "seek", "done": 50, "total": 100})
        await tmux.shows(r"seek \[█+─+\] Ctrl-C cancels")
        tmux.type("C-c")
        while vm.calls[-1] != "stop":
            assert time.monotonic() < deadline, "Ctrl-C was not heard"
            await asyncio.sleep(0.01)
        vm.may_arrive.set()
        await tmux.shows(r"icount 900 │")
        tmux.type("timeline", "Enter")
        await tmux.shows(r"(?m)^━{24}●━{62}◆─{10}$")  # as wide as the terminal, but for two columns


async def test_dumb_telnet_gets_echoed_lines(in_tmux: Callable[[str], Tmux]) -> None:
    async with served(MonitorContext(ToyVm()), SocketEndpoint(port=0, telnet=True)) as (host, port):
        tmux = in_tmux(f"env TERM=dumb telnet {host} {port}")
        await tmux.shows(r"\(timevm\)")
        tmux.type("info nami", "BSpace", "e", "Enter")
        await tmux.shows(r"(?m)^\(timevm\) info name\nfred\n\(timevm\)")
