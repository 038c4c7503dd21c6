"""What stops a run forward stops it backward: random break- and watchpoints, over raw packets, on the demo guest."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import pytest

from tests.gdb.client import Client
from tests.gdb.replays import record_demo, replaying
from timevm.engine.machine.spec import MachineSpec

PC = 32
#: data of the demo guest that is read and written often: its stack, variables, result and heap
DATA = (0x40087F00, 0x40088000, 0x40088400, 0x40088490, 0x40089000, 0x40089060)
#: stops looked at in one direction
MOST = 25


@dataclass(frozen=True, slots=True)
class Hit:
    icount: int
    reply: bytes


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> MachineSpec:
    return record_demo(tmp_path_factory.mktemp("demo") / "demo.rr")[0]


def random_stops(generator: random.Random, pcs: list[int]) -> list[bytes]:
    stops = [b"%d,%x,4" % (generator.randint(0, 1), pc) for pc in generator.sample(pcs, generator.randint(0, 2))]
    for _ in range(generator.randint(0 if stops else 1, 2)):
        address = generator.choice(DATA) + generator.randint(0, 64)
        stops.append(b"%d,%x,%x" % (generator.randint(2, 4), address, generator.choice([1, 2, 3, 4, 7, 8, 16, 40])))
    return stops


async def collect(client: Client, kind: bytes, end: bytes) -> list[Hit]:
    hits: list[Hit] = []
    while len(hits) < MOST:
        reply = (await client.ask_all(kind, lambda answer: answer[:1] == b"T"))[-1]
        if end in reply:
            break
        hits.append(Hit(int(await client.ask(b"qTimevm.Icount"), 16), reply))
    return hits


@pytest.mark.parametrize("seed", range(12))
async def test_hits_forward_are_hits_backward(spec: MachineSpec, seed: int) -> None:
    generator = random.Random(seed)
    async with replaying(spec) as session:
        client = await session.server.connect()
        await client.ask(b"qSupported:swbreak+;hwbreak+")
        start = generator.randint(9_000, 60_000)
        await session.vm.seek(start)
        pcs = []
        for _ in range(40):
            pcs.append(await client.register(PC))
            assert await client.ask(b"s") == b"T05thread:01;"
        await session.vm.seek(start)
        # an interrupt changes pc without an instruction: its vector (Arm ARM D1.10.2: IRQ, current EL, SP_ELx)
        vectors = await session.vm.inspect(lambda machine: machine.read_register("VBAR_EL1"))
        for stop in random_stops(generator, sorted({*pcs, vectors + 0x280})):
            assert await client.ask(b"Z" + stop) == b"OK"
        # the breakpoint here is passed, for somebody stands on it; so the first instruction is left out
        forward = [hit for hit in await collect(client, b"c", b"replaylog:end") if hit.icount > start]
        if len(forward) < 2:
            return
        # of one instruction backward motion meets what forward motion meets last
        last = {hit.icount: hit for hit in forward}
        here = int(await client.ask(b"qTimevm.Icount"), 16)
        expected = [hit for hit in reversed(last.values()) if hit.icount < here]
        backward = (await collect(client, b"bc", b"replaylog:begin"))[: len(expected)]
        assert backward == expected
        client.close()


async def test_a_breakpoint_on_the_interrupt_vector(spec: MachineSpec) -> None:
    """pc gets there between two instructions."""
    async with replaying(spec) as session:
        client = await session.server.connect()
        await session.vm.seek(9_000)
        vector = 0x280 + await session.vm.inspect(lambda machine: machine.read_register("VBAR_EL1"))
        assert await client.ask(b"Z1,%x,4" % vector) == b"OK"
        forward = await collect(client, b"c", b"replaylog:end")
        assert len(forward) > 3
        here = int(await client.ask(b"qTimevm.Icount"), 16)
        for hit in reversed([hit for hit in forward if hit.icount < here]):
            assert await collect_one(client, b"bc") == hit
            assert await client.register(PC) == vector
        client.close()


async def collect_one(client: Client, kind: bytes) -> Hit:
    reply = await client.ask(kind)
    return Hit(int(await client.ask(b"qTimevm.Icount"), 16), reply)


async def test_old_and_new_values_around_every_write(spec: MachineSpec) -> None:
    """Forward and backward the machine stands before the write; a step makes it."""
    watched, size = 0x40088494, 3
    async with replaying(spec) as session:
        client = await session.server.connect()
        await client.ask(b"Z2,%x,%x" % (watched, size))
        values = []
        for _ in range(8):
            assert (await client.ask(b"c")).startswith(b"T05watch:")
            before = await client.ask(b"m%x,%x" % (watched, size))
            icount = await client.ask(b"qTimevm.Icount")
            assert await client.ask(b"s") == b"T05thread:01;"
            values.append((icount, before, await client.ask(b"m%x,%x" % (watched, size))))
        for icount, before, after in reversed(values):
            assert await client.ask(b"m%x,%x" % (watched, size)) == after
            assert (await client.ask(b"bc")).startswith(b"T05watch:")
            assert await client.ask(b"qTimevm.Icount") == icount
            assert await client.ask(b"m%x,%x" % (watched, size)) == before
        client.close()


async def test_more_watchpoints_than_there_are(spec: MachineSpec) -> None:
    async with replaying(spec) as session:
        client = await session.server.connect()
        await client.ask(b"qSupported:error-message+")
        answers = [await client.ask(b"Z2,%x,1" % (0x40088000 + 2 * number)) for number in range(70)]
        assert answers[:64] == [b"OK"] * 64
        assert answers[64].startswith(b"E.more than 64 watchpoints")
        assert await client.ask(b"z2,40088000,1") == b"OK"
        assert await client.ask(b"Z2,40089000,8") == b"OK"
        client.close()


async def test_many_hits_do_not_make_it_crawl(spec: MachineSpec) -> None:
    """A watchpoint that is hit all the time: the last hit of a window is found without a call for each."""
    async with replaying(spec) as session:
        client = await session.server.connect()
        await session.vm.seek(60_000)
        assert await client.ask(b"Z4,40080000,10000000") == b"OK"
        async with asyncio.timeout(20):
            for _ in range(20):
                client.send(b"bc")
                assert (await client.receive()).startswith(b"T05awatch:")
        client.close()
