"""Lines of the human monitor against the toy machine: texts that are QEMU's, and timevm's own commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.monitor.toy_vm import RAM, ToyVm
from timevm.engine.control.port import ReplayMode, SnapshotInfo
from timevm.engine.control.run_state import RunState
from timevm.monitor.commands.context import Chardev, MonitorContext
from timevm.monitor.commands.dispatch import execute
from timevm.monitor.hmp.errors import ParameterError
from timevm.monitor.hmp.expression import Scanner, evaluate
from timevm.monitor.hmp.line import TOP, run_hmp_line
from timevm.monitor.hmp.memory_dump import disassemble
from timevm.monitor.hmp.parameters import FormatMemory, Kind, Parameter, parse_parameters
from timevm.monitor.hmp.registers import render_registers
from timevm.monitor.hmp.snapshot_table import human_size, render_snapshots
from timevm.qmp_schema.registry import COMMANDS


def replaying(icount: int = 0) -> ToyVm:
    vm = ToyVm(ReplayMode.PLAY, end=1000)
    vm.machine.go_to(icount)
    vm.run_state = RunState.PAUSED
    return vm


async def test_info_replay_in_all_modes() -> None:
    vm = ToyVm(ReplayMode.RECORD)
    vm.machine.go_to(12)
    context = MonitorContext(vm)
    assert await run_hmp_line("info replay", context) == "Recording execution 'boot.rr': instruction count = 12\n"
    context = MonitorContext(replaying(7))
    assert await run_hmp_line("info replay", context) == "Replaying execution 'boot.rr': instruction count = 7\n"
    assert await run_hmp_line("info status", context) == "VM status: paused\n"


async def test_seek_relative_and_end() -> None:
    vm = replaying(100)
    context = MonitorContext(vm)
    for line, expected in (
        ("replay_seek 0x10", 16),
        ("replay_seek +4", 20),
        ("replay_seek -(2*5)", 10),
        ("replay_seek end", 1000),
        ("replay_seek  2+3", 5),
    ):
        assert await run_hmp_line(line, context) == ""
        assert vm.machine.icount == expected
    assert await run_hmp_line("replay_seek 1001", context) == "cannot seek to the specified instruction count\n"
    assert await run_hmp_line("replay_seek -6", context) == "cannot seek to the specified instruction count\n"
    assert await run_hmp_line("replay_break +10", context) == ""
    assert vm.breakpoint == 15
    past = "cannot set breakpoint at the instruction in the past\n"
    assert await run_hmp_line("replay_break 4", context) == past
    assert await run_hmp_line("replay_delete_break", context) == ""


async def test_the_ways_back() -> None:
    vm = replaying(100)
    context = MonitorContext(vm)
    printed = await run_hmp_line("reverse_stepi 10", context)
    assert printed.startswith("instruction count = 90: arrived\n0x40000168:  ")
    printed = await run_hmp_line(f"last_write {RAM + 5:#x} 1", context)
    assert printed.startswith("instruction count = 85: watchpoint, write to 0x40000005\n")
    assert printed.endswith("replay_seek 85 goes there\n") and vm.machine.icount == 90
    assert await run_hmp_line("last_write 0x10", context) == "not written since the start of the recording\n"
    assert (await run_hmp_line("reverse_continue", context)).startswith("instruction count = 0: history-began\n")
    line = await run_hmp_line("timeline", context)
    assert "paused at instruction 0, virtual time 0.000000000 s\n" in line and "1000 end\n" in line
    assert await run_hmp_line("info checkpoints", context) == "There are no checkpoints in memory.\n"
    outside = await run_hmp_line("reverse_stepi", MonitorContext(ToyVm()))
    assert outside == "Error: going back is allowed only in play mode\n"


async def test_snapshots() -> None:
    vm = replaying(262154)
    context = MonitorContext(vm)
    assert await run_hmp_line("info snapshots", context) == "There is no snapshot available.\n"
    assert await run_hmp_line("savevm a", context) == ""
    assert (await run_hmp_line("info snapshots", context)).splitlines()[0] == "List of snapshots present on all disks:"
    missing = "Error: Snapshot 'nope' does not exist in one or more devices\n"
    assert await run_hmp_line("loadvm nope", context) == missing
    assert await run_hmp_line("delvm nope", context) == ""
    assert await run_hmp_line("delvm a", context) == "" and vm.saved == []


def test_snapshot_columns_are_qemus(monkeypatch: pytest.MonkeyPatch) -> None:
    # the lines are from tests/monitor/transcripts/hmp-record.json
    monkeypatch.setenv("TZ", "UTC")
    table = render_snapshots(
        [
            SnapshotInfo("1", "init", 428032, 1795539276, 0, 0),
            SnapshotInfo("2", "vm-20261124165436", 0, 1795539276, 0, 262154),
            SnapshotInfo("3", "some-much-longer-tag-name-than-that-column-is-wide", 428032, 1795539276, 0, 262154),
        ]
    )
    assert table == (
        "ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT\n"
        "--        init              418 KiB 2026-11-24 16:54:36 00:00:00.000          0\n"
        "--        vm-20261124165436      0 B 2026-11-24 16:54:36 00:00:00.000     262154\n"
        "--        some-much-longer-tag-name-than-that-column-is-wide  418 KiB 2026-11-24 16:54:36 "
        "00:00:00.000     262154\n"
    )


def test_sizes() -> None:
    assert [human_size(size) for size in (0, 999, 1000, 428032, 16 << 20, 2065694)] == [
        "0 B",
        "999 B",
        "0.977 KiB",
        "418 KiB",
        "16 MiB",
        "1.97 MiB",
    ]


async def test_memory_and_formats() -> None:
    vm = replaying()
    data = bytes.fromhex("d00dfeed00100000000000400000001b90000000")
    vm.machine.memory[: len(data)] = data
    context = MonitorContext(vm)
    for line, expected in (
        ("x/4xw 0x40000000", "0000000040000000: 0xedfe0dd0 0x00001000 0x40000000 0x1b000000\n"),
        ("x/2gx 0x40000000", "0000000040000000: 0x00001000edfe0dd0 0x1b00000040000000\n"),
        ("x/2uw 0x40000000", "0000000040000000: 3992849872       4096\n"),
        ("x/2ub 0x40000000", "0000000040000000: 208  13\n"),
        ("x/3c 0x40000000", "0000000040000000: '\\xd0' '\\r' '\\xfe'\n"),
        ("x/2ob 0x40000000", "0000000040000000: 0320 015\n"),
        ("x/2xh 0x40000000", "0000000040000000: 0x0dd0 0xedfe\n"),
        ("xp/2xw 0x3fffffff", "000000003fffffff: Cannot access memory\n"),
        ("x/9xb $pc", "0000000040000000: 0xd0 0x0d 0xfe 0xed 0x00 0x10 0x00 0x00\n0000000040000008: 0x00\n"),
        ("x/999999999xg 0", "Error: at most 1048576 bytes at once\n"),
    ):
        assert await run_hmp_line(line, context) == expected


async def test_instructions_in_qemus_columns() -> None:
    # words and lines are from tests/monitor/transcripts/hmp-record.json
    vm = replaying()
    words = (0xD2A00600, 0xD5181040, 0xD5033FDF, 0x1E6E1000, 0x10000122, 0x54FFFFA1, 0xEDFE0DD0)
    code = b"".join(word.to_bytes(4, "little") for word in words)
    vm.machine.memory[: len(code)] = code
    assert await disassemble(vm, RAM, len(words), physical=False) == (
        "0x40000000:  d2a00600  mov      x0, #0x300000\n"  # capstone 4 in QEMU: movz x0, #0x30, lsl #16
        "0x40000004:  d5181040  msr      cpacr_el1, x0\n"
        "0x40000008:  d5033fdf  isb      \n"
        "0x4000000c:  1e6e1000  fmov     d0, #1.00000000\n"
        "0x40000010:  10000122  adr      x2, #0x40000034\n"
        "0x40000014:  54ffffa1  b.ne     #0x40000008\n"
        "0x40000018:  edfe0dd0  .byte    0xd0, 0x0d, 0xfe, 0xed\n"
    )


def test_registers_with_float() -> None:
    values = {f"x{number}": 0 for number in range(31)} | {"sp": 0, "pc": 0x40100038, "cpsr": 0x600003C5}
    values |= {f"v{number}": 0 for number in range(32)} | {"fpcr": 0, "fpsr": 0, "CPACR_EL1": 3 << 20}
    values["v31"] = 0xC004 << 48
    text = render_registers(values, "aarch64")
    assert text.startswith(" PC=0000000040100038 X00=0000000000000000 X01=0000000000000000\nX02=")
    assert "PSTATE=600003c5 -ZC- EL1h     FPCR=00000000 FPSR=00000000\nQ00=" in text
    assert text.endswith("Q30=0000000000000000:0000000000000000 Q31=0000000000000000:c004000000000000\n")
    assert render_registers(values | {"CPACR_EL1": 0}, "aarch64").endswith("EL1h    FPU disabled\n")


async def test_help_knows_every_command_and_says_examples() -> None:
    context = MonitorContext(ToyVm())
    listed = await run_hmp_line("help", context)
    for command in TOP:
        assert f"{command.title} " in listed
        for example in command.examples:
            assert f"    example: {example}\n" in await run_hmp_line(f"help {command.names[0]}", context)
    assert await run_hmp_line("help foo", context) == "unknown command: 'foo'\n"


async def test_every_twin_exists() -> None:
    """Every row that names a twin in the human monitor has it there."""
    context = MonitorContext(ToyVm())
    for row in COMMANDS.values():
        if row.hmp is not None:
            assert "unknown command" not in await run_hmp_line(f"help {row.hmp}", context), row.name


async def test_over_qmp() -> None:
    context = MonitorContext(ToyVm(), chardevs=[Chardev("serial0", "null")], human_monitor=run_hmp_line)
    for line, printed in (
        ("info chardev", "serial0: filename=null\r\n"),
        ("", ""),
        ("foo", "unknown command: 'foo'\r\n"),
    ):
        assert await execute(context, "human-monitor-command", {"command-line": line}) == printed


async def test_memsave_needs_quotes_as_qemu_does_not(tmp_path: Path) -> None:
    target = tmp_path / "m"
    context = MonitorContext(ToyVm())
    assert await run_hmp_line(f'memsave 0x40000000 4 "{target}"', context) == ""
    assert target.read_bytes() == bytes(4)
    assert await run_hmp_line('memsave 0 4 "/none', context) == (
        'unterminated string\nmemsave: string expected\nTry "help memsave" for more information\n'
    )


@given(st.text(max_size=60) | st.from_regex(r"\A(x|xp|print|info|help|replay_seek|memsave|loadvm)[ /][^\n]{0,30}\Z"))
async def test_any_line_prints_something_and_raises_nothing(line: str) -> None:
    assert isinstance(await run_hmp_line(line, MonitorContext(ToyVm())), str)


@given(st.text(alphabet="0123456789abx+-*/%&|^~()$' ", max_size=40))
def test_expressions_are_64_bits_or_an_error(text: str) -> None:
    try:
        value = evaluate(Scanner(text), {"a": 1})
    except ParameterError:
        return
    assert -(1 << 63) <= value < 1 << 63


def test_expressions() -> None:
    for text, value in (
        ("0x10", 16),
        ("010", 8),
        ("1+2*3", 7),
        ("6&3|8^1", 11),
        ("1+2&3", 3),
        ("-7/2", -3),
        ("-7%2", -1),
        ("~0", -1),
        ("'a'", 97),
        ("$X1+1", 6),
        ("0xffffffffffffffff", -1),
    ):
        assert evaluate(Scanner(text), {"x1": 5}) == value, text
    for text, sentence in (
        ("", "unexpected end of expression"),
        ("q", "invalid char 'q' in expression"),
        ("(1", "')' expected"),
        ("1/0", "division by zero"),
        ("$foo", "unknown register"),
        ("99999999999999999999999", "number too large"),
        ("(" * 5000, "expression is nested too deeply"),
    ):
        with pytest.raises(ParameterError) as caught:
            evaluate(Scanner(text), {})
        assert str(caught.value) == sentence


def test_format_is_remembered() -> None:
    memory = FormatMemory()
    declared = (Parameter("format", Kind.FORMAT), Parameter("value", Kind.EXPRESSION))
    seen = []
    for text in ("1", "/2dg 1", "1", "/i 1", "1", "/x 1", "/c 1"):
        wanted = parse_parameters(text, declared, "x", {}, memory)["format"]
        seen.append((wanted.count, wanted.format, wanted.size))
    assert seen == [(1, "x", 4), (2, "d", 8), (1, "d", 8), (1, "i", 0), (1, "i", 0), (1, "x", 8), (1, "c", 1)]
