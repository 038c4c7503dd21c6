"""QAPI module ``dump``: the guest's memory as a core file (QEMU: ``qapi/dump.json``)."""

from __future__ import annotations

from timevm.qmp_schema.base import Bool, Command, Event, Example, Int, QapiEnum, QapiModel, Str


class DumpGuestMemoryFormat(QapiEnum):
    """QEMU's; timevm writes `elf`."""

    ELF = "elf"
    KDUMP_ZLIB = "kdump-zlib"
    KDUMP_LZO = "kdump-lzo"
    KDUMP_SNAPPY = "kdump-snappy"
    WIN_DMP = "win-dmp"


class DumpStatus(QapiEnum):
    """`none`: nothing has been dumped yet."""

    NONE = "none"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"


class DumpArguments(QapiModel):
    """``paging``: at the virtual addresses that the page tables map now, not at physical ones.  ``protocol``: ``file:``
    and a path, relative to where timevm runs; the file is replaced when the dump is whole.  ``detach``: answer when the
    dump has begun, and tell of its end by an event.  ``begin`` and ``length``: of the physical addresses to dump, all
    memory without them.
    """

    paging: Bool
    protocol: Str
    detach: Bool | None = None
    begin: Int | None = None
    length: Int | None = None
    format: DumpGuestMemoryFormat | None = None


class DumpQueryResult(QapiModel):
    """Of the latest dump: bytes of memory, pages that hold nothing included."""

    status: DumpStatus
    completed: Int
    total: Int


class DumpGuestMemoryCapability(QapiModel):
    formats: list[DumpGuestMemoryFormat]


class DumpCompletedData(QapiModel):
    """``error``: why it failed."""

    result: DumpQueryResult
    error: Str | None = None


_DONE = {"status": "completed", "completed": 134217728, "total": 134217728}

COMMANDS = (
    Command(
        name="dump-guest-memory",
        documentation="Write the guest's memory and registers, as they are at this instruction, to an ELF core file, "
        "for gdb, crash or drgn.  The machine stands meanwhile; in a replay this can be done at any instruction.  "
        "Memory that is zero takes no room in the file.  A kernel's own note for such tools "
        "(VMCOREINFO) is copied into the file if the guest is a Linux that has one.",
        arguments=DumpArguments,
        example=Example(
            {"paging": False, "protocol": "file:/tmp/vmcore"},
            {},
            events=(("DUMP_COMPLETED", {"result": _DONE}),),
        ),
        errors=(
            "There is a dump in process, please wait.",
            "Could not open 'FILE': …",
            "Invalid parameter 'protocol'",
            "Parameter 'begin' is missing",
            "dump: no guest memory to dump",
            "dump: failed to save memory: …",
            "kdump-compressed format doesn't support paging or filter",
            "kdump-zlib is not available now",
        ),
        hmp="dump-guest-memory",
    ),
    Command(
        name="query-dump",
        documentation="How far the latest dump is.",
        result=DumpQueryResult,
        example=Example(None, {"status": "active", "completed": 1048576, "total": 134217728}),
        hmp="info dump",
    ),
    Command(
        name="query-dump-guest-memory-capability",
        documentation="The formats of dump-guest-memory.",
        result=DumpGuestMemoryCapability,
        example=Example(None, {"formats": ["elf"]}),
    ),
)

EVENTS = (
    Event(
        "DUMP_COMPLETED",
        "A dump has ended, well or not.",
        DumpCompletedData,
        {"result": _DONE},
    ),
)
