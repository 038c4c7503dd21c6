"""Real gdb interrupted with Ctrl-C, and killed, in mid-run and on the way back; and on a machine without a replay."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace

import pytest

from tests.gdb.replays import gdb, in_order, machine_of, output_of, record_loop, replaying, start_gdb, until
from tests.guests import bare
from timevm.engine.control.port import Stops
from timevm.engine.control.run_state import RunState
from timevm.engine.control.vm import Vm
from timevm.engine.machine.spec import MIB, MachineSpec
from timevm.guests import DEMO_AARCH64

LOOP = bare("arm64")
INSTRUCTIONS = 700_000_000
#: in the page that the loop writes to, and not written: the search for it goes through everything
NEVER_HIT = "watch *(char *) 0x40082800"


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> MachineSpec:
    return record_loop(tmp_path_factory.mktemp("loop") / "loop.rr", INSTRUCTIONS)


def state(vm: Vm) -> RunState:
    return vm.run_state


async def interrupted(process: asyncio.subprocess.Process, vm: Vm) -> str:
    """Ctrl-C when the machine has been in motion for a moment."""
    await until(lambda: state(vm) is RunState.RUNNING, "the machine is in motion")
    await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    return await output_of(process)


async def test_ctrl_c_in_continue_and_back_to_the_start(long: MachineSpec) -> None:
    async with replaying(long) as session:
        process = await start_gdb(session, ["continue", "p/x $pc", "reverse-stepi", "stepi", "p/x $pc"], LOOP)
        output = await interrupted(process, session.vm)
        in_order(output, "Program received signal SIGINT, Interrupt.", "loop")
        pcs = [line.split(" = ")[1] for line in output.splitlines() if line.startswith("$")]
        assert len(pcs) == 2 and pcs[0] == pcs[1]


async def test_ctrl_c_in_reverse_continue_leaves_it_where_it_was(long: MachineSpec) -> None:
    async with replaying(long) as session:
        await session.vm.seek(INSTRUCTIONS - 1000)
        process = await start_gdb(session, [NEVER_HIT, "reverse-continue", "monitor info replay"], LOOP)
        output = await interrupted(process, session.vm)
        in_order(output, "Program received signal SIGINT, Interrupt.", f"instruction count = {INSTRUCTIONS - 1000}")


async def test_gdb_killed_while_the_machine_goes_back(long: MachineSpec) -> None:
    async with replaying(long) as session:
        await session.vm.seek(INSTRUCTIONS - 1000)
        process = await start_gdb(session, [NEVER_HIT, "reverse-continue"], LOOP)
        await until(lambda: state(session.vm) is RunState.RUNNING, "the machine goes back")
        process.kill()
        await process.wait()
        await until(lambda: session.vm.stops == Stops(), "its breakpoint is gone")
        assert state(session.vm) is not RunState.RUNNING
        assert (await session.vm.replay_info()).icount == INSTRUCTIONS - 1000
        again = await gdb(session, ["reverse-stepi", "monitor info replay"], LOOP)
        in_order(again, f"instruction count = {INSTRUCTIONS - 1001}")


async def test_gdb_killed_while_it_runs_and_another_one_comes(long: MachineSpec) -> None:
    async with replaying(long) as session:
        process = await start_gdb(session, [NEVER_HIT, "continue"], LOOP)
        await until(lambda: state(session.vm) is RunState.RUNNING, "the machine runs")
        process.kill()
        await process.wait()
        again = await gdb(session, ["info breakpoints", "stepi", "reverse-stepi"], LOOP)
        in_order(again, "No breakpoints or watchpoints.")


async def test_the_kill_command(long: MachineSpec) -> None:
    async with replaying(long) as session:
        await gdb(session, ["kill"], LOOP)
        assert session.vm.over.done()


async def test_two_gdbs(long: MachineSpec) -> None:
    async with replaying(long) as session:
        first = await session.server.connect()
        assert await first.ask(b"?") == b"T05thread:01;"
        output = await gdb(session, [], LOOP)
        in_order(output, "another debugger is connected to this machine")
        first.close()
        in_order(await gdb(session, ["p $pc"], LOOP), "$1 = ")


# -- without a replay


def live(spec: MachineSpec) -> MachineSpec:
    return replace(spec, mode="none", rrfile=None)


async def test_debugging_without_any_recording() -> None:
    spec = MachineSpec(kernel=DEMO_AARCH64, ram_bytes=16 * MIB, shift=3)
    async with machine_of(spec) as session:
        output = await gdb(
            session,
            [
                *("break put_text", "continue", "bt", "finish", "next", "step"),
                *(
                    "watch -l typed_in",
                    "p commands = 41",
                    "p commands",
                    "p $x0 = 7",
                    "p $x0",
                    "p $v3.d.u[1] = 5",
                    "p $v3",
                ),
                *("p $pc = $pc", "p $SCTLR_EL1", "reverse-stepi", "monitor info replay"),
                *("delete", "tbreak *put_char", "continue", "until", "p/c $w0", "call heap_damaged((unsigned *) $sp)"),
            ],
        )
        in_order(
            output,
            *("Breakpoint 1, put_text (text=text@entry=0x40083", '"notebook, ready', "in main ()", "./main.c:492"),
            *("Hardware watchpoint 2", "$1 = 41", "$2 = 41", "$3 = 7", "$4 = 7", "$5 = 5", "u = {0, 5}"),
            *("Target remote does not support this command", "Record/replay is not active"),
            *("Temporary breakpoint 3, put_char (character=62 '>')", "$9 = 62 '>'", "(const struct cell *) 0x0"),
        )


async def test_no_way_back_while_recording(long: MachineSpec) -> None:
    spec = replace(long, mode="record", rrfile=long.rrfile.with_suffix(".again") if long.rrfile else None)
    async with machine_of(spec) as session:
        output = await gdb(session, ["stepi", "reverse-stepi", "p $x0 = 1", "set var *(int *) $pc = 0", "stepi"], LOOP)
        in_order(output, "'monitor look_back' ends the recording", "while recording", "Cannot access memory")
