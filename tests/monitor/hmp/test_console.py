"""The console without a connection: what it writes to its terminal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from tests.monitor.toy_vm import ToyVm
from timevm.engine.control.port import ReplayMode
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.hmp.console import Console
from timevm.monitor.hmp.table import HmpState
from timevm.monitor.hmp.terminal import Terminal

DEADLINE = 20


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


async def test_what_the_guest_prints_stands_above_the_progress_bar() -> None:
    shown = bytearray()
    above: list[Callable[[bytes], Awaitable[None]]] = []

    async def drained() -> None:
        """Nothing waits."""

    vm = ToyVm(mode=ReplayMode.PLAY)
    vm.may_arrive.clear()
    terminal = Terminal(draws=lambda print_above: above.append(print_above) if print_above is not None else None)
    console = Console(MonitorContext(vm), terminal, shown.extend, drained, HmpState())
    conversation = asyncio.create_task(console.run())
    console.feed(b"replay_seek 900\r")
    await until(lambda: any(call.startswith("seek") for call in vm.calls), "the seek never began")
    vm.send("TIMEVM_PROGRESS", {"operation": "seek", "done": 50, "total": 100})
    await until(lambda: b"Ctrl-C cancels" in shown, "no progress was shown")
    bar = bytes(shown).rpartition(b"\r\x1b[K")[2]
    shown.clear()
    await above[0](b"one\r\ntwo\r\nthr")
    assert shown == b"\r\x1b[Kone\r\ntwo\r\n" + bar
    shown.clear()
    vm.may_arrive.set()
    await until(lambda: b"\r\x1b[K" in shown, "the bar stays")
    await above[0](b"ee\r\n")
    assert b"three\r\n" in shown and b"\r\x1b[Kthree" not in shown
    console.feed(b"\x04")
    console.ended()
    await asyncio.wait_for(conversation, DEADLINE)
