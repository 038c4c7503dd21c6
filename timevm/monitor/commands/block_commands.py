"""Disks.  A machine without any has empty lists."""

from __future__ import annotations

from timevm.monitor.commands.context import Handler, MonitorContext
from timevm.monitor.commands.errors import CommandError
from timevm.qmp_schema.base import Empty
from timevm.qmp_schema.block import (
    BlockDeviceInfo,
    BlockInfo,
    BlockStats,
    DeleteInternalSnapshotArguments,
    InternalSnapshotArguments,
    NodesArguments,
    SnapshotInfo,
    StatsArguments,
)


def _not_found(device: str) -> CommandError:
    return CommandError(f"Cannot find device='{device}' nor node-name='{device}'")


async def query_block(context: MonitorContext, arguments: Empty) -> list[BlockInfo]:
    return [] if context.block is None else await context.block.devices()


async def query_named_block_nodes(context: MonitorContext, arguments: NodesArguments) -> list[BlockDeviceInfo]:
    return [] if context.block is None else await context.block.nodes()


async def query_blockstats(context: MonitorContext, arguments: StatsArguments) -> list[BlockStats]:
    if arguments.query_nodes:
        raise CommandError(
            "Parameter 'query-nodes' can only be false in this version: there are no statistics of nodes"
        )
    return [] if context.block is None else await context.block.statistics()


async def save_snapshot(context: MonitorContext, arguments: InternalSnapshotArguments) -> None:
    if context.block is None:
        raise _not_found(arguments.device)
    await context.block.save_snapshot(arguments.device, arguments.name)


async def delete_snapshot(context: MonitorContext, arguments: DeleteInternalSnapshotArguments) -> SnapshotInfo:
    if context.block is None:
        raise _not_found(arguments.device)
    return await context.block.delete_snapshot(arguments.device, arguments.id, arguments.name)


HANDLERS: dict[str, Handler] = {
    "query-block": query_block,
    "query-named-block-nodes": query_named_block_nodes,
    "query-blockstats": query_blockstats,
    "blockdev-snapshot-internal-sync": save_snapshot,
    "blockdev-snapshot-delete-internal-sync": delete_snapshot,
}
