"""The server on real sockets: Ctrl-C at any time, several clients, clients that vanish, garbage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gdb.client import DEADLINE, Client, served
from tests.gdb.toy_guest import Toy, pc_at, toy
from tests.monitor.toy_vm import RAM
from timevm.engine.control.port import ReplayMode, Stops
from timevm.engine.control.run_state import RunState
from timevm.engine.control.vm import OverReason
from timevm.errors import UserError
from timevm.gdb.framing import pack
from timevm.gdb.parse import ROWS

PC = 32


async def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
        await asyncio.sleep(0.001)


def state(machine: Toy) -> RunState:
    return machine.vm.run_state


async def test_ctrl_c_while_it_runs() -> None:
    async with toy(ReplayMode.NONE, None) as machine, served(machine.vm) as server:
        client = await server.connect()
        client.send(b"c")
        await until(lambda: state(machine) is RunState.RUNNING, "it runs")
        client.writer.write(b"\x03")
        assert await client.receive() == b"T02thread:01;"
        assert state(machine) is RunState.PAUSED
        # the interrupt may come together with what it interrupts
        client.writer.write(pack(b"c") + b"\x03")
        assert await client.receive() == b"T02thread:01;"
        # when nothing is under way it means nothing
        client.writer.write(b"\x03\x03" + pack(b"?"))
        assert await client.receive() == b"T05thread:01;"
        assert await client.ask(b"s") == b"T05thread:01;"
        client.close()


async def test_ctrl_c_while_it_goes_back_leaves_it_where_it_was() -> None:
    async with toy() as machine, served(machine.vm) as server:
        client = await server.connect()
        await machine.vm.seek(500)
        machine.timeline.blocked.set()
        client.send(b"bc")
        await until(machine.timeline.searching.is_set, "it searches")
        client.writer.write(b"\x03")
        assert await client.receive() == b"T02thread:01;"
        assert await client.register(PC) == pc_at(500)
        machine.timeline.blocked.clear()
        assert await client.ask(b"bc") == b"T05replaylog:begin;thread:01;"
        client.close()


async def test_another_client_is_refused_with_a_sentence_and_may_come_later() -> None:
    async with toy() as machine, served(machine.vm) as server:
        first = await server.connect()
        assert await first.ask(b"?") == b"T05thread:01;"
        second = await server.connect()
        assert await second.ask(b"qSupported:swbreak+") == b"E.another debugger is connected to this machine"
        second.send(b"vMustReplyEmpty")
        second.close()
        assert await first.register(PC) == pc_at(0)
        first.close()
        third = await server.connect()
        assert await third.ask(b"?") == b"T05thread:01;"
        third.close()


async def test_a_refused_client_is_not_kept_for_ever() -> None:
    async with toy() as machine, served(machine.vm) as server:
        first = await server.connect()
        await first.ask(b"?")
        second = await server.connect()
        with pytest.raises(ConnectionError):
            for _ in range(100):
                await second.ask(b"g")
        first.close()


async def test_what_was_asked_before_half_closing_is_answered() -> None:
    async with toy(ReplayMode.NONE, None) as machine, served(machine.vm) as server:
        client = await server.connect()
        client.acknowledging = False
        client.writer.write(pack(b"qC") * 20 + pack(b"s") + pack(b"qTimevm.Icount"))
        client.writer.write_eof()
        for _ in range(20):
            assert await client.receive() == b"QC01"
        # it is not set in motion for one who may be gone, and nobody's seat is kept for it
        client.writer.close()
        other = await server.connect()
        other.writer.write(pack(b"c"))
        other.writer.write_eof()
        third = await server.connect()
        assert await third.ask(b"?") == b"T05thread:01;"
        third.close()


async def test_nothing_is_left_of_a_client_that_vanished() -> None:
    async with toy() as machine, served(machine.vm) as server:
        client = await server.connect()
        assert await client.ask(b"Z0,%x,4" % pc_at(50)) == b"OK"
        assert await client.ask(b"Z2,%x,4" % RAM) == b"OK"
        assert machine.vm.stops != Stops()
        client.writer.transport.abort()
        await until(lambda: machine.vm.stops == Stops(), "its stops are gone")
        assert state(machine) is RunState.PRELAUNCH


async def test_a_client_that_vanishes_while_the_machine_goes_back() -> None:
    async with toy() as machine, served(machine.vm) as server:
        client = await server.connect()
        await machine.vm.seek(500)
        await client.ask(b"Z0,%x,4" % pc_at(50))
        machine.timeline.blocked.set()
        client.send(b"bc")
        await until(machine.timeline.searching.is_set, "it searches")
        client.writer.transport.abort()
        await until(lambda: machine.vm.stops == Stops(), "its stops are gone")
        assert (await machine.vm.replay_info()).icount == 500
        again = await server.connect()
        assert await again.register(PC) == pc_at(500)
        again.close()


async def test_a_client_that_vanishes_while_the_machine_runs_lets_it_run() -> None:
    async with toy(ReplayMode.NONE, None) as machine, served(machine.vm) as server:
        client = await server.connect()
        client.send(b"c")
        await until(lambda: state(machine) is RunState.RUNNING, "it runs")
        client.writer.transport.abort()
        await asyncio.sleep(0.05)
        assert state(machine) is RunState.RUNNING
        # whoever comes next finds it standing, as with QEMU
        again = await server.connect()
        assert await again.ask(b"?") == b"T05thread:01;"
        assert state(machine) is RunState.PAUSED
        again.close()


async def test_detach_lets_it_run_and_attaching_again_stops_it() -> None:
    async with toy(ReplayMode.NONE, None) as machine, served(machine.vm) as server:
        client = await server.connect()
        await client.ask(b"Z0,%x,4" % pc_at(1 << 40))
        assert await client.ask(b"D") == b"OK"
        assert state(machine) is RunState.RUNNING and machine.vm.stops == Stops()
        assert await client.ask(b"vAttach;1") == b"T05thread:01;"
        assert state(machine) is RunState.PAUSED
        client.close()


@pytest.mark.parametrize("packet", [b"k", b"vKill;1"])
async def test_kill_ends_the_machine(packet: bytes) -> None:
    async with toy() as machine, served(machine.vm) as server:
        client = await server.connect()
        client.send(packet)
        assert (await asyncio.wait_for(machine.vm.over, DEADLINE)).reason is OverReason.QUIT
        if packet != b"k":
            assert await client.receive() == b"OK"
        with pytest.raises(ConnectionError):
            await client.receive()


async def test_a_machine_that_goes_away_says_so_to_who_waits() -> None:
    async with toy(ReplayMode.NONE, None) as machine:
        async with served(machine.vm) as server:
            client = await server.connect()
            client.send(b"c")
            await until(lambda: state(machine) is RunState.RUNNING, "it runs")
        assert await client.receive() == b"W00"


async def test_without_acknowledgements() -> None:
    async with toy() as machine, served(machine.vm) as server:
        client = await server.connect()
        assert await client.ask(b"QStartNoAckMode") == b"OK"
        assert client.verdicts == "+"
        client.acknowledging = False
        assert await client.ask(b"?") == b"T05thread:01;"
        assert client.verdicts == "+"
        client.writer.write(b"$?#00")
        assert await client.ask(b"qC") == b"QC01"
        assert client.verdicts == "+"
        client.close()


async def test_a_damaged_packet_is_asked_for_again() -> None:
    async with toy() as machine, served(machine.vm) as server:
        client = await server.connect()
        client.writer.write(b"$?#00")
        assert await client.ask(b"?") == b"T05thread:01;"
        assert client.verdicts == "-+"
        client.close()


async def test_a_packet_that_is_too_long() -> None:
    async with toy() as machine, served(machine.vm) as server:
        client = await server.connect()
        assert await client.ask(b"X40000000,8000:" + b"a" * 0x8000) == b"E22"
        assert await client.ask(b"?") == b"T05thread:01;"
        client.close()


async def test_documents_in_parts() -> None:
    async with toy() as machine, served(machine.vm) as server:
        client = await server.connect()
        target = await client.document(b"features:read:target.xml")
        assert '<feature name="org.gnu.gdb.aarch64.core">' in target and target.count("<reg ") == 34
        regions = await client.document(b"memory-map:read:")
        assert f'start="{RAM:#x}" length="0x10000"' in regions
        assert '<thread id="01" core="0">' in await client.document(b"threads:read:")
        client.close()


async def test_clients_that_do_not_read() -> None:
    """Neither packets that are to be sent again nor requests to send again pile up answers."""
    async with toy() as machine, served(machine.vm) as server:
        for flood in (b"$#ff" * 1000, b"-" * 4000, pack(b"g") * 1000):
            client = await server.connect()
            client.send(b"qXfer:features:read:target.xml:0,4000")
            transport = client.writer.transport
            transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(200):
                client.writer.write(flood)
            await asyncio.sleep(0.05)
            transport.abort()
        end = time.monotonic() + DEADLINE
        while True:
            again = await server.connect()
            answer = await again.ask(b"?")
            again.close()
            if answer == b"T05thread:01;":
                break
            assert time.monotonic() < end, answer


# -- the monitor


async def test_monitor_commands_and_a_machine_that_they_move() -> None:
    async with toy() as machine:

        async def monitor(line: str) -> str:
            match line.split():
                case ["seek", icount]:
                    await machine.vm.seek(int(icount))
                    return ""
                case ["fail"]:
                    raise UserError("that cannot be done")
                case _:
                    return "x" * 20000 + "\n"

        def ended(answer: bytes) -> bool:
            return answer[:1] != b"O" or answer == b"OK"

        def text(answers: list[bytes]) -> str:
            return b"".join(bytes.fromhex(answer[1:].decode()) for answer in answers[:-1]).decode()

        async with served(machine.vm, monitor) as server:
            client = await server.connect()
            answers = await client.ask_all(b"qRcmd," + b"long".hex().encode(), ended)
            assert text(answers) == "x" * 20000 + "\n" and answers[-1] == b"OK"
            answers = await client.ask_all(b"qRcmd," + b"seek 300".hex().encode(), ended)
            assert "the machine is at another moment now (instruction 300)" in text(answers)
            assert await client.register(PC) == pc_at(300)
            assert await client.ask(b"qTimevm.Icount") == b"12c"
            answers = await client.ask_all(b"qRcmd," + b"fail".hex().encode(), ended)
            assert text(answers) == "that cannot be done\n" and answers[-1] == b"E01"
            # a client with timevm's helper looks again by itself
            assert await client.ask(b"QTimevm.Refreshes") == b"OK"
            assert await client.ask_all(b"qRcmd," + b"seek 400".hex().encode(), ended) == [b"OK"]
            client.close()


async def test_ctrl_c_ends_a_monitor_command() -> None:
    async with toy() as machine:

        async def monitor(line: str) -> str:
            await machine.vm.reverse_continue()
            return ""

        async with served(machine.vm, monitor) as server:
            client = await server.connect()
            machine.timeline.blocked.set()
            client.send(b"qRcmd,00")
            await until(machine.timeline.searching.is_set, "it searches")
            client.writer.write(b"\x03")
            assert await client.receive() == b"OK"
            client.close()


async def test_without_a_monitor() -> None:
    async with toy() as machine, served(machine.vm) as server:
        client = await server.connect()
        assert await client.ask(b"qRcmd,00") == b""
        client.close()


# -- garbage

#: what a session with garbage may hold: known words with bad rests, noise, interrupts
_WORDS = [row.word for row in ROWS if row.word not in (b"k", b"vKill;")]
_garbage = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.builds(lambda word, rest: pack(word + rest), st.sampled_from(_WORDS), st.binary(max_size=20)),
        st.builds(
            lambda word, rest: pack(word + rest.encode()),
            st.sampled_from(_WORDS),
            st.text("0123456789abcdef,;:-=", max_size=20),
        ),
        st.just(b"\x03"),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_garbage, st.sampled_from(list(ReplayMode)))
def test_a_session_survives_garbage(pieces: list[bytes], mode: ReplayMode) -> None:
    async def session() -> None:
        async with toy(mode, 1000) as machine, served(machine.vm) as server:
            client = await server.connect()
            for piece in pieces:
                client.writer.write(piece)
            # whatever is half-said ends here; then a question is answered
            client.writer.write(b"#00#00")
            await _survives(machine, client)

    asyncio.run(session())


async def _survives(machine: Toy, client: Client) -> None:
    client.send(b"qTimevm.Icount")
    client.writer.write(b"\x03")
    async with asyncio.timeout(DEADLINE):
        while True:
            answer = await client.receive()
            if answer == b"%x" % (await machine.vm.replay_info()).icount:
                break
            client.send(b"qTimevm.Icount")  # one that detached let it run on meanwhile
    client.close()
