"""The guest's memory as a core file, and how far that is."""

from __future__ import annotations

from typing import Any

from timevm.monitor.commands.dispatch import execute
from timevm.monitor.hmp.errors import HmpError
from timevm.monitor.hmp.parameters import Kind, Parameter
from timevm.monitor.hmp.table import Call, HmpCommand
from timevm.qmp_schema.dump import DumpGuestMemoryFormat, DumpQueryResult, DumpStatus

_FORMATS = {
    "zlib": DumpGuestMemoryFormat.KDUMP_ZLIB,
    "lzo": DumpGuestMemoryFormat.KDUMP_LZO,
    "snappy": DumpGuestMemoryFormat.KDUMP_SNAPPY,
    "windows": DumpGuestMemoryFormat.WIN_DMP,
}


async def dump_guest_memory(call: Call) -> str:
    values = call.values
    formats = [form for name, form in _FORMATS.items() if values[name]]
    if len(formats) > 1:
        raise HmpError("only one of '-z|-l|-s|-w' can be set")
    arguments: dict[str, Any] = {
        "paging": values["paging"],
        "protocol": f"file:{values['filename']}",
        "detach": values["detach"],
        "format": (formats[0] if formats else DumpGuestMemoryFormat.ELF).value,
    }
    arguments |= {name: values[name] for name in ("begin", "length") if name in values}
    await execute(call.context, "dump-guest-memory", arguments)
    return ""


async def info_dump(call: Call) -> str:
    found: DumpQueryResult = await execute(call.context, "query-dump", {})
    text = f"Status: {found.status.value}\n"
    if found.status is DumpStatus.ACTIVE:
        text += f"Finished: {100 * found.completed / max(found.total, 1):.2f} %\n"
    return text


DUMPING: tuple[HmpCommand, ...] = (
    HmpCommand(
        ("dump-guest-memory",),
        "write memory and registers to a core file for gdb, crash or drgn (-p: as mapped now; -d: do not wait)",
        dump_guest_memory,
        (
            Parameter("paging", Kind.FLAG, flag="p"),
            Parameter("detach", Kind.FLAG, flag="d"),
            Parameter("windows", Kind.FLAG, flag="w"),
            Parameter("zlib", Kind.FLAG, flag="z"),
            Parameter("lzo", Kind.FLAG, flag="l"),
            Parameter("snappy", Kind.FLAG, flag="s"),
            Parameter("filename", Kind.FILENAME),
            Parameter("begin", Kind.EXPRESSION, optional=True),
            Parameter("length", Kind.EXPRESSION, optional=True),
        ),
        "[-p] [-d] [-z|-l|-s|-w] filename [begin length]",
        ("dump-guest-memory -p before-crash.core", "dump-guest-memory low.core 0x40000000 0x100000"),
    ),
)
