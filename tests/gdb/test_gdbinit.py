"""The shipped helper for gdb, and the human monitor through gdb's ``monitor``, with and without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gdb.replays import gdb, in_order, record_demo, replaying
from tests.gdb.test_reverse_with_gdb import CELL
from timevm.engine.machine.spec import MachineSpec
from timevm.gdb import session as session_module

HELPER = f"source {Path(session_module.__file__).with_name('gdbinit.py')}"


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> MachineSpec:
    return record_demo(tmp_path_factory.mktemp("demo") / "demo.rr")[0]


async def debug(spec: MachineSpec, *commands: str) -> str:
    async with replaying(spec) as session:
        return await gdb(session, commands)


async def test_seeking_and_stepping_both_ways(spec: MachineSpec) -> None:
    output = await debug(
        spec,
        *(HELPER, "tvm icount", "break check_heap", "continue", "p $_icount - $icount()"),
        *("monitor replay_seek 55000", "p $_icount", "bt 1", "tvm seek +36", "tvm seek -1", "next", "reverse-next"),
        *("stepi", "reverse-stepi", "tvm icount", "tvm seek end", "tvm seek 99999999", "tvm seek", "tvm refresh"),
    )
    in_order(
        output,
        *("\n0\n", "Breakpoint 1, check_heap", "$1 = 0", "$2 = 55000", "text_value (owner"),
        *("./main.c:88", "./main.c:86", "88\t", "86\t", "power_off () at ./start.S:123"),
        *("cannot seek to the specified instruction count", "tvm seek N, +N, -N or end", "power_off ()"),
    )
    assert "another moment" not in output


async def test_questions_about_history(spec: MachineSpec) -> None:
    output = await debug(
        spec,
        *(HELPER, "tvm seek end", f"tvm last-write *(unsigned *){CELL:#x}", "tvm last-write stack_depth"),
        *(f"tvm last-write {CELL:#x}", "tvm last-write 0x40f00000", "tvm timeline", "tvm checkpoints", "p $pc"),
    )
    in_order(
        output,
        *(f"watchpoint, write to {CELL:#x}", "strb     wzr, [x0, x19]", "goes there"),
        *("watchpoint, write to 0x40088250", "str      w1, [x0, #0x250]"),
        *("strb     wzr, [x0, x19]", "not written since the start of the recording", "0 start", "end", "<power_off+"),
    )


async def test_watchpoints_know_the_values_of_the_new_moment(spec: MachineSpec) -> None:
    output = await debug(spec, HELPER, "tvm seek end", f"watch -l *(unsigned *){CELL:#x}", "tvm seek 50000", "continue")
    in_order(output, "Hardware watchpoint 1", "Old value = 0", "New value = 65424")


async def test_the_helper_elsewhere(spec: MachineSpec) -> None:
    async with replaying(spec) as session:
        commands = ["tvm icount", "p $icount()", "p $_icount", "help tvm", "tvm seek 4", "tvm last-write no"]
        output = await gdb(session, [HELPER, "disconnect", *commands])
    in_order(output, "not connected to timevm", "not connected to timevm", "List of tvm subcommands")
    in_order(output, "tvm seek -- Go to another moment", '"monitor" command not supported', 'No symbol "no" in current')
    assert "Python Exception" not in output


async def test_monitor_without_the_helper(spec: MachineSpec) -> None:
    output = await debug(
        spec,
        *("break check_heap", "continue", "monitor info replay", "monitor replay_seek 55036"),
        *("maint flush register-cache", "bt 1", "stepi", "reverse-stepi", "monitor reverse_stepi 3", "stepi"),
        *("monitor nonsense", "monitor help replay_seek", "monitor x/2i $pc", "monitor replay_seek -100000"),
    )
    in_order(
        output,
        *(
            "Replaying execution",
            "instruction count = 67652",
            "the machine is at another moment now (instruction 55036)",
        ),
        *("./main.c:88", "return kept", "./main.c:88", "instruction 55033", "86\t"),
    )
    for text in ("unknown command: 'nonsense'", "replay_seek icount", "cannot seek to the specified instruction count"):
        assert text in output
