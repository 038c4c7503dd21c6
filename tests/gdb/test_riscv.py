"""Real gdb on the riscv board: registers by name, steps over instructions of two bytes, watchpoints, both ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.cpu.riscv64_assembler import add, addi, branch, c_addi, jal, jalr, load, store
from tests.engine.machine.riscv_guests import NOT_EQUAL, T0, T1, T2, TEST, ZERO, Program
from tests.engine.machine.test_virt_riscv import PLACE, guest
from tests.gdb.replays import gdb, in_order, machine_of, replaying
from tests.linux.harness import record
from timevm.engine.machine.boards.virt_riscv import RAM_BASE
from timevm.engine.machine.spec import MachineSpec

#: what the guest adds to, in each of ROUNDS rounds
CELL, ROUNDS = RAM_BASE + 0x8000, 1000
RA = 1
NOTHING = Path("/dev/null")


def loop() -> Program:
    """Adds the round's number, counting down, to the cell."""
    program = Program()
    program.constant(T0, CELL)
    program.put(addi(T2, ZERO, 7), store(T2, T0), addi(T1, ZERO, ROUNDS))
    program.label("again")
    program.jump("work", lambda offset: jal(RA, offset))
    program.put(c_addi(T1, -1))
    program.jump("again", lambda offset: branch(NOT_EQUAL, T1, ZERO, offset))
    program.write(TEST, 0x5555)
    program.label("stop")
    program.jump("stop")
    program.label("work")
    program.put(load(T2, T0), add(T2, T2, T1))
    program.label("write")
    program.put(store(T2, T0))
    program.label("return")
    program.put(jalr(ZERO, RA))
    return program


PROGRAM = loop()
CODE = PROGRAM.assembled()
WORK, WRITE = PLACE + PROGRAM.offset("work"), PLACE + PROGRAM.offset("write")
AGAIN, BEHIND = PLACE + PROGRAM.offset("again"), PLACE + PROGRAM.offset("return")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> MachineSpec:
    spec = guest(tmp_path_factory.mktemp("riscv"), CODE)
    spec = replace(spec, machine_properties=(("firmware", "none"),))
    record(spec)
    return spec


async def debug(spec: MachineSpec, *commands: str) -> str:
    async with replaying(spec) as session:
        return await gdb(session, commands, NOTHING)


async def test_watchpoints_both_ways(recorded: MachineSpec) -> None:
    output = await debug(
        recorded,
        *(f"break *{WORK:#x}", "continue", "p $t1 == 1000", "delete", f"watch *(long *) {CELL:#x}"),
        *("continue", "p $pc", "continue", "p $pc", "echo --back\\n"),
        *("reverse-continue", "p $pc", f"p *(long *) {CELL:#x}", "reverse-continue", "p $pc", "reverse-continue"),
    )
    in_order(
        output,
        *("Breakpoint 1, ", "= 1", "Hardware watchpoint 2"),
        *("Old value = 7", "New value = 1007", f"{BEHIND:#x}", "Old value = 1007", "New value = 2006", f"{BEHIND:#x}"),
        *("--back", "Old value = 2006", "New value = 1007", f"{WRITE:#x}", " = 1007"),
        *("Old value = 1007", "New value = 7", f"{WRITE:#x}"),
    )


async def test_steps_and_breakpoints_both_ways(recorded: MachineSpec) -> None:
    output = await debug(
        recorded,
        *(f"break *{AGAIN:#x}", "continue", "continue", "echo --steps\\n"),
        *("stepi 6", "p $pc", "reverse-stepi", "p $pc", "reverse-stepi", "p $pc", "reverse-stepi 4", "p $pc"),
        *("reverse-continue", "p $t1", "reverse-continue", "monitor info replay", "continue", "p $t1"),
    )
    in_order(output, "--steps", f"{AGAIN + 6:#x}", f"{AGAIN + 4:#x}", f"{BEHIND:#x}", f"{AGAIN:#x}")
    in_order(output, "--steps", " = 1000", "No more reverse-execution history", "count = 0", "Breakpoint 1", " = 1000")


async def test_registers_by_name(recorded: MachineSpec) -> None:
    output = await debug(
        recorded,
        *(f"break *{WRITE:#x}", "continue", "info registers", "p/x $mhartid", "p/x $priv", "p $ft0", "p $fcsr"),
        *("info registers csr", "x/3i $pc - 8", "info all-registers", "monitor info registers", "monitor x/2i $pc"),
    )
    in_order(
        output,
        *("ra ", "sp ", "t1 ", "0x3e8", "pc ", " = 0x0", " = 0x3", "{float = 0, double = 0}", " = 0", "satp"),
        *("ld", "add", "=>", "sd", " pc       ", " mhartid  ", f"x6/t1    {ROUNDS:016x}", f"0x{WRITE:016x}:  ", "ret"),
    )


async def test_writing_without_a_recording(recorded: MachineSpec) -> None:
    async with machine_of(replace(recorded, mode="none", rrfile=None)) as session:
        output = await gdb(
            session,
            [
                *(f"break *{WORK:#x}", "continue", "p/x $a0 = 0x123456789abcdef0", "p/x $a0", "p $fa1.double = 1.5"),
                *("p $fa1", f"set var *(long *) {CELL:#x} = 3", "delete", f"watch *(long *) {CELL:#x}", "continue"),
            ],
            NOTHING,
        )
    in_order(output, "0x123456789abcdef0", "0x123456789abcdef0", "double = 1.5", "Old value = 3", "New value = 1003")
