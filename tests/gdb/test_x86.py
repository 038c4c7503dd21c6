"""Real gdb on the PC, in 32 and in 64 bits: registers, watchpoints with right values, both ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.machine.pc_guests import kernel
from tests.gdb.replays import gdb, in_order, machine_of, replaying
from tests.linux.harness import SLICE, Terminal, build, finish, steps_of
from timevm.engine.cpu.x86_64_registers import REGISTERS
from timevm.engine.machine.spec import MIB, MachineSpec
from timevm.gdb import x86_features

WORK, CELL, ROUNDS = 0x201000, 0x202000, 1000
#: adds the round's number, counting down, to the cell in each of ROUNDS rounds
BODY = f"""
    mov ecx, {ROUNDS}
again:
    call work
    loop again
    jmp off
times 0x1000 - ($ - $$) db 0
work:
    mov eax, [cell]
    add eax, ecx
    mov [cell], eax
    ret
times 0x2000 - ($ - $$) db 0
cell: dd 7
"""
NOTHING = Path("/dev/null")


def spec_of(architecture: str, folder: Path) -> MachineSpec:
    return MachineSpec(
        architecture=architecture,
        machine="pc",
        cpu="qemu64" if architecture == "x86_64" else "qemu32",
        kernel=kernel(BODY, folder / "kernel"),
        ram_bytes=32 * MIB,
        shift=3,
        mode="record",
        rrfile=folder / "kernel.rr",
    )


@pytest.fixture(scope="module", params=["i386", "x86_64"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MachineSpec:
    spec = spec_of(request.param, tmp_path_factory.mktemp("pc"))
    terminal = Terminal()
    machine = build(spec, terminal)
    try:
        finish(machine, terminal, steps_of(SLICE), lambda machine: None)
    finally:
        machine.close()
    return spec


async def debug(spec: MachineSpec, *commands: str) -> str:
    async with replaying(spec) as session:
        return await gdb(session, commands, NOTHING)


def test_numbers_and_sizes_are_qemus() -> None:
    for describe, pc, size in ((x86_features.describe_64, 16, 8), (x86_features.describe_32, 8, 4)):
        description = describe(REGISTERS)
        names = [register.name for register in description.registers]
        assert names.index(description.program_counter.name) == pc
        assert description.program_counter.size == size
        known = {register.name: register for register in REGISTERS}
        for register in description.registers:
            assert register.source is None or register.source in known, register


async def test_watchpoints_both_ways(recorded: MachineSpec) -> None:
    output = await debug(
        recorded,
        *(f"break *{WORK:#x}", "continue", "p $ecx == 1000", "delete", f"watch *(int *) {CELL:#x}"),
        *("continue", "p $pc", "continue", "p $pc", "echo --back\\n"),
        *("reverse-continue", "p $pc", f"p *(int *) {CELL:#x}", "reverse-continue", "p $pc", "reverse-continue"),
    )
    behind, before = WORK + 12, WORK + 7
    in_order(
        output,
        *("Breakpoint 1, ", "Hardware watchpoint 2"),
        # forward gdb stands behind the write, with the new value
        *("Old value = 7", "New value = 1007", f"{behind:#x}", "Old value = 1007", "New value = 2006", f"{behind:#x}"),
        # backward before it, with the old one
        *("--back", "Old value = 2006", "New value = 1007", f"{before:#x}", " = 1007"),
        *("Old value = 1007", "New value = 7", f"{before:#x}", "No more reverse-execution history"),
    )


async def test_steps_and_breakpoints_both_ways(recorded: MachineSpec) -> None:
    output = await debug(
        recorded,
        *(f"break *{WORK:#x}", "continue", "continue", "stepi", "stepi", "reverse-stepi", "p $pc"),
        *("reverse-continue", "p $pc", "p $cx", "reverse-continue", "p $cx", "reverse-continue"),
        *("monitor info replay", "continue", "p $cx", "delete", "continue"),
    )
    in_order(
        output,
        *("Breakpoint 1", "Breakpoint 1", f"{WORK + 5:#x}", f"{WORK:#x}", " = 999", " = 1000"),
        *("No more reverse-execution history", "instruction count = 0", "Breakpoint 1", " = 1000", "No more reverse"),
    )


async def test_registers_by_name(recorded: MachineSpec) -> None:
    commands = ["info registers eflags cs", "p $st0", "p $xmm1", "p/x $mxcsr", "p/x $fctrl", "p $fiseg", "p/x $cr0"]
    output = await debug(recorded, *commands, "info registers system", "info all-registers", "x/i $pc")
    in_order(output, "eflags", "cs ", "v4_float", "0x1f80", "0x37f", " = 0", "gdt_base", "efer", "=> 0xfff0")


async def test_writing_without_a_recording(tmp_path: Path) -> None:
    spec = spec_of("x86_64", tmp_path)
    async with machine_of(replace(spec, mode="none", rrfile=None)) as session:
        output = await gdb(
            session,
            [
                *(f"break *{WORK:#x}", "continue", "p $rax = 0x123456789abcdef0", "p/x $eax", "p/x $rax"),
                *(
                    "p $xmm3.v4_int32[2] = 5",
                    "p $xmm3.v4_int32",
                    "p $st0 = 1.5",
                    "p $st0",
                    f"set var *(int *) {CELL:#x} = 3",
                ),
                *("delete", f"watch *(int *) {CELL:#x}", "continue"),
            ],
            NOTHING,
        )
    in_order(
        output,
        *("0x9abcdef0", "0x123456789abcdef0", "{0, 0, 5, 0}", "1.5", "Old value = 3", "New value = 1003"),
    )
