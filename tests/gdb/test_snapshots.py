"""Snapshots in mid-session: what brings QEMU down, or leaves gdb with what has passed, does neither here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.gdb.client import Client
from tests.gdb.replays import Session, gdb, in_order, record_demo, replaying
from tests.gdb.test_gdbinit import HELPER
from tests.peers import need
from timevm.engine.machine.spec import Drive, MachineSpec

PC = 32
#: in the recording: in the middle of what the guest does
PLACE = 40_000


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    """The demo guest recorded with a disk that snapshots can go to."""
    image = tmp_path / "vm.qcow2"
    subprocess.run([need("qemu-img"), "create", "-q", "-f", "qcow2", image, "16M"], check=True, timeout=60)
    return record_demo(tmp_path / "demo.rr", drives=(Drive("vm", image, "qcow2"),))[0]


async def monitor(client: Client, line: str) -> str:
    answers = await client.ask_all(
        b"qRcmd," + line.encode().hex().encode(), lambda answer: answer[:1] != b"O" or answer == b"OK"
    )
    assert answers[-1] == b"OK", answers
    return b"".join(bytes.fromhex(answer[1:].decode()) for answer in answers[:-1]).decode()


async def icount(client: Client) -> int:
    return int(await client.ask(b"qTimevm.Icount"), 16)


async def attached(session: Session) -> Client:
    client = await session.server.connect()
    assert await client.ask(b"QTimevm.Refreshes") == b"OK"
    return client


async def test_snapshots_from_gdb_and_steps_both_ways(spec: MachineSpec) -> None:
    async with replaying(spec) as session:
        output = await gdb(
            session,
            [
                *(
                    HELPER,
                    "break do_push",
                    "continue",
                    "p $here = $_icount",
                    "monitor savevm a",
                    "monitor info snapshots",
                ),
                *(
                    "stepi 50",
                    "reverse-stepi 3",
                    "p $_icount - $here",
                    "monitor loadvm a",
                    "p $_icount - $here",
                    "bt 1",
                ),
                *("stepi", "reverse-stepi", "reverse-stepi", "p $_icount - $here", "reverse-continue"),
                *("monitor loadvm a", "reverse-stepi", "p $_icount - $here", "tvm seek end", "monitor loadvm a"),
                *("next", "reverse-next", "p $_icount - $here", "monitor delvm a", "monitor loadvm a"),
            ],
        )
    in_order(
        output,
        *("Breakpoint 1, do_push", "VM CLOCK", "--        a ", "$2 = 47", "$3 = 0", "do_push ()", "$4 = -1"),
        *("No more reverse-execution history", "$5 = -1", "power_off", "347\t", "346\t", "$6 = 0"),
        "Snapshot 'a' does not exist",
    )


async def test_two_loads_without_a_step_between(spec: MachineSpec) -> None:
    """QEMU 7.2: SIGSEGV."""
    async with replaying(spec) as session:
        client = await attached(session)
        assert await monitor(client, f"replay_seek {PLACE}") == ""
        assert await monitor(client, "savevm a") == ""
        assert await monitor(client, "loadvm a") == ""
        assert await monitor(client, "loadvm a") == ""
        assert await client.ask(b"bs") == b"T05thread:01;"
        assert await icount(client) == PLACE - 1
        client.close()


async def test_a_step_back_behind_a_savevm(spec: MachineSpec) -> None:
    """QEMU 7.2 on x86: a deadlock."""
    async with replaying(spec) as session:
        client = await attached(session)
        assert await monitor(client, f"replay_seek {PLACE}") == ""
        assert await monitor(client, "savevm a") == ""
        for back in range(1, 4):
            assert await client.ask(b"bs") == b"T05thread:01;"
            assert await icount(client) == PLACE - back
        client.close()


async def test_reverse_continue_behind_a_savevm_in_mid_debug(spec: MachineSpec) -> None:
    """From QEMU's mailing list: it fails, and a loadvm with gdb attached hangs."""
    async with replaying(spec) as session:
        client = await attached(session)
        assert await client.ask(b"Z0,40081b80,4") == b"OK"  # do_push
        assert (await client.ask(b"c")) == b"T05thread:01;"
        at_push = await icount(client)
        assert await monitor(client, f"replay_seek +{5_000}") == ""
        assert await monitor(client, "savevm b") == ""
        pc = await client.register(PC)
        assert await client.ask(b"bc") == b"T05thread:01;"
        assert await icount(client) == at_push
        assert await monitor(client, "loadvm b") == ""
        assert (await icount(client), await client.register(PC)) == (at_push + 5_000, pc)
        assert await client.ask(b"?") == b"T05thread:01;"
        assert await client.ask(b"bc") == b"T05thread:01;"
        assert await icount(client) == at_push
        client.close()


async def test_no_answers_that_nobody_asked_for(spec: MachineSpec) -> None:
    """QEMU 7.2: a stray ``T02`` follows a command that moved the machine."""
    async with replaying(spec) as session:
        client = await attached(session)
        for line in (
            f"replay_seek {PLACE}",
            "savevm a",
            "replay_seek 100",
            "loadvm a",
            "stop",
            "reverse_stepi",
            "stepi",
        ):
            await monitor(client, line)
            assert await client.ask(b"qC") == b"QC01"
        client.close()
