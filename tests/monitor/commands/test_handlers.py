"""Commands against the toy machine: what they return and refuse, without a protocol."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.monitor.toy_vm import RAM, ToyVm
from timevm.engine.control.port import ReplayMode, Stops, WatchKind, Watchpoint
from timevm.engine.control.run_state import RunState
from timevm.errors import TimevmError
from timevm.monitor.commands.context import Chardev, MonitorContext
from timevm.monitor.commands.dispatch import HANDLERS, execute, on_wire
from timevm.qmp_schema.extension import TimevmStopped, TimevmStopReason
from timevm.qmp_schema.registry import COMMANDS


async def run(context: MonitorContext, name: str, arguments: dict[str, Any] | None = None) -> Any:
    return on_wire(await execute(context, name, arguments or {}))


async def refusal(context: MonitorContext, name: str, arguments: dict[str, Any] | None = None) -> str:
    with pytest.raises(TimevmError) as caught:
        await execute(context, name, arguments or {})
    return str(caught.value)


def test_every_row_has_a_handler_and_the_reverse() -> None:
    assert set(HANDLERS) == set(COMMANDS)


async def test_replay_commands_outside_replay_refuse_in_qemus_words() -> None:
    context = MonitorContext(ToyVm(ReplayMode.RECORD))
    assert await refusal(context, "replay-seek", {"icount": 1}) == "replay must be enabled to seek"
    refused = "setting the breakpoint is allowed only in play mode"
    assert await refusal(context, "replay-break", {"icount": 1}) == refused
    assert await refusal(context, "replay-delete-break") == "replay breakpoints are allowed only in play mode"
    assert await run(context, "query-replay") == {"mode": "record", "filename": "boot.rr", "icount": 0}


async def test_the_last_instructions_as_they_were_executed() -> None:
    vm = ToyVm(ReplayMode.PLAY, end=1000)
    vm.machine.write_memory(RAM + 40, bytes.fromhex("4100028b ffffffff 000080d2"))
    vm.machine.go_to(13)
    context = MonitorContext(vm)
    shown = [
        {"icount": 10, "pc": RAM + 40, "code": "4100028b", "text": "add x1, x2, x2"},
        {"icount": 11, "pc": RAM + 44, "code": "ffffffff", "text": ".byte 0xff, 0xff, 0xff, 0xff"},
        {"icount": 12, "pc": RAM + 48, "code": "000080d2", "text": "mov x0, #0"},
    ]
    assert await run(context, "x-timevm-instructions", {"count": 3}) == shown
    assert len(await run(context, "x-timevm-instructions")) == 13
    assert await run(context, "x-timevm-instructions", {"count": 1}) == shown[2:]
    assert vm.machine.icount == 13
    assert await refusal(context, "x-timevm-instructions", {"count": 0}) == "count must be at least 1"
    assert await refusal(context, "x-timevm-instructions", {"count": 100_001}) == "at most 100000 instructions at once"
    recording = MonitorContext(ToyVm(ReplayMode.RECORD))
    assert (await refusal(recording, "x-timevm-instructions")).startswith("going back is allowed only in play mode")


async def test_replay_commands_in_replay() -> None:
    vm = ToyVm(ReplayMode.PLAY, end=1000)
    vm.machine.go_to(100)
    context = MonitorContext(vm)
    wrong = "cannot seek to the specified instruction count"
    assert await refusal(context, "replay-seek", {"icount": -1}) == wrong
    assert await refusal(context, "replay-seek", {"icount": 1001}) == wrong
    past = "cannot set breakpoint at the instruction in the past"
    assert await refusal(context, "replay-break", {"icount": 99}) == past
    assert await run(context, "replay-break", {"icount": 200}) == {}
    assert vm.breakpoint == 200
    assert await run(context, "replay-delete-break") == {}
    assert await run(context, "replay-delete-break") == {}
    assert vm.breakpoint is None
    vm.may_arrive.clear()
    assert await run(context, "replay-seek", {"icount": 7}) == {}
    assert vm.calls == ["seek 7"] and vm.run_state is RunState.RUNNING
    await context.close()


async def test_cont_is_refused_when_only_a_reset_helps() -> None:
    vm = ToyVm()
    vm.run_state = RunState.SHUTDOWN
    assert await refusal(MonitorContext(vm), "cont") == "Resetting the Virtual Machine is required"
    assert vm.calls == []


async def test_the_machine_describes_itself() -> None:
    context = MonitorContext(ToyVm(), chardevs=[Chardev("serial0", "null")])
    assert await run(context, "query-name") == {"name": "fred"}
    (cpu,) = await run(context, "query-cpus-fast")
    assert cpu["thread-id"] == threading.get_native_id() and cpu["target"] == "aarch64"
    (chardev,) = await run(context, "query-chardev")
    assert chardev == {"label": "serial0", "filename": "null", "frontend-open": True}
    (machine,) = await run(context, "query-machines")
    assert machine["name"] == "virt" and machine["cpu-max"] == 1
    assert await run(context, "query-block") == []


async def test_memory_is_saved(tmp_path: Path) -> None:
    vm = ToyVm()
    vm.machine.go_to(16)
    context = MonitorContext(vm)
    target = tmp_path / "memory"
    for name in ("memsave", "pmemsave"):
        assert await run(context, name, {"val": RAM, "size": 16, "filename": str(target)}) == {}
        assert target.read_bytes() == bytes(range(16))
    nowhere = str(tmp_path / "none" / "memory")
    text = f"Could not open '{nowhere}': {os.strerror(2)}"
    assert await refusal(context, "memsave", {"val": RAM, "size": 16, "filename": nowhere}) == text
    arguments = {"val": 0x3E80000000000, "size": 16, "filename": str(target)}
    assert await refusal(context, "memsave", arguments) == "Invalid addr 0x0003e80000000000/size 16 specified"
    arguments = {"val": RAM, "size": -1, "filename": str(target)}
    assert await refusal(context, "pmemsave", arguments) == "Invalid addr 0x0000000040000000/size -1 specified"
    arguments = {"val": RAM, "size": 1, "filename": str(target), "cpu-index": 3}
    assert await refusal(context, "memsave", arguments) == "Parameter 'cpu-index' expects a CPU number"


async def test_reverse_commands() -> None:
    vm = ToyVm(ReplayMode.PLAY, end=1000)
    vm.machine.go_to(100)
    context = MonitorContext(vm)
    assert await run(context, "x-timevm-step", {"count": 3}) == {
        "icount": 103,
        "reason": "arrived",
        "pc": RAM + 4 * 103,
    }
    assert (await run(context, "x-timevm-reverse-step"))["icount"] == 102
    assert (await run(context, "x-timevm-reverse-step", {"count": 500}))["reason"] == "history-began"
    assert await refusal(context, "x-timevm-reverse-step", {"count": 0}) == "count must be at least 1"
    vm.machine.go_to(100)
    found = await run(context, "x-timevm-reverse-continue", {"breakpoints": [RAM + 4 * 50]})
    assert found == {"icount": 50, "reason": "breakpoint", "pc": RAM + 4 * 50}
    assert (await run(context, "x-timevm-reverse-continue"))["reason"] == "history-began"


async def test_last_write_comes_back_and_gives_the_debuggers_stops_back() -> None:
    vm = ToyVm(ReplayMode.PLAY, end=1000)
    vm.machine.go_to(100)
    mine = vm.stops = Stops(frozenset({1}), frozenset({Watchpoint(2, 3, WatchKind.READ)}))
    context = MonitorContext(vm)
    found = await run(context, "x-timevm-last-write", {"address": RAM + 5, "length": 1})
    assert found == {
        "icount": 85,
        "reason": "watchpoint",
        "pc": RAM + 4 * 85,
        "address": RAM + 5,
        "write": True,
    }
    assert vm.machine.icount == 100 and vm.stops == mine


async def test_addresses_of_kernels_have_the_highest_bit_set() -> None:
    vm = ToyVm(ReplayMode.PLAY, end=1000)
    vm.machine.go_to(100)
    context = MonitorContext(vm)
    high = 0xFFFF_8000_0800_0000
    assert (await run(context, "x-timevm-find", {"breakpoints": [high]}))["reason"] == "history-began"
    assert (await run(context, "x-timevm-last-write", {"address": high}))["reason"] == "history-began"
    stopped = TimevmStopped(icount=1, reason=TimevmStopReason.ARRIVED, pc=high, address=(1 << 64) - 1)
    assert stopped.on_wire() == {"icount": 1, "reason": "arrived", "pc": high, "address": (1 << 64) - 1}
    for wrong in (-1, 1 << 64):
        said = await refusal(context, "x-timevm-last-write", {"address": wrong})
        assert said == "Invalid parameter type for 'address', expected: integer"


async def test_timeline() -> None:
    vm = ToyVm(ReplayMode.PLAY, end=1000)
    vm.machine.go_to(40)
    await vm.save_snapshot("a")
    vm.machine.go_to(100)
    line = await run(MonitorContext(vm), "x-timevm-timeline")
    assert [(mark["kind"], mark["icount"]) for mark in line["marks"]] == [
        ("start", 0),
        ("snapshot", 40),
        ("now", 100),
        ("end", 1000),
    ]


async def test_going_back_is_for_replays() -> None:
    live, recording = MonitorContext(ToyVm()), MonitorContext(ToyVm(ReplayMode.RECORD))
    how = "look_back (QMP: x-timevm-look-back) ends the recording here, and then one can"
    for name, arguments in (
        ("x-timevm-reverse-step", {}),
        ("x-timevm-reverse-continue", {}),
        ("x-timevm-last-write", {"address": 1}),
    ):
        assert await refusal(live, name, arguments) == "going back is allowed only in play mode"
        assert await refusal(recording, name, arguments) == f"going back is allowed only in play mode: {how}"


async def test_a_recording_is_looked_back_at() -> None:
    vm = ToyVm(ReplayMode.RECORD)
    vm.machine.go_to(100)
    answer = await run(MonitorContext(vm), "x-timevm-look-back")
    assert (answer["icount"], answer["reason"]) == (100, "recording-ended")
    assert (await run(MonitorContext(vm), "x-timevm-reverse-step"))["icount"] == 99
