"""Real gdb on a replay of the demo guest: every way back, both ends of history, watchpoints with the right values."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.engine.timeline.test_device_writes import all_writes, popular
from tests.gdb.replays import gdb, in_order, record_demo, replaying
from tests.guests import bare
from tests.linux.harness import Outcome, record
from tests.linux.test_disk_guest import guest
from timevm.engine.machine.spec import MachineSpec

#: the damaged header of the third cell (DAMAGE), as the guest says itself
CELL = 0x40089060


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[MachineSpec, Outcome]:
    spec, outcome = record_demo(tmp_path_factory.mktemp("demo") / "demo.rr")
    assert b"heap corrupted: cell 3 at 0x%x" % CELL in outcome.console
    return spec, outcome


async def debug(recorded: tuple[MachineSpec, Outcome], *commands: str) -> str:
    async with replaying(recorded[0]) as session:
        return await gdb(session, commands)


PCS = "python print('pcs', *(int(gdb.parse_and_eval('$pc')) for _ in [gdb.execute('{step}', to_string=True)]))"


async def test_ten_steps_and_back(recorded: tuple[MachineSpec, Outcome]) -> None:
    """The steps of QEMU's functional test."""
    forward, backward = PCS.format(step="stepi"), PCS.format(step="reverse-stepi")
    output = await debug(
        recorded, "break main", "continue", "delete", *[forward] * 10, *[backward] * 10, *[forward] * 10
    )
    pcs = [int(pc) for pc in re.findall(r"^pcs (\d+)", output, re.MULTILINE)]
    assert len(pcs) == 30 and len(set(pcs[:10])) > 3
    assert pcs[10:19] == pcs[:9][::-1]
    assert pcs[20:] == pcs[:10]


async def test_breakpoints_and_steps_over_c(recorded: tuple[MachineSpec, Outcome]) -> None:
    output = await debug(
        recorded,
        *("break main", "continue", "next", "next", "next", "reverse-continue", "echo --2\\n"),
        *("delete", "break text_value", "continue", "next", "next", "echo --3\\n", "reverse-next", "echo --4\\n"),
        *("finish", "echo --5\\n", "reverse-step", "echo --6\\n", "reverse-finish", "echo --7\\n"),
    )
    in_order(
        output,
        *("Breakpoint 1, main () at ./main.c:485", "488\t", "489\t", "490\t", "Breakpoint 1, main ()", "--2"),
        *("Breakpoint 2, text_value (owner", "./main.c:81", "84\t", "86\t", "--3", "84\t", "--4"),
        *("keep (value", "./main.c:89", "--5", "./main.c:88", "--6", "Breakpoint 2, text_value", "--7"),
    )


async def test_reverse_next_goes_around_calls_and_reverse_step_into_them(
    recorded: tuple[MachineSpec, Outcome],
) -> None:
    output = await debug(
        recorded,
        *("break do_push", "continue", "next", "next", "echo --a\\n"),
        *("reverse-next", "echo --b\\n", "next", "reverse-step", "echo --c\\n", "bt", "reverse-finish", "echo --d\\n"),
    )
    in_order(output, "Breakpoint 1, do_push () at ./main.c:346", "take_expression", "--a")
    in_order(output, "--a", "--b", "--c", "in do_push ()", "--d")


async def test_reverse_finish_ends_before_the_call(recorded: tuple[MachineSpec, Outcome]) -> None:
    output = await debug(recorded, "break heap_take if owner == 1074299480", "continue", "reverse-finish", "x/i $pc")
    in_order(output, "Breakpoint 1, heap_take", "number_value", "./main.c:68", "bl\t0x40081e48 <heap_take>")


async def test_reverse_until_and_advance(recorded: tuple[MachineSpec, Outcome]) -> None:
    output = await debug(recorded, "break check_heap", "continue", "up", "reverse-stepi", "until", "p $pc")
    in_order(output, "Breakpoint 1, check_heap", "main () at ./main.c:497", "./main.c:49")


async def test_who_damaged_the_heap(recorded: tuple[MachineSpec, Outcome]) -> None:
    output = await debug(
        recorded,
        *("continue", f"watch -l *(unsigned int *){CELL:#x}"),
        *("reverse-continue", "info locals", "x/i $pc", f"x/wx {CELL:#x}", "echo --back\\n"),
        *("reverse-continue", "x/i $pc", "echo --further\\n"),
        *("continue", "echo --f1\\n", "continue", "x/i $pc", f"x/wx {CELL:#x}"),
    )
    in_order(
        output,
        "No more reverse-execution history",
        # the guilty write, before it happens: the old value is there to be seen
        *("Hardware watchpoint 1", "Old value = 0", "New value = 17", "./main.c:88", "kept[index] = '\\0';"),
        *('"sixteen letters!', "strb\twzr, [x0, x19]", f"{CELL:#x} <arena+96>:\t0x00000011", "--back"),
        *("Old value = 17", "New value = 65424", "heap_take", "./heap.c:", "str\tw2, [x0]", "--further"),
        # and forward again: behind each write, with the new value
        *("Old value = 65424", "New value = 17", "--f1"),
        *("Old value = 17", "New value = 0", "./main.c:89", f"{CELL:#x} <arena+96>:\t0x00000000"),
    )


async def test_a_watchpoint_stops_reverse_steps_and_reverse_next(recorded: tuple[MachineSpec, Outcome]) -> None:
    output = await debug(
        recorded,
        *("break *(keep + 100) if $x19 == 16", "continue", "delete"),
        *(f"watch -l *(unsigned int *){CELL:#x}", "reverse-next", "x/i $pc"),
    )
    in_order(output, "./main.c:89", "Old value = 0", "New value = 17", "./main.c:88", "strb\twzr, [x0, x19]")


async def test_read_and_access_watchpoints(recorded: tuple[MachineSpec, Outcome]) -> None:
    output = await debug(
        recorded,
        *("continue", "rwatch -l stack_depth", "reverse-continue", "x/i $pc", "echo --r\\n"),
        *("reverse-continue", "x/i $pc", "echo --r2\\n"),
        *("delete", "awatch -l stack_depth", "continue", "echo --a\\n", "continue", "echo --a2\\n"),
        *("reverse-continue", "x/i $pc", "echo --a3\\n"),
    )
    in_order(
        output,
        *("Hardware read watchpoint 1: -location stack_depth", "Value = 0", "./main.c:354", "ldr\tw1", "--r"),
        *("Hardware read watchpoint 1", "Value = 0", "do_push () at ./main.c:348", "ldr\tw19", "--r2"),
        # forward gdb stops behind the access
        *("Hardware access (read/write) watchpoint 2", "Value = 0", "./main.c:348", "--a"),
        *("Hardware access (read/write) watchpoint 2", "Value = 0", "./main.c:354", "--a2"),
        *("Hardware access (read/write) watchpoint 2", "Value = 0", "./main.c:354", "ldr\tw1", "--a3"),
    )


async def test_conditional_breakpoints_in_reverse(recorded: tuple[MachineSpec, Outcome]) -> None:
    output = await debug(
        recorded,
        *("continue", "break text_value if text[0] == 'f'", "reverse-continue", "p (char *) text"),
        *("echo --first\\n", "reverse-continue"),
    )
    in_order(output, "Breakpoint 1, text_value", '"first program"', "--first", "No more reverse-execution history")


async def test_both_ends_of_history(recorded: tuple[MachineSpec, Outcome]) -> None:
    output = await debug(
        recorded,
        *("reverse-continue", "echo --1\\n", "reverse-stepi", "echo --2\\n", "reverse-step", "echo --3\\n"),
        *("continue", "echo --4\\n", "stepi", "echo --5\\n", "continue", "echo --6\\n"),
        *("reverse-stepi", "p $pc", "stepi", "reverse-continue", "p $pc"),
    )
    no_more = "No more reverse-execution history"
    for mark in range(1, 7):
        in_order(output.split(f"--{mark}")[0].split(f"--{mark - 1}")[-1], no_more)
    in_order(output, "--6", "<power_off+", no_more, "<_start>")


async def test_detached_and_attached_again(recorded: tuple[MachineSpec, Outcome]) -> None:
    async with replaying(recorded[0]) as session:
        first = await gdb(session, ["break main", "continue", "detach"])
        in_order(first, "Breakpoint 1, main", "detached")
        again = await gdb(session, ["p $pc", "break check_heap", "reverse-continue", "bt"])
        in_order(again, "Breakpoint 1, check_heap", "in main ()")


async def test_other_commands_that_people_use(recorded: tuple[MachineSpec, Outcome]) -> None:
    output = await debug(
        recorded,
        *("info registers general", "p $v0", "p $fpcr", "info registers system", "p $cpsr", "info all-registers"),
        *("x/4i $pc", "info threads", "info mem", "tbreak carry_out", "continue", "bt", "info frame", "info source"),
        *("list carry_out", "p table", "p variables[0]", "info line", "display/i $pc", "si", "until", "stepi 100"),
        *("p $pc = 0", "set variable commands = 7", "p commands"),
    )
    in_order(
        output,
        *("x30", "CPACR_EL1", "[ SP EL=1", "adrp\tx0", "Thread 1.1 (CPU#0 [halted])", "0x0000000041000000"),
        *("Temporary breakpoint 1", "main ()", "main.c", "do_let", "=> 0x"),
        *("Could not write register", "cannot be written while replaying", "Cannot access memory", "= 0"),
    )


async def test_the_direction_set_once(recorded: tuple[MachineSpec, Outcome]) -> None:
    output = await debug(
        recorded,
        *("break check_heap", "continue", "set exec-direction reverse", "stepi", "x/i $pc", "step", "next", "nexti"),
        *("continue", "set exec-direction forward", "continue"),
    )
    in_order(output, "Breakpoint 1", "bl\t0x4008158c <check_heap>", "No more reverse-execution", "Breakpoint 1")


async def test_until_and_advance_in_reverse(recorded: tuple[MachineSpec, Outcome]) -> None:
    output = await debug(
        recorded,
        *("break check_heap", "continue", "set exec-direction reverse", "until", "until", "advance heap_take"),
        *("finish", "until"),
    )
    in_order(output, "Breakpoint 1", "./main.c:497", "put_text", "heap_take (size", "./main.c:81", "98\t")


async def test_physical_addresses(recorded: tuple[MachineSpec, Outcome]) -> None:
    packets = ("qqemu.PhyMemMode", "Qqemu.PhyMemMode:1", "qqemu.PhyMemMode")
    output = await debug(recorded, *(f"maintenance packet {packet}" for packet in packets), "x/i 0x40080000")
    in_order(output, 'received: "0"', 'received: "OK"', 'received: "1"', "<_start>:\tadrp")


async def test_what_a_device_writes_is_watched(tmp_path: Path) -> None:
    """The disk counts what it has done in the guest's memory: by DMA, between two instructions."""
    spec = guest(tmp_path, 1, requests=20)
    record(spec)
    count = f"*(unsigned short *){popular(all_writes(spec), early=True):#x}"
    async with replaying(spec) as session:
        output = await gdb(
            session,
            [f"watch {count}", *["continue"] * 3, *["reverse-continue"] * 3, "monitor info replay"],
            elf=bare("disk"),
        )
    values = [int(value) for value in re.findall(r"^(?:Old|New) value = (\d+)", output, re.MULTILINE)]
    assert len(values) == 12, output
    changes = list(zip(values[::2], values[1::2], strict=True))
    forward, backward = changes[:3], changes[3:]
    assert all(old < new for old, new in forward) and all(a[1] == b[0] for a, b in pairwise(forward)), output
    assert backward == [(new, old) for old, new in reversed(forward)], output
