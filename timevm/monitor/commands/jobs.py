"""Jobs: work that a command starts and does not wait for, with QEMU's statuses (QEMU: ``job.c``)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from timevm.engine.control.events import EventStream
from timevm.errors import InternalError, TimevmError
from timevm.monitor.commands.errors import CommandError
from timevm.qmp_schema.job import JobInfo, JobStatus, JobType

#: the moves that a job makes; all jobs here are finalized by themselves and dismissed by the user
MOVES: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.UNDEFINED: frozenset({JobStatus.CREATED}),
    JobStatus.CREATED: frozenset({JobStatus.RUNNING, JobStatus.ABORTING}),
    JobStatus.RUNNING: frozenset({JobStatus.WAITING, JobStatus.ABORTING}),
    JobStatus.WAITING: frozenset({JobStatus.PENDING, JobStatus.ABORTING}),
    JobStatus.PENDING: frozenset({JobStatus.CONCLUDED, JobStatus.ABORTING}),
    JobStatus.ABORTING: frozenset({JobStatus.CONCLUDED}),
    JobStatus.CONCLUDED: frozenset({JobStatus.NULL}),
    JobStatus.NULL: frozenset(),
}

#: what QEMU takes for an identifier (``id_wellformed``)
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9\-._]*\Z")


@dataclass
class _Job:
    id: str
    type: JobType
    status: JobStatus = JobStatus.UNDEFINED
    error: str | None = None

    def information(self) -> JobInfo:
        # as in QEMU the one step of these jobs is done when they end, well or not
        done = int(self.status not in (JobStatus.UNDEFINED, JobStatus.CREATED, JobStatus.RUNNING))
        return JobInfo(
            id=self.id,
            type=self.type,
            status=self.status,
            current_progress=done,
            total_progress=1,
            error=self.error,
        )


class JobTable:
    """All jobs that have not been dismissed."""

    def __init__(self, events: EventStream) -> None:
        self._events = events
        self._jobs: dict[str, _Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, identifier: str, kind: JobType, work: Coroutine[Any, Any, object]) -> None:
        """Run ``work`` in the background.  Raises CommandError if there can be no job of that name."""
        try:
            if not _IDENTIFIER.match(identifier):
                raise CommandError(f"Invalid job ID '{identifier}'")
            if identifier in self._jobs:
                raise CommandError(f"Job ID '{identifier}' already in use")
        except CommandError:
            work.close()
            raise
        job = self._jobs[identifier] = _Job(identifier, kind)
        self._move(job, JobStatus.CREATED)
        task = asyncio.get_running_loop().create_task(self._run(job, work), name=f"job {identifier}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, job: _Job, work: Coroutine[Any, Any, object]) -> None:
        self._move(job, JobStatus.RUNNING)
        try:
            await work
        except TimevmError as failure:
            job.error = str(failure)
            self._move(job, JobStatus.ABORTING)
        except asyncio.CancelledError:
            job.error = "Operation canceled"
            self._move(job, JobStatus.ABORTING)
            self._move(job, JobStatus.CONCLUDED)
            raise
        else:
            self._move(job, JobStatus.WAITING)
            self._move(job, JobStatus.PENDING)
        self._move(job, JobStatus.CONCLUDED)

    def _move(self, job: _Job, status: JobStatus) -> None:
        if status not in MOVES[job.status]:
            raise InternalError(f"job '{job.id}' cannot move from {job.status.value} to {status.value}")
        job.status = status
        self._events.send("JOB_STATUS_CHANGE", {"id": job.id, "status": status.value})

    def dismiss(self, identifier: str) -> None:
        """Forget a concluded job.  Raises CommandError."""
        job = self._jobs.get(identifier)
        if job is None:
            raise CommandError("Job not found")
        if job.status is not JobStatus.CONCLUDED:
            raise CommandError(f"Job '{identifier}' in state '{job.status.value}' cannot accept command verb 'dismiss'")
        del self._jobs[identifier]
        self._move(job, JobStatus.NULL)

    def information(self) -> list[JobInfo]:
        """The newest first, as in QEMU."""
        return [job.information() for job in reversed(self._jobs.values())]

    async def close(self) -> None:
        """Cancel what runs and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
