"""The ``Vm`` and its CPU thread over a toy machine: order, events, run states, ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.engine.control.toy_machine import ToyMachine, ToySnapshots, ToyTimeline
from timevm.engine.control.messages import Motion
from timevm.engine.control.port import MachinePort, ReplayMode, RunEnd, RunResult, Stops, VmEvent, VmPort
from timevm.engine.control.run_state import MOVES, IllegalRunStateMove, RunState, check_move
from timevm.engine.control.time_travel import SnapshotStore, TimeTravel
from timevm.engine.control.vm import OverReason, Vm, VmDescription, VmPolicy
from timevm.errors import GuestError, HostError, InternalError, ReplayDivergence, UserError

SECONDS = 20.0


@asynccontextmanager
async def running(
    machine: ToyMachine, policy: VmPolicy | None = None, messages: list[str] | None = None
) -> AsyncIterator[tuple[Vm, AsyncIterator[VmEvent]]]:
    """A started Vm and its events; ended in order afterwards."""
    said = [] if messages is None else messages
    timeline: TimeTravel = ToyTimeline(machine, 10_000_000_000)
    snapshots: SnapshotStore = ToySnapshots(machine)
    vm = Vm(
        machine,
        VmDescription(mode=machine.mode),
        policy or VmPolicy(),
        time_travel=timeline if machine.mode is ReplayMode.PLAY else None,
        snapshots=snapshots,
        messages=said.append,
    )
    port: VmPort = vm
    vm.start()
    try:
        async with asyncio.timeout(SECONDS):
            with port.subscribe() as events:
                yield vm, events
    finally:
        async with asyncio.timeout(SECONDS):
            await vm.leave("quit")


def state(vm: VmPort) -> RunState:
    return vm.run_state


async def next_event(events: AsyncIterator[VmEvent], name: str) -> VmEvent:
    """The next event; it must be ``name``."""
    event = await anext(events)
    assert event.name == name, event
    return event


async def test_runs_stops_and_tells() -> None:
    async with running(ToyMachine()) as (vm, events):
        assert state(vm) is RunState.PRELAUNCH
        await vm.cont()
        assert state(vm) is RunState.RUNNING
        await next_event(events, "RESUME")
        await vm.stop()
        stop = await next_event(events, "STOP")
        assert state(vm) is RunState.PAUSED
        assert stop.result is not None and stop.result.end is RunEnd.KICKED
        before = (await vm.replay_info()).icount
        assert stop.result.icount == before == (await vm.replay_info()).icount


async def test_limit_is_exact_and_stop_is_idempotent() -> None:
    async with running(ToyMachine()) as (vm, events):
        await vm.stop()
        await vm.cont(limit=123_457)
        await next_event(events, "RESUME")
        stop = await next_event(events, "STOP")
        assert stop.result == RunResult(RunEnd.LIMIT, 123_457)
        await vm.stop()
        await vm.stop()
        assert (await vm.replay_info()).icount == 123_457


async def test_everything_of_the_machine_happens_on_one_thread() -> None:
    machine = ToyMachine()
    async with running(machine) as (vm, _):
        await vm.cont()
        ident = await vm.inspect(lambda port: threading.get_ident())
        await vm.step()
    assert machine.threads == {ident} != {threading.get_ident()}


async def test_inspect_while_running_goes_on_afterwards() -> None:
    async with running(ToyMachine()) as (vm, _):
        await vm.cont()
        first = await vm.inspect(lambda machine: machine.icount)
        while await vm.inspect(lambda machine: machine.icount) == first:
            pass
        assert state(vm) is RunState.RUNNING


async def test_inspect_hands_back_errors() -> None:
    async with running(ToyMachine()) as (vm, _):

        def look(machine: MachinePort) -> int:
            return machine.read_register("nonsense")

        with pytest.raises(KeyError):
            await vm.inspect(look)
        assert await vm.inspect(lambda machine: machine.read_register("pc")) == 0


async def test_steps_exactly_also_when_it_was_running() -> None:
    async with running(ToyMachine()) as (vm, events):
        assert await vm.step(7) == RunResult(RunEnd.LIMIT, 7)
        assert state(vm) is RunState.DEBUG
        await next_event(events, "RESUME")
        await next_event(events, "STOP")
        await vm.cont()
        result = await vm.step()
        assert result.end is RunEnd.LIMIT
        assert (await vm.replay_info()).icount == result.icount
        assert state(vm) is RunState.DEBUG


async def test_breakpoint_is_a_debug_stop() -> None:
    async with running(ToyMachine()) as (vm, events):
        await vm.set_stops(Stops(frozenset({5000})))
        assert vm.stops == Stops(frozenset({5000}))
        await vm.cont()
        await next_event(events, "RESUME")
        stop = await next_event(events, "STOP")
        assert stop.result is not None and stop.result.end is RunEnd.DEBUG and stop.result.icount == 5000
        assert state(vm) is RunState.DEBUG


async def test_replay_breakpoint_stops_once() -> None:
    async with running(ToyMachine(ReplayMode.PLAY)) as (vm, events):
        await vm.set_replay_breakpoint(2345)
        await vm.cont()
        await next_event(events, "RESUME")
        stop = await next_event(events, "STOP")
        assert stop.result == RunResult(RunEnd.LIMIT, 2345)
        assert state(vm) is RunState.PAUSED
        with pytest.raises(UserError, match="cannot set breakpoint at the instruction in the past"):
            await vm.set_replay_breakpoint(2344)
        await vm.cont(limit=10_000)
        await next_event(events, "RESUME")
        stop = await next_event(events, "STOP")
        assert stop.result == RunResult(RunEnd.LIMIT, 10_000)


async def test_replay_requests_are_refused_elsewhere() -> None:
    async with running(ToyMachine()) as (vm, _):
        with pytest.raises(UserError, match="setting the breakpoint is allowed only in play mode"):
            await vm.set_replay_breakpoint(1)
        with pytest.raises(UserError, match="replay breakpoints are allowed only in play mode"):
            await vm.set_replay_breakpoint(None)
        with pytest.raises(UserError, match="replay must be enabled to seek"):
            await vm.seek(1)
        with pytest.raises(UserError):
            await vm.reverse_step()
        with pytest.raises(UserError):
            await vm.reverse_continue()
        assert state(vm) is RunState.PRELAUNCH


async def test_seek_and_reverse() -> None:
    async with running(ToyMachine(ReplayMode.PLAY)) as (vm, events):
        assert (await vm.seek(50_000)).icount == 50_000
        await next_event(events, "RESUME")
        await next_event(events, "STOP")
        assert state(vm) is RunState.PAUSED
        assert (await vm.reverse_step(3)).icount == 49_997
        assert state(vm) is RunState.DEBUG
        await vm.set_stops(Stops(frozenset({123})))
        assert (await vm.reverse_continue()).icount == 123
        assert (await vm.seek(7)).icount == 7
        for wrong in (-1, 1 << 60):
            with pytest.raises(UserError, match="cannot seek to the specified instruction count"):
                await vm.seek(wrong)
        assert (await vm.replay_info()).icount == 7


async def test_stop_cancels_a_seek_which_is_then_where_it_began() -> None:
    async with running(ToyMachine(ReplayMode.PLAY)) as (vm, _):
        await vm.seek(1000)
        seek = asyncio.create_task(vm.seek(9_000_000_000))
        await asyncio.sleep(0)
        assert state(vm) is RunState.RUNNING
        assert (await vm.replay_info()).icount >= 1000  # answered in mid-journey
        await vm.stop()
        assert (await seek) == RunResult(RunEnd.KICKED, 1000)
        assert state(vm) is RunState.PAUSED


async def test_who_looks_where_a_seek_ends_waits_for_it() -> None:
    async with running(ToyMachine(ReplayMode.PLAY)) as (vm, _):
        await vm.seek(1000)
        seek = asyncio.create_task(vm.seek(9_000_000_000))
        await asyncio.sleep(0)
        there = asyncio.create_task(vm.inspect(lambda machine: machine.icount, arrived=True))
        await asyncio.sleep(0)
        while await vm.inspect(lambda machine: machine.icount) == 1000:
            pass
        assert not there.done()
        await vm.stop()
        assert await there == (await seek).icount == 1000


async def test_second_seek_replaces_the_first_and_a_step_waits() -> None:
    async with running(ToyMachine(ReplayMode.PLAY)) as (vm, _):
        first = asyncio.create_task(vm.seek(9_000_000_000))
        await asyncio.sleep(0)
        second = asyncio.create_task(vm.seek(5000))
        await asyncio.sleep(0)
        back = asyncio.create_task(vm.reverse_step())
        assert (await first).end is RunEnd.KICKED
        assert (await second).icount == 5000
        assert (await back).icount == 4999


async def test_guest_power_off_ends_the_run() -> None:
    machine = ToyMachine(ReplayMode.RECORD, {5000: RunResult(RunEnd.POWERED_OFF, 5000)})
    async with running(machine) as (vm, events):
        await vm.cont()
        await next_event(events, "RESUME")
        shutdown = await next_event(events, "SHUTDOWN")
        assert shutdown.data == {"guest": True, "reason": "guest-shutdown"}
        assert (await vm.over).reason is OverReason.GUEST
    assert machine.finished == ["shutdown"]


async def test_no_shutdown_stands_until_a_reset() -> None:
    machine = ToyMachine(ends={5000: RunResult(RunEnd.POWERED_OFF, 5000)})
    async with running(machine, VmPolicy(no_shutdown=True)) as (vm, events):
        await vm.cont()
        await next_event(events, "RESUME")
        await next_event(events, "SHUTDOWN")
        await next_event(events, "STOP")
        assert state(vm) is RunState.SHUTDOWN
        with pytest.raises(UserError, match="Resetting the Virtual Machine is required"):
            await vm.cont()
        await vm.system_reset()
        await next_event(events, "RESET")
        assert state(vm) is RunState.PRELAUNCH and machine.resets == 1
        await vm.cont()
        assert not vm.over.done()


@pytest.mark.parametrize("no_reboot", [False, True])
async def test_reset_by_the_guest(no_reboot: bool) -> None:
    machine = ToyMachine(ends={5000: RunResult(RunEnd.RESET, 5000)})
    async with running(machine, VmPolicy(no_reboot=no_reboot)) as (vm, events):
        await vm.cont()
        await next_event(events, "RESUME")
        event = await next_event(events, "SHUTDOWN" if no_reboot else "RESET")
        assert event.data == {"guest": True, "reason": "guest-reset"}
        assert machine.resets == (not no_reboot)
        assert machine.finished == (["reset"] if no_reboot else [])


async def test_reset_by_the_user() -> None:
    machine = ToyMachine()
    async with running(machine) as (vm, events):
        await vm.cont()
        await next_event(events, "RESUME")
        await vm.system_reset()
        assert (await next_event(events, "RESET")).data == {"guest": False, "reason": "host-qmp-system-reset"}


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize("end", [RunEnd.RECORDING_ENDED, RunEnd.POWERED_OFF, RunEnd.QUIT])
async def test_end_of_a_replay_pauses(end: RunEnd, stays: bool) -> None:
    machine = ToyMachine(ReplayMode.PLAY, {5000: RunResult(end, 5000)})
    async with running(machine, VmPolicy(stays=stays)) as (vm, events):
        await vm.cont()
        await next_event(events, "RESUME")
        stop = await next_event(events, "STOP")
        assert stop.result == RunResult(end, 5000)
        assert state(vm) is RunState.PAUSED
        assert vm.over.done() is not stays
        assert (await vm.reverse_step()).icount == 4999
    assert machine.finished == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (GuestError("a double fault"), RunState.INTERNAL_ERROR),
        (ReplayDivergence(1, 2, "ram"), RunState.INTERNAL_ERROR),
        (HostError("the disk is full"), RunState.IO_ERROR),
        (ZeroDivisionError("a bug"), RunState.INTERNAL_ERROR),
    ],
)
async def test_errors_of_the_machine_are_told_and_it_stays(error: Exception, expected: RunState) -> None:
    said: list[str] = []
    async with running(ToyMachine(ends={5000: error}), messages=said) as (vm, events):
        await vm.cont()
        await next_event(events, "RESUME")
        stop = await next_event(events, "STOP")
        assert state(vm) is expected
        assert stop.result is not None and str(error) in stop.result.detail
        assert len(said) == 1 and str(error) in said[0]
        assert (await vm.replay_info()).icount == 5000
        with pytest.raises(type(error) if isinstance(error, HostError) else UserError):
            await vm.step()


async def test_a_bug_in_a_journey_fails_who_waits() -> None:
    async with running(ToyMachine(ReplayMode.PLAY, {5000: ZeroDivisionError("a bug")})) as (vm, _):
        with pytest.raises(InternalError, match="a bug"):
            await vm.seek(6000)
        assert state(vm) is RunState.INTERNAL_ERROR
        assert (await vm.seek(100)).icount == 100
        assert state(vm) is RunState.PAUSED


async def test_snapshots() -> None:
    async with running(ToyMachine()) as (vm, _):
        await vm.step(10)
        info = await vm.save_snapshot("a")
        assert info.icount == 10
        await vm.step(10)
        await vm.load_snapshot("a")
        assert (await vm.replay_info()).icount == 10
        assert [snapshot.tag for snapshot in await vm.snapshots()] == ["a"]
        with pytest.raises(UserError, match="Snapshot 'b' does not exist"):
            await vm.load_snapshot("b")
        await vm.delete_snapshot("a")
        assert await vm.snapshots() == []


async def test_quit_finishes_the_recording_and_refuses_the_rest() -> None:
    machine = ToyMachine(ReplayMode.RECORD)
    async with running(machine) as (vm, _):
        await vm.cont()
        await vm.quit()
        assert (await vm.over).reason is OverReason.QUIT
        await vm.leave("quit")
        assert machine.finished == ["quit"]
        with pytest.raises(UserError):
            await vm.replay_info()


async def test_an_end_that_takes_long_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timevm.engine.control.vm.PATIENCE", 0.01)
    messages: list[str] = []
    told = threading.Event()

    def tell(text: str) -> None:
        messages.append(text)
        told.set()

    machine = ToyMachine(ReplayMode.RECORD)
    vm = Vm(machine, VmDescription(mode=machine.mode), VmPolicy(), messages=tell)
    vm.start()
    async with asyncio.timeout(SECONDS):
        busy = asyncio.create_task(vm.inspect(lambda machine: told.wait(SECONDS)))
        await asyncio.sleep(0)
        await vm.leave("quit")
        assert await busy and machine.finished == ["quit"]
    assert len(messages) == 1 and messages[0].startswith("waiting for what the machine is doing")


async def test_a_subscriber_who_does_not_read_loses_the_oldest_only() -> None:
    async with running(ToyMachine()) as (vm, events):
        for _ in range(600):
            await vm.step()
        received = [await anext(events) for _ in range(1000)]
        assert received[-1].result == RunResult(RunEnd.LIMIT, 600)
        assert len(received) == 1000


async def test_stop_and_cont_at_random_moments() -> None:
    async with running(ToyMachine(ReplayMode.RECORD)) as (vm, events):
        for _ in range(200):
            await vm.cont()
            await next_event(events, "RESUME")
            await vm.stop()
            await next_event(events, "STOP")


def test_the_table_knows_every_state() -> None:
    assert set(MOVES) == set(RunState)
    check_move(RunState.PAUSED, RunState.RUNNING)
    with pytest.raises(IllegalRunStateMove, match="'running' -> 'prelaunch'"):
        check_move(RunState.RUNNING, RunState.PRELAUNCH)
    assert {motion.name for motion in Motion} == {"RUN", "STEP", "SEEK", "REVERSE"}


async def test_the_last_stop_is_found_without_going_there() -> None:
    machine = ToyMachine(ReplayMode.PLAY)
    async with running(machine) as (vm, _):
        await vm.seek(3000)
        found = await vm.find_last(Stops(frozenset({1234})))
        assert (found.end, found.icount) == (RunEnd.DEBUG, 1234)
        assert machine.icount == 3000 and state(vm) is RunState.PAUSED
