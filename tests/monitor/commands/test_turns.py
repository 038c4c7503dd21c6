"""Turns: what a crowd that asks ahead may take, by a clock of the test's own; and what work is paid for."""

from __future__ import annotations

import asyncio
import time

import pytest

from timevm.monitor.commands.turns import ALONE, BURST, CROWD, Metered, Turns


class _Clock:
    """Time passes only where it is slept."""

    def __init__(self) -> None:
        self.now = 0.0

    def read(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def _turns(clock: _Clock, *, guest_runs: bool = True) -> Turns:
    return Turns(lambda: guest_runs, clock.read, clock.sleep)


def _work(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def _busy(turns: Turns, times: int, seconds: float) -> None:
    for _ in range(times):
        await turns.wait()
        with turns.work():
            _work(seconds)


async def test_a_crowd_gets_its_share_and_no_more() -> None:
    clock = _Clock()
    turns = _turns(clock)
    await asyncio.gather(*(_busy(turns, 3, 0.001) for _ in range(30)))
    # 90 ms of work: all but the burst was waited for
    assert clock.now > (0.09 - BURST) / CROWD * 0.4
    assert clock.now < 0.09 * 3 / CROWD


async def test_one_alone_gets_more() -> None:
    clock = _Clock()
    await _busy(_turns(clock), 60, 0.001)
    assert (0.06 - BURST) / ALONE * 0.9 < clock.now < 0.06 * 3 / ALONE


async def test_little_is_never_waited_for() -> None:
    clock = _Clock()
    await _busy(_turns(clock), 5, 0.0005)
    assert clock.now == 0


async def test_nobody_waits_while_the_guest_stands() -> None:
    clock = _Clock()
    turns = _turns(clock, guest_runs=False)
    await asyncio.gather(*(_busy(turns, 10, 0.001) for _ in range(10)))
    assert clock.now == 0


async def test_work_while_the_guest_stands_is_forgotten_when_it_goes_on() -> None:
    clock, runs = _Clock(), False
    turns = Turns(lambda: runs, clock.read, clock.sleep)
    for _ in range(10):
        with turns.work():
            _work(0.02)
    runs = True
    await turns.wait()
    assert clock.now == 0


async def test_a_long_command_is_not_held_against_its_client_for_long() -> None:
    clock = _Clock()
    turns = _turns(clock)
    with turns.work():
        _work(0.5)
    await turns.wait()
    assert 0 < clock.now < 0.5


async def test_who_waits_longest_is_next() -> None:
    turns = _turns(_Clock())
    order: list[int] = []

    async def client(number: int) -> None:
        for _ in range(3):
            await turns.wait()
            order.append(number)
            with turns.work():
                _work(0.01)

    await asyncio.gather(*(client(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4] * 3


async def test_a_client_that_goes_leaves_its_place() -> None:
    clock = _Clock()
    turns = Turns(lambda: True, clock.read)  # sleeps in earnest
    with turns.work():
        _work(0.05)
    waiting = [asyncio.create_task(turns.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert turns.share == ALONE
    clock.now += 10
    await asyncio.wait_for(turns.wait(), 10)


async def test_waiting_is_not_counted() -> None:
    async def work() -> str:
        _work(0.01)
        await asyncio.sleep(0.05)
        _work(0.01)
        return "done"

    metered = Metered(work())
    assert await metered == "done"
    assert 0.02 <= metered.seconds < 0.05


async def test_metered_work_is_cancelled_and_fails_as_it_would() -> None:
    seen: list[str] = []

    async def patient() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def run() -> None:
        await Metered(patient())

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]

    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await Metered(failing())


async def test_a_failed_command_is_paid_for() -> None:
    clock = _Clock()
    turns = _turns(clock)

    async def command() -> None:
        _work(0.05)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await turns.command(command())
    await turns.wait()
    assert clock.now > 0.02 / ALONE
