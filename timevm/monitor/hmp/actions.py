"""The commands that do something: run, go, save, look."""

from __future__ import annotations

from typing import Any

from timevm.engine.control.port import ReplayInfo, ReplayMode, RunEnd
from timevm.monitor.commands.dispatch import execute
from timevm.monitor.hmp.checksum import sum_
from timevm.monitor.hmp.errors import HmpError
from timevm.monitor.hmp.memory_dump import disassemble, dump_memory, print_value
from timevm.monitor.hmp.parameters import Kind, Parameter
from timevm.monitor.hmp.table import Call, HmpCommand
from timevm.monitor.hmp.timeline_picture import ASCII, UNICODE, WIDTH, Moment, draw
from timevm.qmp_schema.extension import TimevmInstruction, TimevmStopped, TimevmStopReason, TimevmTimeline

_ADDRESS = Parameter("address", Kind.EXPRESSION)
_ADDRESS_32 = Parameter("address", Kind.SMALL)
_MEMORY_FORMAT = Parameter("format", Kind.FORMAT)
_FILENAME = Parameter("filename", Kind.STRING)
_COUNT = Parameter("count", Kind.EXPRESSION, optional=True)


async def _execute(call: Call, name: str, **arguments: Any) -> Any:
    wire = {key.replace("_", "-"): value for key, value in arguments.items()}
    return await execute(call.context, name, wire)


async def stop(call: Call) -> str:
    await _execute(call, "stop")
    return ""


async def cont(call: Call) -> str:
    await _execute(call, "cont")
    return ""


async def system_reset(call: Call) -> str:
    await _execute(call, "system_reset")
    return ""


async def system_powerdown(call: Call) -> str:
    await _execute(call, "system_powerdown")
    return ""


async def nmi(call: Call) -> str:
    await _execute(call, "inject-nmi")
    return ""


async def quit_(call: Call) -> str:
    await _execute(call, "quit")
    return ""


def _target(position: tuple[bool, int] | str, info: ReplayInfo) -> int:
    """The icount meant by ``N``, ``+N``, ``-N`` or ``end``."""
    if isinstance(position, str):
        if info.mode is ReplayMode.PLAY and info.end is None:
            raise HmpError("the end of the recording is not known yet")
        return info.end or 0
    relative, value = position
    return info.icount + value if relative else value


async def replay_seek(call: Call) -> str:
    vm = call.context.vm
    info = await vm.replay_info()
    if info.mode is not ReplayMode.PLAY:
        raise HmpError("replay must be enabled to seek")
    icount = _target(call.values["icount"], info)
    if icount < 0 or (info.end is not None and icount > info.end):
        raise HmpError("cannot seek to the specified instruction count")
    result = await vm.seek(icount)
    return f"instruction count = {result.icount}: interrupted\n" if result.end is RunEnd.KICKED else ""


async def replay_break(call: Call) -> str:
    info = await call.context.vm.replay_info()
    await _execute(call, "replay-break", icount=_target(call.values["icount"], info))
    return ""


async def replay_delete_break(call: Call) -> str:
    await _execute(call, "replay-delete-break")
    return ""


async def savevm(call: Call) -> str:
    await call.context.vm.save_snapshot(call.values.get("name"))
    return ""


async def loadvm(call: Call) -> str:
    await call.context.vm.load_snapshot(call.values["name"])
    return ""


async def delvm(call: Call) -> str:
    if any(snapshot.tag == call.values["name"] for snapshot in await call.context.known_snapshots()):
        await call.context.vm.delete_snapshot(call.values["name"])
    return ""


async def examine(call: Call) -> str:
    return await dump_memory(call.context.vm, call.values["address"], call.values["format"], physical=False)


async def examine_physical(call: Call) -> str:
    return await dump_memory(call.context.vm, call.values["address"], call.values["format"], physical=True)


async def print_(call: Call) -> str:
    return print_value(call.values["value"], call.values["format"].format) + "\n"


async def memsave(call: Call) -> str:
    values = call.values
    await _execute(call, "memsave", val=values["address"], size=values["size"], filename=values["filename"])
    return ""


async def pmemsave(call: Call) -> str:
    values = call.values
    await _execute(call, "pmemsave", val=values["address"], size=values["size"], filename=values["filename"])
    return ""


async def gva2gpa(call: Call) -> str:
    address = call.values["address"] & (1 << 64) - 1
    physical = await call.context.vm.inspect(lambda machine: machine.translate(address))
    return "Unmapped\n" if physical is None else f"gpa: {physical:#x}\n"


async def gdbserver(call: Call) -> str:
    if call.context.gdb_server is None:
        raise HmpError("this timevm was started without its gdb server: use -gdb or -s")
    return await call.context.gdb_server(call.values.get("device", "tcp::1234"))


async def _where(call: Call, stopped: TimevmStopped) -> str:
    text = f"instruction count = {stopped.icount}: {stopped.reason.value}"
    if stopped.address is not None:
        text += f", {'write to' if stopped.write else 'read of'} {stopped.address:#x}"
    if stopped.device is not None:
        text += f" by device {stopped.device}"
    if stopped.detail:
        text += f" ({stopped.detail})"
    text += "\n"
    if stopped.pc is not None:
        text += await disassemble(call.context.vm, stopped.pc, 1, physical=False)
    return text


async def stepi(call: Call) -> str:
    return await _where(call, await _execute(call, "x-timevm-step", count=call.values.get("count", 1)))


async def reverse_stepi(call: Call) -> str:
    return await _where(call, await _execute(call, "x-timevm-reverse-step", count=call.values.get("count", 1)))


async def reverse_continue(call: Call) -> str:
    return await _where(call, await _execute(call, "x-timevm-reverse-continue"))


async def look_back(call: Call) -> str:
    where = await _where(call, await _execute(call, "x-timevm-look-back"))
    return f"{where}the recording ends here, and this is its replay now: reverse_stepi, reverse_continue go back\n"


async def last_write(call: Call) -> str:
    address, length = call.values["address"] & (1 << 64) - 1, call.values.get("length", 8)
    physical = call.values.get("physical", False)
    stopped: TimevmStopped = await _execute(
        call, "x-timevm-last-write", address=address, length=length, physical=physical
    )
    if stopped.reason is TimevmStopReason.INTERRUPTED:
        return await _where(call, stopped)
    if stopped.address is None:
        return "not written since the start of the recording\n"
    return f"{await _where(call, stopped)}replay_seek {stopped.icount} goes there\n"


async def find(call: Call) -> str:
    address = call.values["address"] & (1 << 64) - 1
    stopped: TimevmStopped = await _execute(call, "x-timevm-find", breakpoints=[address])
    if stopped.reason is TimevmStopReason.INTERRUPTED:
        return await _where(call, stopped)
    if stopped.reason is TimevmStopReason.HISTORY_BEGAN:
        return "not executed since the start of the recording\n"
    return f"{await _where(call, stopped)}replay_seek {stopped.icount} goes there\n"


async def instructions(call: Call) -> str:
    found: list[TimevmInstruction] = await _execute(call, "x-timevm-instructions", count=call.values.get("count", 20))
    lines = []
    following = None
    for each in found:
        if following not in (None, each.pc):
            lines.append("")  # not the one behind it in memory: a branch was taken, an exception or an interrupt
        following = each.pc + len(each.code) // 2
        mnemonic, _, operands = (each.text or f"bytes {each.code}").partition(" ")
        lines.append(f"{each.icount:>14}  {each.pc:#018x}  {mnemonic:<8} {operands}".rstrip())
    return "".join(f"{line}\n" for line in lines) or "nothing was executed before this\n"


async def _picture(call: Call, line: TimevmTimeline) -> str:
    """Nothing where there is no recording.  A client of plain lines gets plain characters."""
    known = {mark.kind: mark.icount for mark in line.marks}
    if "start" not in known:
        return ""
    checkpoints = (await _execute(call, "x-timevm-query-checkpoints")).checkpoints
    columns = call.state.columns
    rows = draw(
        (known["start"], known.get("end", line.icount)),
        line.icount,
        [Moment(mark.icount, mark.name or mark.kind) for mark in line.marks if mark.kind not in ("start", "end")],
        [checkpoint.icount for checkpoint in checkpoints],
        WIDTH if columns is None else max(20, columns - 2),
        ASCII if columns is None else UNICODE,
    )
    return "".join(f"{row}\n" for row in rows)


async def timeline(call: Call) -> str:
    line = await _execute(call, "x-timevm-timeline")
    text = f"{line.status.value} at instruction {line.icount}, virtual time {line.virtual_time_ns / 1e9:.9f} s\n"
    text += await _picture(call, line)
    for mark in line.marks:
        arrow = "->" if mark.kind == "now" else "  "
        text += f"{arrow} {mark.icount:>20} {mark.kind}{f' {mark.name}' if mark.name else ''}\n"
    return text


ACTIONS: tuple[HmpCommand, ...] = (
    HmpCommand(("cont", "c"), "let the machine run", cont),
    HmpCommand(
        ("delvm",),
        "delete a snapshot",
        delvm,
        (Parameter("name", Kind.STRING),),
        "tag",
        ("delvm before-crash",),
    ),
    HmpCommand(
        ("find",),
        "when was the instruction at this address executed last? (the machine stays where it is)",
        find,
        (_ADDRESS,),
        "addr",
        ("find 0x40080120",),
    ),
    HmpCommand(
        ("gdbserver",),
        "start a gdb server ('none' ends it)",
        gdbserver,
        (Parameter("device", Kind.STRING, optional=True),),
        "[device]",
        ("gdbserver tcp::1234",),
    ),
    HmpCommand(
        ("gva2gpa",),
        "the physical address of a virtual one",
        gva2gpa,
        (_ADDRESS,),
        "addr",
        ("gva2gpa $sp",),
    ),
    HmpCommand(
        ("instructions",),
        "the last instructions that were executed before this (the machine stays where it is)",
        instructions,
        (_COUNT,),
        "[count]",
        ("instructions", "instructions 1000"),
    ),
    HmpCommand(
        ("last_write",),
        "who wrote this memory last? (the machine stays where it is)",
        last_write,
        (
            Parameter("physical", Kind.FLAG, flag="p"),
            _ADDRESS,
            Parameter("length", Kind.EXPRESSION, optional=True),
        ),
        "[-p] addr [length]",
        ("last_write 0x40200000 4", "last_write $sp+8", "last_write -p 0x47ff0000"),
    ),
    HmpCommand(
        ("loadvm",),
        "put the machine back to a snapshot",
        loadvm,
        (Parameter("name", Kind.STRING),),
        "tag",
        ("loadvm before-crash",),
    ),
    HmpCommand(("look_back",), "end the recording here, and go on as its replay: one can go back at once", look_back),
    HmpCommand(
        ("memsave",),
        "write 'size' bytes of virtual memory to a file",
        memsave,
        (_ADDRESS, Parameter("size", Kind.SMALL), _FILENAME),
        "addr size file",
        ('memsave $sp 0x100 "stack.bin"',),
    ),
    HmpCommand(("nmi",), "inject a non-maskable interrupt, as a button on the PC's front did", nmi),
    HmpCommand(
        ("pmemsave",),
        "write 'size' bytes of physical memory to a file",
        pmemsave,
        (_ADDRESS, Parameter("size", Kind.EXPRESSION), _FILENAME),
        "addr size file",
        ('pmemsave 0x40000000 4096 "page.bin"',),
    ),
    HmpCommand(
        ("print", "p"),
        "the value of an expression (registers as $name)",
        print_,
        (_MEMORY_FORMAT, Parameter("value", Kind.EXPRESSION)),
        "/fmt expr",
        ("print/x $pc", "print/d ($x0 + 8) * 2"),
    ),
    HmpCommand(("quit", "q"), "end timevm: the recording is closed in order", quit_),
    HmpCommand(
        ("replay_break",),
        "stop the replay at an instruction count",
        replay_break,
        (Parameter("icount", Kind.POSITION),),
        "icount",
        ("replay_break 220414", "replay_break +1000"),
        prefix=False,
    ),
    HmpCommand(
        ("replay_delete_break",),
        "remove the breakpoint of replay_break",
        replay_delete_break,
        prefix=False,
    ),
    HmpCommand(
        ("replay_seek",),
        "go to an instruction count, forward or back",
        replay_seek,
        (Parameter("icount", Kind.POSITION),),
        "icount",
        ("replay_seek 220414", "replay_seek -1000", "replay_seek end"),
        prefix=False,
    ),
    HmpCommand(("reverse_continue",), "run backwards to the last stop that was hit", reverse_continue),
    HmpCommand(
        ("reverse_stepi",),
        "go back one instruction, or as many as given",
        reverse_stepi,
        (_COUNT,),
        "[count]",
        ("reverse_stepi", "reverse_stepi 100"),
    ),
    HmpCommand(
        ("savevm",),
        "save a snapshot of the whole machine",
        savevm,
        (Parameter("name", Kind.STRING, optional=True),),
        "[tag]",
        ("savevm before-crash",),
    ),
    HmpCommand(("stepi",), "execute one instruction, or as many as given", stepi, (_COUNT,), "[count]", ("stepi 10",)),
    HmpCommand(("stop", "s"), "pause the machine; cancel a seek or reverse run", stop),
    HmpCommand(
        ("sum",),
        "the checksum of physical memory",
        sum_,
        (_ADDRESS_32, Parameter("size", Kind.SMALL)),
        "addr size",
        ("sum 0x40000000 4096",),
    ),
    HmpCommand(("system_powerdown",), "press the power button", system_powerdown),
    HmpCommand(("system_reset",), "press the reset button", system_reset),
    HmpCommand(("timeline",), "the named moments of the recording, and where the machine is", timeline),
    HmpCommand(
        ("x",),
        "virtual memory as numbers, characters (c) or instructions (i)",
        examine,
        (_MEMORY_FORMAT, _ADDRESS),
        "/fmt addr",
        ("x/4xw $sp", "x/10i $pc", "x/2gx 0x40200000"),
    ),
    HmpCommand(
        ("xp",),
        "physical memory, as x does",
        examine_physical,
        (_MEMORY_FORMAT, _ADDRESS),
        "/fmt addr",
        ("xp/8xb 0x40000000",),
    ),
)
