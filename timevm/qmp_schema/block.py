"""QAPI module ``block-core``: disks and their images (QEMU: ``qapi/block-core.json``)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from timevm.qmp_schema.base import Bool, Command, Example, Int, Number, QapiEnum, QapiModel, Str

#: the oldest structs of QAPI spell their members with underscores
_UNDERSCORES = ConfigDict(alias_generator=lambda name: name)


class SnapshotInfo(QapiModel):
    """An internal snapshot; ``vm-state-size`` in bytes, ``icount`` if the machine counted."""

    id: Str
    name: Str
    vm_state_size: Int
    date_sec: Int
    date_nsec: Int
    vm_clock_sec: Int
    vm_clock_nsec: Int
    icount: Int | None = None


class ImageInfo(QapiModel):
    """Sizes in bytes."""

    filename: Str
    format: Str
    dirty_flag: Bool | None = None
    actual_size: Int | None = None
    virtual_size: Int
    cluster_size: Int | None = None
    backing_filename: Str | None = None
    snapshots: list[SnapshotInfo] | None = None


class BlockdevCacheInfo(QapiModel):
    writeback: Bool
    direct: Bool
    no_flush: Bool


class BlockdevDetectZeroesOptions(QapiEnum):
    OFF = "off"
    ON = "on"
    UNMAP = "unmap"


class BlockDeviceInfo(QapiModel):
    """A block node.  ``ro``: read-only; ``drv``: format or protocol; throttling limits are always 0."""

    file: Str
    node_name: Annotated[Str | None, Field(alias="node-name")] = None
    ro: Bool
    drv: Str
    backing_file: Str | None = None
    backing_file_depth: Int
    encrypted: Bool
    detect_zeroes: BlockdevDetectZeroesOptions
    bps: Int
    bps_rd: Int
    bps_wr: Int
    iops: Int
    iops_rd: Int
    iops_wr: Int
    image: ImageInfo
    cache: BlockdevCacheInfo
    write_threshold: Int

    model_config = _UNDERSCORES


class BlockInfo(QapiModel):
    """A disk as the guest has it; ``inserted``: the node behind it."""

    device: Str
    qdev: Str | None = None
    type: Str
    removable: Bool
    locked: Bool
    inserted: BlockDeviceInfo | None = None


class BlockDeviceTimedStats(QapiModel):
    """Statistics of an interval of time; timevm keeps none."""

    interval_length: Int
    min_rd_latency_ns: Int
    max_rd_latency_ns: Int
    avg_rd_latency_ns: Int
    min_wr_latency_ns: Int
    max_wr_latency_ns: Int
    avg_wr_latency_ns: Int
    min_flush_latency_ns: Int
    max_flush_latency_ns: Int
    avg_flush_latency_ns: Int
    avg_rd_queue_depth: Number
    avg_wr_queue_depth: Number

    model_config = _UNDERSCORES


class BlockDeviceStats(QapiModel):
    """Since the machine started: bytes, operations, and ns of host time spent in them.

    timevm merges no requests, and has no failed or invalid ones: a disk that fails stops the machine.
    """

    rd_bytes: Int
    wr_bytes: Int
    unmap_bytes: Int
    rd_operations: Int
    wr_operations: Int
    unmap_operations: Int
    flush_operations: Int
    rd_total_time_ns: Int
    wr_total_time_ns: Int
    unmap_total_time_ns: Int
    flush_total_time_ns: Int
    wr_highest_offset: Int
    rd_merged: Int
    wr_merged: Int
    unmap_merged: Int
    failed_rd_operations: Int
    failed_wr_operations: Int
    failed_unmap_operations: Int
    failed_flush_operations: Int
    invalid_rd_operations: Int
    invalid_wr_operations: Int
    invalid_unmap_operations: Int
    invalid_flush_operations: Int
    account_invalid: Bool
    account_failed: Bool
    timed_stats: list[BlockDeviceTimedStats]

    @classmethod
    def of(cls, numbers: dict[str, int]) -> BlockDeviceStats:
        """What is not in ``numbers`` is 0."""
        zeroes: dict[str, Any] = dict.fromkeys(cls.model_fields, 0)
        return cls(**zeroes | {"account_invalid": True, "account_failed": True, "timed_stats": []} | numbers)

    model_config = _UNDERSCORES


class BlockStats(QapiModel):
    device: Str | None = None
    qdev: Str | None = None
    node_name: Str | None = None
    stats: BlockDeviceStats


class NodesArguments(QapiModel):
    """``flat``: without what is behind each image; timevm lists every node by itself in any case."""

    flat: Bool | None = None


class StatsArguments(QapiModel):
    """``query-nodes``: of all block nodes, not only of disks; only false is part of this version."""

    query_nodes: Bool | None = None


class InternalSnapshotArguments(QapiModel):
    """``device``: name or node name of the disk; ``name``: of the new snapshot."""

    device: Str
    name: Str


class DeleteInternalSnapshotArguments(QapiModel):
    """At least one of ``id`` and ``name``."""

    device: Str
    id: Str | None = None
    name: Str | None = None


_IMAGE = {"filename": "disk.qcow2", "format": "qcow2", "virtual-size": 1073741824, "cluster-size": 65536}
_NODE = {
    "file": "disk.qcow2",
    "node-name": "disk0",
    "ro": False,
    "drv": "qcow2",
    "backing_file_depth": 0,
    "encrypted": False,
    "detect_zeroes": "off",
    "bps": 0,
    "bps_rd": 0,
    "bps_wr": 0,
    "iops": 0,
    "iops_rd": 0,
    "iops_wr": 0,
    "image": _IMAGE,
    "cache": {"writeback": True, "direct": False, "no-flush": False},
    "write_threshold": 0,
}
_STATISTICS = BlockDeviceStats.of({"rd_bytes": 4096, "rd_operations": 1, "rd_total_time_ns": 90210}).on_wire()

COMMANDS = (
    Command(
        name="query-block",
        documentation="The disks.",
        result=list[BlockInfo],
        example=Example(
            None,
            [{"device": "disk0", "type": "unknown", "removable": False, "locked": False, "inserted": _NODE}],
        ),
        allow_preconfig=True,
        hmp="info block",
    ),
    Command(
        name="query-named-block-nodes",
        arguments=NodesArguments,
        documentation="All block nodes: formats, files, and `blkreplay` between them and the disk.",
        result=list[BlockDeviceInfo],
        example=Example(None, [_NODE]),
        allow_preconfig=True,
    ),
    Command(
        name="query-blockstats",
        arguments=StatsArguments,
        documentation="What the disks have done so far.",
        result=list[BlockStats],
        example=Example(None, [{"device": "disk0", "stats": _STATISTICS}]),
        allow_preconfig=True,
        hmp="info blockstats",
    ),
    Command(
        name="blockdev-snapshot-internal-sync",
        documentation="Save an internal snapshot of one disk, without the machine's state.",
        arguments=InternalSnapshotArguments,
        example=Example({"device": "disk0", "name": "before-update"}, {}),
        errors=("Cannot find device='DEVICE' nor node-name='DEVICE'", "Snapshot with name 'NAME' already exists on …"),
    ),
    Command(
        name="blockdev-snapshot-delete-internal-sync",
        documentation="Delete an internal snapshot of one disk, and say what it was.",
        arguments=DeleteInternalSnapshotArguments,
        result=SnapshotInfo,
        example=Example(
            {"device": "disk0", "name": "before-update"},
            {
                "id": "1",
                "name": "before-update",
                "vm-state-size": 0,
                "date-sec": 1000012,
                "date-nsec": 10,
                "vm-clock-sec": 100,
                "vm-clock-nsec": 20,
                "icount": 220414,
            },
        ),
        errors=("Name or id must be provided", "Cannot find device='DEVICE' nor node-name='DEVICE'"),
    ),
)
