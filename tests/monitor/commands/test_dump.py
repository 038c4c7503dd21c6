"""``dump-guest-memory`` against the toy machine: refusals, one at a time, and whatever a client may send."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.vmcore.cores import read_core
from tests.monitor.toy_vm import RAM, RAM_SIZE, ToyVm
from timevm.engine.control.looks import CoreDump, DumpRequest
from timevm.engine.control.port import ReplayMode
from timevm.errors import HostError, InternalError, TimevmError
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.commands.dispatch import execute, on_wire
from timevm.monitor.commands.errors import CommandError
from timevm.monitor.hmp.line import run_hmp_line
from timevm.monitor.hmp.table import HmpState
from timevm.qmp_schema.dump import DumpGuestMemoryFormat


async def run(context: MonitorContext, name: str, **arguments: Any) -> Any:
    return on_wire(await execute(context, name, arguments))


async def dump(context: MonitorContext, path: Path | str, **further: Any) -> Any:
    return await run(context, "dump-guest-memory", **{"paging": False, "protocol": f"file:{path}"} | further)


@pytest.mark.parametrize("mode", ReplayMode)
async def test_memory_is_in_the_file(mode: ReplayMode, tmp_path: Path) -> None:
    vm = ToyVm(mode, end=1000)
    vm.machine.go_to(100)
    context = MonitorContext(vm)
    with context.events.subscribe() as events:
        assert await run(context, "query-dump") == {"status": "none", "completed": 0, "total": 0}
        assert await dump(context, tmp_path / "core") == {}
        [load] = read_core(tmp_path / "core").loads
        assert (load.physical, load.data) == (RAM, bytes(vm.machine.memory))
        done = {"status": "completed", "completed": RAM_SIZE, "total": RAM_SIZE}
        assert await run(context, "query-dump") == done
        event = await anext(events)
        assert (event.name, event.data) == ("DUMP_COMPLETED", {"result": done})
    await context.close()


async def test_a_dump_that_cannot_begin_has_no_event(tmp_path: Path) -> None:
    context = MonitorContext(ToyVm())
    with context.events.subscribe() as events:
        with pytest.raises(CommandError, match="Invalid parameter 'protocol'"):
            await run(context, "dump-guest-memory", paging=False, protocol="core")
        assert (await run(context, "query-dump"))["status"] == "none"
        for detach in (True, False):
            with pytest.raises(HostError, match="Could not open"):
                await dump(context, tmp_path / "none" / "core", detach=detach)
            assert await run(context, "query-dump") == {"status": "failed", "completed": 0, "total": RAM_SIZE}
        await dump(context, tmp_path / "core")
        assert (await anext(events)).data["result"]["status"] == "completed"


class SlowVm(ToyVm):
    """Looks into the machine are answered on another thread, when they may be."""

    def __init__(self) -> None:
        super().__init__()
        self.may_look = asyncio.Event()

    async def inspect(self, look: Any, *, arrived: bool = False) -> Any:
        await self.may_look.wait()
        return await asyncio.to_thread(look, self.machine)


async def test_one_at_a_time(tmp_path: Path) -> None:
    vm = SlowVm()
    context = MonitorContext(vm)
    first = asyncio.create_task(dump(context, tmp_path / "first"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await run(context, "query-dump"))["status"] == "active"
    with pytest.raises(CommandError, match=r"^There is a dump in process, please wait\.$"):
        await dump(context, tmp_path / "second", format="kdump-zlib")
    assert await run_hmp_line("info dump", context, HmpState()) == "Status: active\nFinished: 0.00 %\n"
    vm.may_look.set()
    assert await first == {}
    assert await run_hmp_line("info dump", context, HmpState()) == "Status: completed\n"
    await context.close()
    assert os.listdir(tmp_path) == ["first"]


async def test_who_asked_goes_away_and_it_goes_on(tmp_path: Path) -> None:
    vm = SlowVm()
    context = MonitorContext(vm)
    asked = asyncio.create_task(dump(context, tmp_path / "core"))
    await asyncio.sleep(0)
    asked.cancel()
    with context.events.subscribe() as events:
        vm.may_look.set()
        assert (await asyncio.wait_for(anext(events), 30)).data["result"]["status"] == "completed"
    assert (tmp_path / "core").exists()


async def test_the_end_of_the_process_ends_it(tmp_path: Path) -> None:
    vm = SlowVm()
    context = MonitorContext(vm)
    asked = asyncio.create_task(dump(context, tmp_path / "core"))
    await asyncio.sleep(0)
    await context.close()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert context.dumps.information().status.value == "failed"
    assert os.listdir(tmp_path) == []


async def test_a_bug_does_not_leave_it_active(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: CoreDump, machine: object) -> None:
        raise InternalError("a bug")

    monkeypatch.setattr(CoreDump, "take", broken)
    context = MonitorContext(ToyVm())
    with pytest.raises(InternalError):
        await context.dumps.take(DumpRequest(str(tmp_path / "core")), detach=True)
    assert context.dumps.information().status.value == "failed"


_NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(RAM - 5, RAM + RAM_SIZE + 5) | st.integers(-5, 5)


@given(
    st.booleans(),
    st.sampled_from(["file:", "fd:", "File:", ""]),
    st.text(max_size=20),
    st.none() | st.booleans(),
    st.none() | _NUMBERS,
    st.none() | _NUMBERS,
    st.none() | st.sampled_from([form.value for form in DumpGuestMemoryFormat]),
)
async def test_whatever_a_client_sends(
    paging: bool, scheme: str, name: str, detach: bool | None, begin: int | None, length: int | None, form: str | None
) -> None:
    context = MonitorContext(ToyVm())
    with tempfile.TemporaryDirectory() as folder:
        arguments = {"paging": paging, "protocol": f"{scheme}{folder}/x{name}" if scheme == "file:" else scheme + name}
        further = {"detach": detach, "begin": begin, "length": length, "format": form}
        arguments |= {key: value for key, value in further.items() if value is not None}
        try:
            await execute(context, "dump-guest-memory", arguments)
        except TimevmError as refused:
            assert str(refused) and "\n" not in str(refused).replace(name, "")
            assert os.listdir(folder) == []
        else:
            await context.close()
            [found] = os.scandir(folder)
            assert found.stat().st_size > RAM_SIZE if begin is None else found.stat().st_size > 0
