"""The steps of QEMU's functional test of reverse debugging, over raw packets (as its tests did before they had gdb)."""

from __future__ import annotations

import statistics
import time

import pytest

from tests.gdb.client import Client
from tests.gdb.replays import Session, record_loop, replaying
from timevm.engine.control.port import ReplayMode, Stops
from timevm.engine.machine.spec import MachineSpec

PC, STEPS, INSTRUCTIONS = 0x20, 10, 4_000_000


@pytest.fixture(scope="module", params=["arm64", "arm64_mmu"])
def spec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MachineSpec:
    return record_loop(tmp_path_factory.mktemp("loop") / "loop.rr", INSTRUCTIONS, request.param)


async def icount(session: Session) -> int:
    info = await session.vm.replay_info()
    assert info.mode is ReplayMode.PLAY
    return info.icount


@pytest.mark.parametrize("start", [0, 37, 2_000_000, INSTRUCTIONS - 500])
async def test_steps_of_qemu(spec: MachineSpec, start: int) -> None:
    async with replaying(spec) as session:
        await session.vm.seek(start)
        client = await session.server.connect()
        supported = await client.ask(b"qSupported")
        assert b"ReverseStep+" in supported and b"ReverseContinue+" in supported
        assert b"aarch64.core" in await client.ask(b"qXfer:features:read:target.xml:0,ffb")
        steps = await step_forward(client)
        for pc in reversed(steps):
            assert await client.ask(b"bs") == b"T05thread:01;"
            assert await client.register(PC) == pc
        for pc in steps:
            assert await client.register(PC) == pc
            assert await client.ask(b"s") == b"T05thread:01;"
        for pc in steps:
            assert await client.ask(b"Z1,%x,1" % pc) == b"OK"
        await go_on_to(session, client, steps, start + 400)
        assert await client.ask(b"bc") == b"T05thread:01;"
        assert await client.register(PC) in steps
        client.close()


async def step_forward(client: Client, pc: int = PC) -> list[int]:
    steps = []
    for _ in range(STEPS):
        steps.append(await client.register(pc))
        assert await client.ask(b"s") == b"T05thread:01;"
    return steps


async def go_on_to(session: Session, client: Client, steps: list[int], last: int) -> None:
    """Hits of the breakpoints on the way are part of it: the code is a loop."""
    await session.vm.set_replay_breakpoint(last)
    while (answer := await client.ask(b"c")) == b"T05thread:01;":
        assert await client.register(PC) in steps
    assert answer == b"T02thread:01;"
    assert await icount(session) == last


async def test_breakpoints_forward_are_the_breakpoints_backward(spec: MachineSpec) -> None:
    async with replaying(spec) as session:
        await session.vm.seek(1_000_000)
        client = await session.server.connect()
        steps = await step_forward(client)
        assert await client.ask(b"Z0,%x,4" % steps[4]) == b"OK"
        places = []
        for _ in range(30):
            assert await client.ask(b"c") == b"T05thread:01;"
            places.append(await icount(session))
        for place in reversed(places[:-1]):
            assert await client.ask(b"bc") == b"T05thread:01;"
            assert await icount(session) == place
        assert await client.ask(b"z0,%x,4" % steps[4]) == b"OK"
        assert await client.ask(b"bc") == b"T05replaylog:begin;thread:01;"
        assert session.vm.stops == Stops()
        client.close()


async def test_a_reverse_step_is_felt_at_once(spec: MachineSpec) -> None:
    """What gdb does for one: ``bs``, ``g``, some memory.  Ten milliseconds are promised at any place."""
    async with replaying(spec) as session:
        await session.vm.seek(3_500_000)
        client = await session.server.connect()
        assert await client.ask(b"QStartNoAckMode") == b"OK"
        client.acknowledging = False
        await client.ask(b"bs")
        seconds = []
        for _ in range(50):
            begin = time.perf_counter()
            await client.ask(b"bs")
            await client.ask(b"g")
            await client.ask(b"m40080000,40")
            await client.ask(b"m40081000,40")
            seconds.append(time.perf_counter() - begin)
        assert statistics.median(seconds) < 0.010, seconds
        client.close()


async def test_a_breakpoint_where_nobody_comes_by(spec: MachineSpec) -> None:
    """Both ways go through the whole recording."""
    async with replaying(spec) as session:
        client = await session.server.connect()
        assert await client.ask(b"Z0,4008102c,4") == b"OK"
        answers = await client.ask_all(b"c", lambda answer: answer[:1] == b"T")
        assert answers[-1] == b"T05replaylog:end;thread:01;"
        assert await icount(session) == INSTRUCTIONS
        assert await client.ask(b"bc") == b"T05replaylog:begin;thread:01;"
        client.close()
