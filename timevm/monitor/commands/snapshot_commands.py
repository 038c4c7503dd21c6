"""Snapshots as jobs."""

from __future__ import annotations

from timevm.monitor.commands.context import Handler, MonitorContext
from timevm.monitor.commands.errors import CommandError
from timevm.qmp_schema.base import Empty
from timevm.qmp_schema.job import JobArguments, JobInfo, JobType, SnapshotArguments, SnapshotDeleteArguments


async def _check_nodes(context: MonitorContext, devices: list[str], *more: str) -> None:
    if not devices:
        raise CommandError("At least one device is required for snapshot")
    known = set() if context.block is None else {node.node_name for node in await context.block.nodes()}
    for node in (*devices, *more):
        if node not in known:
            raise CommandError(f"No block device node '{node}'")


async def _save(context: MonitorContext, arguments: SnapshotArguments) -> None:
    await _check_nodes(context, arguments.devices, arguments.vmstate)
    if arguments.vmstate not in arguments.devices:
        raise CommandError("vmstate block device is not in the devices list")
    if any(snapshot.tag == arguments.tag for snapshot in await context.vm.snapshots()):
        raise CommandError(f"Snapshot '{arguments.tag}' already exists in one or more devices")
    await context.vm.save_snapshot(arguments.tag)


async def _load(context: MonitorContext, arguments: SnapshotArguments) -> None:
    await _check_nodes(context, arguments.devices, arguments.vmstate)
    await context.vm.load_snapshot(arguments.tag)


async def _delete(context: MonitorContext, arguments: SnapshotDeleteArguments) -> None:
    await _check_nodes(context, arguments.devices)
    if any(snapshot.tag == arguments.tag for snapshot in await context.known_snapshots()):
        await context.vm.delete_snapshot(arguments.tag)


async def snapshot_save(context: MonitorContext, arguments: SnapshotArguments) -> None:
    context.jobs.start(arguments.job_id, JobType.SNAPSHOT_SAVE, _save(context, arguments))


async def snapshot_load(context: MonitorContext, arguments: SnapshotArguments) -> None:
    context.jobs.start(arguments.job_id, JobType.SNAPSHOT_LOAD, _load(context, arguments))


async def snapshot_delete(context: MonitorContext, arguments: SnapshotDeleteArguments) -> None:
    context.jobs.start(arguments.job_id, JobType.SNAPSHOT_DELETE, _delete(context, arguments))


async def query_jobs(context: MonitorContext, arguments: Empty) -> list[JobInfo]:
    return context.jobs.information()


async def job_dismiss(context: MonitorContext, arguments: JobArguments) -> None:
    context.jobs.dismiss(arguments.id)


HANDLERS: dict[str, Handler] = {
    "snapshot-save": snapshot_save,
    "snapshot-load": snapshot_load,
    "snapshot-delete": snapshot_delete,
    "query-jobs": query_jobs,
    "job-dismiss": job_dismiss,
}
