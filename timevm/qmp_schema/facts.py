"""Of QAPI modules ``machine``, ``machine-target`` and ``misc``: what never changes while a machine is there."""

from __future__ import annotations

from timevm.qmp_schema.base import Bool, Command, Example, Int, QapiModel, Str
from timevm.qmp_schema.machine import SysEmuTarget


class TargetInfo(QapiModel):
    arch: SysEmuTarget


class UuidInfo(QapiModel):
    """``UUID``: of ``-uuid``, zeroes if there was none."""

    UUID: Str


class MemoryInfo(QapiModel):
    """In bytes."""

    base_memory: Int
    plugged_memory: Int | None = None


class IOThreadInfo(QapiModel):
    """A thread of ``-object iothread``, which timevm has none of."""

    id: Str
    thread_id: Int
    poll_max_ns: Int
    poll_grow: Int
    poll_shrink: Int
    aio_max_batch: Int


class CurrentMachineParams(QapiModel):
    """``wakeup-suspend-support``: the guest can be suspended, and woken by ``system_wakeup``."""

    wakeup_suspend_support: Bool


COMMANDS = (
    Command(
        name="query-target",
        documentation="The guest's architecture.",
        result=TargetInfo,
        example=Example(None, {"arch": "aarch64"}),
    ),
    Command(
        name="query-uuid",
        documentation="The machine's UUID, as `-uuid` says; only its monitors know it.",
        result=UuidInfo,
        example=Example(None, {"UUID": "550e8400-e29b-41d4-a716-446655440000"}),
        allow_preconfig=True,
        hmp="info uuid",
    ),
    Command(
        name="query-memory-size-summary",
        documentation="How much RAM the guest has.",
        result=MemoryInfo,
        example=Example(None, {"base-memory": 134217728, "plugged-memory": 0}),
        hmp="info memory_size_summary",
    ),
    Command(
        name="query-iothreads",
        documentation="The threads of `-object iothread`: there are none.",
        result=list[IOThreadInfo],
        example=Example(None, []),
        allow_preconfig=True,
        hmp="info iothreads",
    ),
    Command(
        name="query-current-machine",
        documentation="What this machine can do: it is never suspended.",
        result=CurrentMachineParams,
        example=Example(None, {"wakeup-suspend-support": False}),
    ),
)
